"""The bare network as a SavedModel: images (batch, size, size, 3) uint8 -> raw predictions.

TensorFlow is needed to write it, and to run it; it lives in an environment of its own. The file
holds what XLA compiles, for cpu, cuda and tpu, with the arrays as variables.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mtnet_jax.anchors import flatten_outputs
from mtnet_jax.export.graph import require
from mtnet_jax.export.metadata import INPUT, OUTPUT, describe
from mtnet_jax.export.stablehlo import PLATFORMS, PRECISION
from mtnet_jax.network import normalise_images
from mtnet_jax.network.folding import apply_folded, fold
from mtnet_jax.system import build_system
from mtnet_jax.weights import prediction_config


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes the folder; its signature is `serving_default`, images -> predictions (batch, N, C).

    What it is made of stands in the variable `metadata` of the loaded object, as JSON.
    """
    tf = require("tensorflow", "tensorflow")
    from jax.experimental import jax2tf

    size = config.input.size
    arrays, network = network_of_arrays(config, variables)
    converted = jax2tf.convert(
        network,
        polymorphic_shapes=[None, f"(batch, {size}, {size}, 3)"],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    module = tf.Module()
    module.arrays = [tf.Variable(array) for array in arrays]
    module.metadata = tf.Variable(json.dumps(describe(prediction_config(config), **stated)))
    module.network = tf.function(
        lambda images: {OUTPUT: converted(module.arrays, images)},
        autograph=False,
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name=INPUT)],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.network})


def network_of_arrays(
    config: ConfigDict, variables: dict[str, Any]
) -> tuple[list[Any], Callable[[Sequence[Any], jax.Array], jax.Array]]:
    """The arrays of the network, BatchNorm folded, and (arrays, images) -> raw predictions."""
    model = build_system(config).model.clone(dtype=jnp.float32, remat="none")
    folded = jax.device_get(jax.jit(partial(fold, model))(variables))
    arrays, structure = jax.tree.flatten(folded)

    def network(arrays: Sequence[Any], images: jax.Array) -> jax.Array:
        weights = jax.tree.unflatten(structure, arrays)
        with jax.default_matmul_precision(PRECISION):
            return flatten_outputs(apply_folded(model, weights, normalise_images(images)))

    return arrays, network
