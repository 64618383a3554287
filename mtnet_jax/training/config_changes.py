"""What differs between two configurations of a run: what is learned, and how it runs."""

import json
from fnmatch import fnmatch
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.config import defaults_like, flatten

_HOW_IT_RUNS = (
    *("loader_threads", "loader_processes", "model.remat", "keep_checkpoints", "mix_box_rules"),
    *("log_every_steps", "save_every_steps", "eval_every_epochs", "eval_images"),
    *("data.*.path", "data.*.eval_split", "decode.*", "input.second_look"),
    *("eval_batch_size", "mesh.*", "best_metric", "peak_tflops"),
)


def differences(found: ConfigDict, config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The options in which two configurations differ.

    Args:
      found: as it was saved. An option that it lacks, being older, has its default; a record set
        or a phase that it lacks has none.
      config: complete.

    Returns:
      Dotted name -> value in `found`, value in `config`; None where there is none.
    """
    old, new, usual = (
        flatten(json.loads(each.to_json())) for each in (found, config, defaults_like(found))
    )
    old |= {name: usual[name] for name in (new.keys() - old.keys()) & usual.keys()}
    names = sorted(old.keys() | new.keys())
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n, ()) != new.get(n, ())}


def how_it_runs(name: str) -> bool:
    """Whether an option says how a run goes, and nothing of what is learned."""
    return any(fnmatch(name, pattern) for pattern in _HOW_IT_RUNS)
