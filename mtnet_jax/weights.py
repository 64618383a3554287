"""Weights for use: of a work directory, or exported to a folder that holds nothing else.

An exported folder has `config.json` and `weights.npz`: the arrays of {"params", "batch_stats"} under
their paths joined by "/", readable with NumPy alone. Half precision halves the file; computing stays in
float32.
"""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mtnet_jax.config import abstract_variables, build_system
from mtnet_jax.training.checkpoints import (
    CONFIG,
    load_model,
    read_config,
    with_sharding,
    write_config,
)

WEIGHTS = "weights.npz"


def load_weights(folder: str | os.PathLike) -> tuple[ConfigDict, dict[str, Any]]:
    """Configuration and {"params", "batch_stats"} of a work directory or an exported folder.

    Raises:
      FileNotFoundError: no configuration or no weights there.
      ValueError: exported weights that do not fit their configuration, by name.
    """
    config = read_config(folder)
    if config is None:
        raise FileNotFoundError(
            f"{Path(folder) / CONFIG} does not exist: give the work directory of `mtnet train` or a "
            "folder of `mtnet export`."
        )
    abstract = abstract_variables(build_system(config))
    exported = Path(folder) / WEIGHTS
    if exported.exists():
        return config, _read_npz(exported, abstract)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return config, load_model(folder, with_sharding(abstract, sharding))


def export_weights(workdir: str | os.PathLike, out: str | os.PathLike, *, half: bool) -> Path:
    """Writes the latest checkpoint of a work directory as an exported folder.

    Args:
      workdir: of `mtnet train`.
      out: folder to write; made where it does not exist.
      half: store float16.

    Returns:
      The weights file.
    """
    config, variables = load_weights(workdir)
    write_config(out, config)
    kind = np.float16 if half else np.float32
    arrays = {
        name: np.asarray(value, kind) for name, value in flatten_dict(variables, sep="/").items()
    }
    path = Path(out) / WEIGHTS
    partial = path.with_name("partial-" + WEIGHTS)
    np.savez_compressed(partial, **arrays)
    partial.replace(path)
    return path


def _read_npz(path: Path, abstract: dict[str, Any]) -> dict[str, Any]:
    expected = flatten_dict(abstract, sep="/")
    with np.load(path) as stored:
        found = {name: stored[name] for name in stored.files}
    for name in sorted(expected.keys() ^ found.keys()):
        where = "lacks" if name in expected else "has an unexpected"
        raise ValueError(f"{path} {where} {name}: it belongs to another configuration.")
    for name, leaf in expected.items():
        if found[name].shape != leaf.shape:
            raise ValueError(f"{path}: {name} has shape {found[name].shape}, not {leaf.shape}.")
    return unflatten_dict(
        {name: jax.numpy.asarray(value, np.float32) for name, value in found.items()}, sep="/"
    )
