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

from mtnet_jax.config import starting_from


def get_config():
    config = starting_from("release_faces")
    config.init.weights = "runs/release_faces_mean"
    config.data.generated_turned.weight = 0.45  # there are twice as many as in release_faces
    config.data.avatars_turned.weight = 0.6
    config.augment.light = 0.25
    config.pack.cut = 0.15
    config.phases.phase3.epochs = 3.1
    return config
