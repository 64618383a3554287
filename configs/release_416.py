r"""The last part of the training of `configs/release.py`, at 416 pixels, where large heads fit in.

    mtnet train --config release_416 --workdir runs/release_416
    mtnet export --workdir runs/release_416 --out exported --half --format onnx --size 512

Starts from `runs/release`. The anchors keep their pixels: they are written for an input of 416.
Photographs with rotations come more often than before, alone and in packed inputs, and whole images
are enlarged until a head fills the input. What ships takes inputs of 512: small heads gain by that.
"""

from mtnet_jax.config import phase, starting_from

SIZE = 416
WEIGHTS = {  # of the record sets, in the place of those of `configs/release.py`
    "masks": 6.0,
    "portraits": 12.0,
    "pointing04": 1.5,
    "studio_21": 0.12,
    "studio_22": 0.12,
    "studio_31": 0.28,
    "studio_32": 0.28,
}


def get_config():
    config = starting_from("release")
    config.init.weights = "runs/release"
    scale = config.input.size / SIZE
    config.input.anchors = tuple((w * scale, h * scale) for w, h in config.input.anchors)
    config.input.size = SIZE
    config.input.max_heads = 96
    for name, weight in WEIGHTS.items():
        config.data[name].weight = weight
    config.input.far_look = True
    config.pack.share = 0.65
    config.pack.tiles = (1, 2, 3, 3, 4, 4, 5, 6)
    config.pack.heading_only = 0.35
    config.augment.scale_min = 0.4
    config.augment.scale_max = 2.4
    config.augment.shift = 0.25
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=2.0,
        batch_size=8,
        learning_rate=7e-4,
        schedule="cosine",
        warmup_steps=60,
        alpha=0.3,
    )
    config.eval_every_epochs = 0.0
    config.eval_images = 150
    config.save_every_steps = 250
    return config
