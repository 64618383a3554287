"""Values of options that no run can take, said by name before anything is begun."""

import math
from fnmatch import fnmatch
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.config import defaults_like, flatten
from mtnet_jax.errors import BadInput

# Type of an option's default -> the types that a value may have, and the same in words.
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    tuple: ((tuple, list), "a tuple"),
}
# Options that are off without a value too.
_NONE_IS_OFF = "clip_norm ema_decay best_metric init.* data.*.train_split data.*.eval_split"

# Names (or patterns of names) of options, what their values must be, and the same in words.
_RANGES = (
    (
        "log_every_steps save_every_steps keep_checkpoints loader_threads input.max_heads "
        "decode.max_heads decode.candidates phases.*.batch_size phases.*.accumulate "
        "eval_batch_size mesh.fsdp",
        lambda value: value >= 1,
        "must be at least 1",
    ),
    (
        "seed loader_processes eval_every_epochs eval_images clip_norm data.*.weight "
        "pose_loss.orthogonality phases.*.epochs phases.*.warmup_steps phases.*.rate_batch "
        "phases.*.loss.* phases.*.weight_decay mesh.shard_above peak_tflops",
        lambda value: value >= 0,
        "must not be negative",
    ),
    (
        "model.width model.depth phases.*.learning_rate",
        lambda value: value > 0,
        "must be above 0",
    ),
    (
        "decode.iou_threshold phases.*.loss.alpha",
        lambda value: 0 <= value <= 1,
        "must be from 0 to 1",
    ),
    ("seed", lambda value: value < 2**63, "must be below 2 to the power of 63"),
    ("ema_decay phases.*.b2", lambda value: 0 <= value < 1, "must be at least 0 and below 1"),
)


def check_values(config: ConfigDict) -> None:
    """Raises BadInput, by name, for a value that no run can take; see also `build_system`."""
    options = flatten(config.to_dict())
    _check_kinds(options, flatten(defaults_like(config).to_dict()))
    numbers = {n: v for n, v in options.items() if _is_number(v)}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise BadInput(f"config.{name} is {value}: it must be a finite number.")
    for patterns, good, words in _RANGES:
        for name, value in numbers.items():
            if _is_one_of(name, patterns) and not good(value):
                raise BadInput(f"config.{name} is {value:g}: it {words}.")
    names = tuple(config.class_names)
    if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
        raise BadInput(
            f"config.class_names is {names}: it must be one name or more, none of them twice."
        )
    if config.phases and all(phase.epochs == 0 for phase in config.phases.values()):
        raise BadInput("Nothing to train: every phase of config.phases has 0 epochs.")


def _check_kinds(options: dict[str, Any], usual: dict[str, Any]) -> None:
    """Raises BadInput for a value of another kind than the default of its option."""
    for name in options.keys() & usual.keys():
        value, (kinds, words) = options[name], _KINDS[type(usual[name])]
        if value is None and _is_one_of(name, _NONE_IS_OFF):
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadInput(f"config.{name} is {value!r}: it must be {words}.")


def _is_one_of(name: str, patterns: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns.split())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
