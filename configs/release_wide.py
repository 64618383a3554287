r"""A network half as wide again as that of `configs/release_416.py`, on one accelerator.

    mtnet train --config release_wide --workdir runs/release_wide
    mtnet export --workdir runs/release_wide --out exported --half --format onnx --size 448

The network of the weights that ship, and part 10 of their training. Begins as the network of
`release_416` (docs/network.md says how), bfloat16, batches of 64, on its record sets, without
pseudo-labels on Hard Hat and masks. Seven and a half minutes on one H200 with 16 cores, for which
`config.loader_processes` is: docs/scaling.md. What ships began with a mean of two runs
(`benchmarks/mean_weights.py`, docs/results.md).
"""

from mtnet_jax.config import phase, starting_from, trained_on

WEIGHTS = {  # how often each image of a set comes
    "hardhat": 1.0,
    "hardhat_more": 1.0,
    "masks": 4.0,
    "portraits": 10.0,
    "congress_train": 0.7,
    "pointing04": 1.5,
    "studio_41": 0.8,
    "studio_42": 0.8,
}


def get_config():
    config = starting_from("release_416")
    config.init.weights = "runs/release_416"
    config.model.width = 0.375
    config.model.dtype = "bfloat16"
    config.data = trained_on(WEIGHTS)
    config.pack.tiles = (1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=12.5,
        batch_size=64,
        learning_rate=1.5e-3,
        schedule="cosine",
        warmup_steps=300,
        alpha=0.3,
    )
    config.clip_norm = 10.0
    config.ema_decay = 0.999
    config.loader_processes = 15
    config.save_every_steps = 1000
    return config
