r"""What `configs/release_wide.py` trained, gone on with on two CPU cores: faces turned to the side.

    mtnet train --config release_fine --workdir runs/release_fine

The face mesh that labels photographs takes turned faces for more frontal ones (docs/results.md): it
is asked up to 35 degrees now, and what it says is turned out by a tenth (for the portraits of the
Congress by `benchmarks/member_photos.py`, for the others by `benchmarks/photographs.py`). Of the
portraits, every second was used, twice as often. Inputs of 320 pixels cost half, and most heads in
them are 50 to 110 pixels long: the sizes at which second looks show heads (`mtnet_jax/predict`).
Anchors keep their pixels. Level with what it began from, so it does not ship (docs/results.md).

bfloat16, for processors that multiply it (Intel's with AMX, AMD's since Zen 4:
docs/performance.md); on others `--config.model.dtype=float32` is faster.
"""

from mtnet_jax.config import phase, starting_from, trained_on

SIZE = 320
WEIGHTS = {  # how often each image of a set comes
    "hardhat": 1.0,
    "hardhat_more": 1.0,
    "masks": 4.0,
    "portraits": 10.0,
    "congress_train": 1.4,
    "pointing04": 1.5,
    "studio_42": 1.3,
}


def get_config():
    config = starting_from("release_wide")
    config.init.weights = "runs/release_wide"
    scale = config.input.size / SIZE
    config.input.anchors = tuple((w * scale, h * scale) for w, h in config.input.anchors)
    config.input.size = SIZE
    config.data = trained_on(WEIGHTS)
    config.pack.tiles = (1, 2, 2, 3, 3, 3, 3, 4)
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=3.5,
        batch_size=16,
        learning_rate=8e-4,
        schedule="cosine",
        warmup_steps=200,
        alpha=0.3,
    )
    config.loader_processes = 0
    config.save_every_steps = 100
    return config
