r"""A very small net on crops round heads, for experiments with poses.

    for name in studio_41 studio_42 pointing04 masks hardhat; do
        mtnet data convert crops --raw records/$name --out records/${name}_crops --posed
    done
    mtnet train --config crops --workdir runs/crops

A quarter of the channels, one residual block a stage, 64 pixels, everything trained at once from
random weights, so that no choice of an earlier run favours one representation. Rendered people
(`configs/release_416.py` has the commands) turn all the way round with exact rotations; `studio_42`
is kept for testing, all of it. How the representations compare: docs/ablation.md.
"""

from mtnet_jax.config import default_config, phase, record_set

TRAINED = ("studio_41", "pointing04", "masks", "hardhat")


def get_config():
    config = default_config()
    config.model.width = 0.25
    config.model.depth = 0.125
    config.input.size = 64
    config.input.max_heads = 4
    config.frame = "ray"
    for name in TRAINED:
        config.data[name] = record_set(f"records/{name}_crops", eval_split="")
    config.data.studio_42 = record_set("records/studio_42_crops", train_split="", eval_split="test")
    config.augment.turn = 15.0
    config.augment.scale_min = 0.8
    config.augment.scale_max = 1.25
    config.augment.shift = 0.1
    for name in list(config.phases):
        del config.phases[name]
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=4,
        batch_size=32,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=100,
        alpha=0.3,
    )
    config.clip_norm = 30.0
    config.log_every_steps = 40
    config.eval_every_epochs = 1.0
    config.keep_checkpoints = 1
    return config
