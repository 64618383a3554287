r"""A very small net on whole photographs, for experiments with heads and how they are trained.

    python -m benchmarks.photographs --data DATA --records records --convert
    mtnet train --config photographs --workdir runs/photographs

The recipe of `configs/release.py`, with a quarter of the channels, one residual block a stage, 192
pixels and a thirtieth of the images, everything trained at once from random weights; anchors are a
seventh smaller in parts of the input. Its parts are compared by `configs/ablations/recipe.py`. The
commands for `studio_41` and `studio_42` are in `configs/release_416.py`; the latter is for testing.
"""

from mtnet_jax.config import phase, starting_from, trained_on

SIZE = 192
RECORD_SETS = {  # name -> how often each of its images comes
    "hardhat": 1.0,
    "masks": 3.0,
    "portraits": 6.0,
    "pointing04": 0.8,
    "studio_41": 0.5,
}


def get_config():
    config = starting_from("release")
    scale = SIZE / config.input.size
    config.input.anchors = tuple((w * scale, h * scale) for w, h in config.input.anchors)
    config.input.size = SIZE
    config.model.depth = 0.125
    config.data = trained_on(RECORD_SETS)
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=1.5,
        batch_size=16,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=100,
        alpha=0.3,
    )
    config.log_every_steps = 50
    config.eval_every_epochs = 0.0
    config.keep_checkpoints = 1
    return config
