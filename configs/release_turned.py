r"""What `configs/release_wide.py` trained, gone on with on two CPU cores: turned faces.

    mtnet data images records/congress_train --out images
    .venv-peers/bin/python -m benchmarks.peers mediapipe --images images --face-model package \
        --landmarks --out landmarks.json
    mtnet data convert turned-faces --raw records/congress_train --landmarks landmarks.json \
        --out records/congress_turned
    mtnet train --config release_turned --workdir runs/release_turned

In photographs most faces look ahead, and what a face mesh says of the others is of little use
(docs/results.md). So every second portrait of the Congress is there twice: as it is, and turned to
the side, up or down in three dimensions. Fewer rendered people than in `configs/release_fine.py`;
the first three stages of the backbone stay as they are, which makes a step shorter.
"""

from mtnet_jax.config import phase, starting_from, trained_on

WEIGHTS = {  # how often each image of a set comes
    "hardhat": 1.0,
    "hardhat_more": 1.0,
    "masks": 4.0,
    "portraits": 10.0,
    "congress_train": 1.0,
    "congress_turned": 1.5,
    "pointing04": 1.5,
    "studio_42": 0.8,
}


def get_config():
    config = starting_from("release_fine")
    config.data = trained_on(WEIGHTS)
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=3.3,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=200,
        frozen_stages=3,
        alpha=0.3,
    )
    return config
