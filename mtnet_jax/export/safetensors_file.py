"""Weights as one safetensors file: plain arrays, with the configuration in its metadata."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.export.metadata import describe
from mtnet_jax.weights import flat_arrays, prediction_config


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes {"params", "batch_stats"} under their paths joined by "/"."""
    from safetensors.numpy import save

    # Its own `save_file` makes a file that nobody but its owner may read.
    path.write_bytes(save(flat_arrays(variables), describe(prediction_config(config), **stated)))
