"""The bare network for TensorFlow Lite: one image (1, size, size, 3) uint8 -> raw predictions.

TensorFlow is needed to write it; whatever runs .tflite files runs it, by its own operators alone.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.export.graph import require
from mtnet_jax.export.metadata import INPUT
from mtnet_jax.export.saved_model import network_of_arrays


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes the file; what it is made of is said beside it: the format has no place for it."""
    del stated
    tf = require("tensorflow", "tensorflow")
    from jax.experimental import jax2tf

    size = config.input.size
    arrays, network = network_of_arrays(config, variables)
    fixed = tf.function(
        # Other than of a SavedModel, the operators must be TensorFlow's, which its converter knows.
        jax2tf.convert(lambda images: network(arrays, images), with_gradient=False),
        autograph=False,
        input_signature=[tf.TensorSpec([1, size, size, 3], tf.uint8, name=INPUT)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [fixed.get_concrete_function()], tf.Module()
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path.write_bytes(converter.convert())
