"""What differs between two configurations of a run: what is learned, and how it runs."""

import json
from fnmatch import fnmatch
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.config import default_config, flatten, phase, record_set

_NO_DEFAULT = object()
_HOW_IT_RUNS = (
    *("loader_threads", "loader_processes", "model.remat", "keep_checkpoints", "mix_box_rules"),
    *("log_every_steps", "save_every_steps", "eval_every_epochs", "eval_images"),
    *("data.*.path", "data.*.eval_split", "decode.*", "input.second_look"),
    *("eval_batch_size", "mesh.*", "best_metric", "peak_tflops"),
)


def differences(found: ConfigDict, config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The options in which two configurations differ.

    Args:
      found: as it was saved. An option that it lacks, being older, has its default.
      config: complete.

    Returns:
      Dotted name -> value in `found`, value in `config`; None where there is none.
    """
    old, new = flatten(json.loads(found.to_json())), flatten(json.loads(config.to_json()))
    for name in new.keys() - old.keys():
        default = _defaults(name)
        if default is not _NO_DEFAULT:
            old[name] = default
    names = sorted(old.keys() | new.keys())
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n, ()) != new.get(n, ())}


def how_it_runs(name: str) -> bool:
    """Whether an option says how a run goes, and nothing of what is learned."""
    return any(fnmatch(name, pattern) for pattern in _HOW_IT_RUNS)


def _defaults(name: str) -> Any:
    """The default of an option; those of a record set or a phase are those of any."""
    section, _, rest = name.partition(".")
    if section == "data":
        tree, name = record_set(""), rest.partition(".")[2]
    elif section == "phases":
        tree = phase((), epochs=0, batch_size=0, learning_rate=0)
        name = rest.partition(".")[2]
    else:
        tree = default_config()
    return flatten(json.loads(tree.to_json())).get(name, _NO_DEFAULT)
