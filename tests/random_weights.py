"""A tiny network with random weights, written as `mtnet export` would; nothing is compiled."""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from mtnet_jax.config import abstract_variables, build_system, default_config
from mtnet_jax.training.checkpoints import write_config

SCORE = 0.1  # threshold at which these weights find heads in any picture


def write_random_weights(folder: Path) -> None:
    """Eight channels a layer, 64 pixels, at most six heads a picture."""
    config = default_config()
    config.model.width, config.model.depth = 0.01, 0.01
    config.input.size = 64
    config.decode.max_heads = 6
    rng = np.random.default_rng(1)
    arrays = {}
    for name, leaf in flatten_dict(abstract_variables(build_system(config)), sep="/").items():
        centre = 1.0 if name.endswith(("/var", "/scale")) else 0.0
        spread = 0.0 if name.startswith("batch_stats/") else 0.2
        arrays[name] = rng.normal(centre, spread, leaf.shape).astype(np.float32)
    write_config(folder, config)
    np.savez(folder / "weights.npz", **arrays)
