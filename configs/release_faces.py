r"""What `configs/release_generated.py` trained, gone on with: more faces, each turned more often.

    git clone --depth 1 https://github.com/faker-js/assets-person-portrait avatars
    python -m benchmarks.mean_weights runs/release_generated runs/release_wide --share 0.7 \
        --out runs/release_generated_mean
    mtnet train --config release_faces --workdir runs/release_faces

Two hundred portraits of people from everywhere, out of doors, in cars and in rooms, made by Stable
Diffusion 3 (CC0; `{female,male}/512` of the repository above), labelled like the generated faces;
those labelled anew by the weights that `release_generated` made; and both turned in six ways each,
portraits of the Congress in two (docs/results.md).
"""

from mtnet_jax.config import starting_from, trained_on

WEIGHTS = {  # how often each image of a set comes
    "hardhat": 1.0,
    "hardhat_more": 1.0,
    "masks": 4.0,
    "portraits": 10.0,
    "congress_train": 0.5,
    "congress_turned": 0.45,
    "generated_train": 2.0,
    "generated_turned": 0.8,
    "avatars_train": 3.0,
    "avatars_turned": 1.0,
    "pointing04": 1.5,
    "studio_42": 0.6,
}


def get_config():
    config = starting_from("release_generated")
    config.init.weights = "runs/release_generated_mean"
    config.data = trained_on(WEIGHTS)
    config.phases.phase3.epochs = 3.2
    return config
