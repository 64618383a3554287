r"""What `configs/release_faces.py` trained, gone on with: faces in hard light, and cut ones.

    mtnet data convert turned-faces ... --turns 12  # two for the portraits of the Congress
    python -m benchmarks.mean_weights runs/release_faces runs/release_generated_mean --share 0.85 \
        --out runs/release_faces_mean
    mtnet train --config release_light --workdir runs/release_light

Of the heads of AFLW2000 that are read worst, most are cut by their photograph, lie in the dark or
in hard light. So light falls unevenly on a part of the images (`augment.light`), some heads of
packed inputs are cut (`pack.cut`), and made faces are turned in twice as many ways
(docs/results.md).
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
    "generated_turned": 0.45,
    "avatars_train": 3.0,
    "avatars_turned": 0.6,
    "pointing04": 1.5,
    "studio_42": 0.6,
}


def get_config():
    config = starting_from("release_faces")
    config.init.weights = "runs/release_faces_mean"
    config.data = trained_on(WEIGHTS)
    config.augment.light = 0.25
    config.pack.cut = 0.15
    config.phases.phase3.epochs = 3.1
    return config
