r"""The last part of the training of `configs/release.py`, at 416 pixels, where large heads fit in.

    mtnet train --config release_416 --workdir runs/release_416

Starts from `runs/release`. The anchors keep their pixels: they are written for an input of 416.
"""

from mtnet_jax.config import phase, starting_from

SIZE = 416


def get_config():
    config = starting_from("release")
    config.init.weights = "runs/release"
    scale = config.input.size / SIZE
    config.input.anchors = tuple((w * scale, h * scale) for w, h in config.input.anchors)
    config.input.size = SIZE
    config.input.max_heads = 96
    config.input.far_look = True
    config.pack.tiles = (1, 2, 3, 4, 6)
    config.augment.scale_min = 0.4
    config.augment.scale_max = 1.8
    config.augment.shift = 0.25
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=2.35,
        batch_size=8,
        learning_rate=6e-4,
        schedule="cosine",
        warmup_steps=30,
        alpha=0.3,
    )
    config.eval_every_epochs = 0.0
    config.eval_images = 150
    config.save_every_steps = 250
    return config
