r"""What `configs/release_turned.py` began, gone on with: faces of every kind, made by networks.

    python -m benchmarks.generated_faces --raw SFHQ-T2I-dataset --out generated
    mtnet train --config release_generated --workdir runs/release_generated

Portraits of members of a parliament are of few ages, in few lights, and seldom laugh: on them the
weights that ship are twice as good as on AFLW2000. `benchmarks/generated_faces.py` brings faces of
every kind, labelled like the portraits (`records/generated_train`), and turned, each in three ways
(`records/generated_turned`, `mtnet data convert turned-faces --turns 3`).
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
    config.init.weights = "unfinished/release_turned"
    config.data = trained_on(WEIGHTS)
    config.phases.phase3.epochs = 4.0
    config.phases.phase3.learning_rate = 8e-4
    return config
