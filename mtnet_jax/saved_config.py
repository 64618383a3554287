"""The configuration of weights: `config.json` beside them, or in the metadata of one file."""

import json
import math
import os
from collections.abc import Callable, Mapping
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
SECTIONS = (
    "class_names",
    "decode",
    "frame",
    "input",
    "model",
    "pose_loss",
)  # that predicting needs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_list(value: Any, count: int, holds: Callable[[Any], bool]) -> bool:
    """Whether it is a list of at least so many values of a kind."""
    return isinstance(value, list | tuple) and len(value) >= count and all(map(holds, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_anchor(value: Any) -> bool:
    return _is_list(value, 2, lambda side: _is_number(side) and side > 0) and len(value) == 2


# What predicting needs: option -> what it must be, in words and as a function. Which names there
# are of a kind of network is said by what builds it.
_Kind = tuple[str, Callable[[Any], bool]]
_NAME: _Kind = ("a name", _is_name)
_COUNT: _Kind = ("a whole number from 1", _is_whole)
_POSITIVE: _Kind = ("a number above 0", lambda value: _is_number(value) and value > 0)
_NEEDED: dict[str, _Kind] = {
    "class_names": ("a list of names", lambda value: _is_list(value, 1, _is_name)),
    "decode.iou_threshold": (
        "a number from 0 to 1",
        lambda value: _is_number(value) and 0 <= value <= 1,
    ),
    "decode.max_heads": _COUNT,
    "decode.candidates": _COUNT,
    "frame": ("'camera' or 'ray'", lambda value: value in ("camera", "ray")),
    "input.size": (
        "a multiple of 32 pixels",
        lambda value: _is_whole(value) and value % 32 == 0,
    ),
    "input.anchors": (
        "nine pairs of numbers above 0",
        lambda value: _is_list(value, 9, _is_anchor) and len(value) == 9,
    ),
    "model.version": _NAME,
    "model.representation": _NAME,
    "model.width": _POSITIVE,
    "model.depth": _POSITIVE,
    "model.box_activation": _NAME,
    "model.pose_activation": _NAME,
    "model.aggregate": _NAME,
    "model.dtype": _NAME,
    "pose_loss.vectors": _NAME,
    "pose_loss.orthogonality": ("a number", _is_number),
}
_ADDED: dict[str, _Kind] = {  # which older configurations do without
    "decode.vote": ("true or false", lambda value: isinstance(value, bool)),
    "input.second_look": ("true or false", lambda value: isinstance(value, bool)),
    "model.pose_width": ("a number from 0", lambda value: _is_number(value) and value >= 0),
    "model.pose_blocks": ("a whole number from 0", lambda value: _is_whole(value, 0)),
}


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
    return for_prediction(_parsed(metadata[CONFIG_KEY], source), source)


def for_prediction(config: ConfigDict, source: str | os.PathLike) -> ConfigDict:
    """A saved configuration, checked for what predicting needs of it.

    Raises:
      BadInput: an option that is missing or cannot be, by name.
    """
    if "frame" not in config:
        config.frame = "camera"  # written before there was a choice
    options = config.to_dict()
    for name, (wanted, holds) in {**_NEEDED, **_ADDED}.items():
        value = _option(options, name)
        if value is None and name in _ADDED:
            continue
        if value is None:
            raise BadInput(
                f"{source} has no {name!r}: it was not written by `mtnet train`, or was changed."
            )
        if not holds(value):
            raise BadInput(f"{source}: {name} is {value!r}, not {wanted}.")
    for name in sorted(f"decode.{key}" for key in options["decode"]):
        if name not in {**_NEEDED, **_ADDED}:
            raise BadInput(f"{source}: there is no option {name}: remove it.")
    return config


def _option(options: Any, name: str) -> Any:
    """The value of an option, None where it or its section is missing."""
    for part in name.split("."):
        options = options.get(part) if isinstance(options, dict) else None
    return options


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
