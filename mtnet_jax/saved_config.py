"""`config.json`: the configuration that lies beside the weights of a run or an export."""

import json
import os
from pathlib import Path

from ml_collections import ConfigDict

CONFIG = "config.json"
WEIGHTS = "weights.npz"  # of an exported folder


def write_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Writes the configuration of a run, whole or not at all."""
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    partial.write_text(config_text(config))
    partial.replace(path)


def config_text(config: ConfigDict) -> str:
    """The content of the file."""
    return config.to_json(indent=2) + "\n"


def read_config(workdir: str | os.PathLike) -> ConfigDict | None:
    """The configuration of a run, None where there is none."""
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    return ConfigDict(json.loads(path.read_text()))
