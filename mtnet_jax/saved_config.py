"""The configuration of weights: `config.json` beside them, or in the metadata of one file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.errors import NOT_JSON, BadInput
from mtnet_jax.places import write_whole

CONFIG = "config.json"
WEIGHTS = "weights.npz"  # of an exported folder
# Options as older versions wrote them; after a dot those of a section.
_OLD_NAMES = {"eval_pictures": "eval_images", "input.far_look": "input.second_look"}
CONFIG_KEY = "mtnet_config"  # of the metadata of exported files: the configuration as JSON


def write_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Writes the configuration of a run, whole or not at all."""
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, config_text(config).encode())


def config_text(config: ConfigDict) -> str:
    """The content of the file."""
    return config.to_json(indent=2) + "\n"


def read_config(workdir: str | os.PathLike) -> ConfigDict | None:
    """The configuration of a run, None where there is none."""
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    return _parsed(path.read_text(errors="replace"), path)


def config_of(metadata: Mapping[str, Any] | None, source: str | os.PathLike) -> ConfigDict:
    """The configuration in the metadata of an exported file.

    Raises:
      ValueError: there is none; the message names the source.
    """
    if metadata is None or CONFIG_KEY not in metadata:
        raise BadInput(f"{source} was not written by `mtnet export`: it lacks {CONFIG_KEY!r}.")
    return _parsed(metadata[CONFIG_KEY], source)


def _parsed(text: str, source: str | os.PathLike) -> ConfigDict:
    """A saved configuration, its options by the names of today."""
    try:
        options = json.loads(text)
    except NOT_JSON as error:
        raise BadInput(f"{source} is not valid JSON: {error}") from error
    if not isinstance(options, dict):
        raise BadInput(f"{source} is no configuration: it holds no options by name.")
    return ConfigDict(_by_todays_names(options))


def _by_todays_names(options: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    named = {}
    for name, value in options.items():
        name = _OLD_NAMES.get(section + name, section + name).removeprefix(section)
        named[name] = value
        if isinstance(value, dict):
            named[name] = _by_todays_names(value, f"{section}{name}.")
    return named
