r"""What `configs/release_turned.py` began, gone on with: faces of every kind, made by networks.

    python -m benchmarks.generated_faces --raw SFHQ-T2I-dataset --out generated
    python -m benchmarks.mean_weights runs/release_turned runs/release_wide --out runs/release_mean
    mtnet train --config release_generated --workdir runs/release_generated

Portraits of members of a parliament are of few ages, in few lights, and seldom laugh: on them
`release_wide` is twice as good as on AFLW2000. `benchmarks/generated_faces.py` brings faces of
every kind, labelled like the portraits (`records/generated_train`), and turned, each in three ways
(`records/generated_turned`, `mtnet data convert turned-faces --turns 3`). It begins as the mean of
what `release_wide` and `release_turned` trained (docs/results.md).
"""

from mtnet_jax.config import starting_from, trained_on

WEIGHTS = {  # how often each image of a set comes
    "hardhat": 1.0,
    "hardhat_more": 1.0,
    "masks": 4.0,
    "portraits": 10.0,
    "congress_train": 0.7,
    "congress_turned": 0.8,
    "generated_train": 2.0,
    "generated_turned": 1.0,
    "pointing04": 1.5,
    "studio_42": 0.8,
}


def get_config():
    config = starting_from("release_turned")
    config.init.weights = "runs/release_mean"
    config.data = trained_on(WEIGHTS)
    config.phases.phase3.epochs = 3.4
    config.phases.phase3.learning_rate = 8e-4
    return config
