"""TensorFlow runs the networks that we write for it, and they say what JAX says.

Both are written and run in the environment that has TensorFlow (requirements-tensorflow-test.txt).
"""

import json
import os
import subprocess

import pytest

from mtnet_jax.errors import Failed
from mtnet_jax.export.folder import export
from tests.conftest import REPOSITORY

PROGRAM = """
import json, sys
import numpy as np
from benchmarks import exports
from mtnet_jax.export.folder import export

exports.SCORE = float(sys.argv[3])
export(sys.argv[1], sys.argv[2], formats=("saved-model", "tflite"), license="MIT")
images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
results = exports.parity(exports.Path(sys.argv[2]), images, rounds=0)

import tensorflow as tf
metadata = tf.saved_model.load(sys.argv[2] + "/saved_model").metadata.numpy().decode()
with open(sys.argv[4], "w") as file:
    json.dump({"results": [r._asdict() for r in results], "metadata": json.loads(metadata)}, file)
"""


def test_tensorflow_says_what_jax_says(weights, tmp_path, tensorflow_python):
    from tests.tiny import SCORE

    arguments = [weights, tmp_path / "out", str(SCORE), tmp_path / "results.json"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [tensorflow_python, "-c", PROGRAM, *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "results.json").read_text())
    assert [r["name"] for r in said["results"]] == ["npz", "saved-model", "tflite"]
    for result in said["results"]:
        assert result["found"] == result["heads"] > 3
        assert result["extra"] == 0
        assert result["box"] < 0.01
        assert result["degrees"] < 0.01
    assert said["metadata"]["license"] == "MIT"


def test_without_tensorflow_the_cure_is_named(weights, tmp_path):
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("TensorFlow is here")
    with pytest.raises(Failed, match=r"pip install 'mtnet-jax\[tensorflow\]'"):
        export(weights, tmp_path / "out", formats=["tflite"])
    assert not (tmp_path / "out").exists()
