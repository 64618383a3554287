"""Small networks as ONNX files, and what they should say."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.anchors import flatten_outputs
from mtnet_jax.export.metadata import INPUT, OUTPUT
from mtnet_jax.predict.onnx_runtime import make_session
from tests.tiny import tiny_config

HOW = "needs onnx: pip install -e '.[export]'"


def config_of(**model) -> ConfigDict:
    config = tiny_config()
    config.input.size = 96
    config.model.update(model)
    return config


def run(model, images: np.ndarray) -> np.ndarray:
    (predictions,) = make_session(model.SerializeToString()).run([OUTPUT], {INPUT: images})
    return predictions


def random_images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def expected_of(model, variables, images: np.ndarray) -> np.ndarray:
    """What the network itself gives, in float32."""
    outputs = jax.jit(model.clone(dtype=jnp.float32).apply)(variables, images / np.float32(255))
    return np.asarray(flatten_outputs(outputs))
