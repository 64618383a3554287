"""Weights as an orbax checkpoint of the model alone, which any JAX program restores."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.checkpoints import save_exported
from mtnet_jax.export.metadata import describe
from mtnet_jax.weights import prediction_config


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes the checkpointable `model`, {"params", "batch_stats"}, and metadata."""
    save_exported(path, variables, describe(prediction_config(config), **stated))
