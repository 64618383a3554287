"""Weights as one safetensors file: plain arrays, with the configuration in its metadata."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.export.metadata import describe
from mtnet_jax.weights import flat_arrays, prediction_config


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes {"params", "batch_stats"} under their paths joined by "/"."""
    from safetensors.numpy import save_file

    save_file(flat_arrays(variables), path, describe(prediction_config(config), **stated))
