r"""The weights that ship: photographs of many kinds, rendered people for the rest of the circle.

    mtnet train --config release --workdir runs/release

The net of `configs/small.py`, which reads a photograph at 416 pixels in some 20 ms on two cores.
Rotations are relative to the ray through a head (docs/conventions.md), so that crops may train
them; half of the inputs are packed with crops round heads. What the record sets are, how they are
made, and what came of it: docs/results.md.
"""

from mtnet_jax.config import phase, record_set, starting_from

# Name -> (how often each of its images comes, split to follow while training).
PHOTOGRAPHS = {
    "hardhat": (1.0, "test"),
    "hardhat_more": (1.0, ""),
    "masks": (3.0, "test"),
    "portraits": (5.0, ""),
    "pointing04": (0.7, "test"),
}
STUDIO = ("studio_21", "studio_22", "studio_23", "studio_24", "studio_25", "studio_26")


def get_config():
    config = starting_from("small")
    config.frame = "ray"
    config.input.max_heads = 64
    for name in list(config.data):
        del config.data[name]
    for name, (weight, eval_split) in PHOTOGRAPHS.items():
        config.data[name] = record_set(f"records/{name}", weight=weight, eval_split=eval_split)
    for name in STUDIO:
        follow = "test" if name == STUDIO[0] else ""
        config.data[name] = record_set(f"records/{name}", weight=0.3, eval_split=follow)

    config.pack.share = 0.6
    config.augment.turn = 20.0
    config.augment.scale_min = 0.5
    config.augment.scale_max = 1.8
    config.augment.coarse = 0.15
    config.augment.jpeg = 0.15

    for name in list(config.phases):
        del config.phases[name]
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=20,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=100,
        alpha=0.3,
    )
    config.eval_pictures = 250
    config.eval_every_epochs = 4.0
    return config
