"""What a run has measured: the lines of its `metrics.jsonl`, and which checkpoint they call best.

The best one, by a metric that is named (`config.best_metric`, such as "pointing04/mae"), follows
from the log alone: each evaluation says its step. So it is the same after any number of
interruptions, and needs no file of its own.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtnet_jax.errors import NOT_JSON, BadInput

METRICS = "metrics.jsonl"
RESUME = "resume"  # the kind of a line that says from which step training goes on
ON = "on"  # of an evaluation's line: the split, the images, and how heads were decoded
LAST, BEST = "last", "best"  # which checkpoint is asked for
Step = int | str  # number of a step, `LAST` or `BEST`

HIGHER_IS_BETTER = ("ap50", "recall", "mean_iou_matched")
LOWER_IS_BETTER = ("mae", "geodesic_mean", "geodesic_median", "heading_mean", "heading_beyond_90")


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, each step once; lines that a crash cut short are left out."""
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except NOT_JSON:
            continue
        if line["kind"] == RESUME:
            lines = [earlier for earlier in lines if earlier["step"] <= line["step"]]
        else:
            lines.append(line)
    return lines


def check_metric(name: str, sets: Iterable[str]) -> None:
    """Raises BadInput where `config.best_metric` is no number of an evaluation in training."""
    if not name:
        return
    of, _, metric = name.rpartition("/")
    if of not in sets or metric not in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER):
        raise BadInput(
            f"config.best_metric is {name!r}: a set that is evaluated ({', '.join(sorted(sets))}), "
            f"/ and one of {', '.join((*HIGHER_IS_BETTER, *LOWER_IS_BETTER))}."
        )


def best_step(lines: Iterable[Mapping[str, Any]], name: str, steps: Iterable[int]) -> int | None:
    """The step with the best value of a metric; the earliest of equals, None where none has one.

    Lines that say what was measured (`ON`), and not the same as the last one, do not count.

    Args:
      lines: of `metrics.jsonl`, see `read_metrics`.
      name: SET/METRIC.
      steps: that have a checkpoint.
    """
    of, _, metric = name.rpartition("/")
    sign = 1 if metric in HIGHER_IS_BETTER else -1
    there = set(steps)
    of_set = [line for line in lines if line["kind"] == f"eval/{of}"]
    # A run may go on with another split or other images: their numbers are no match for each other.
    now = of_set[-1].get(ON) if of_set else None
    alike = [line for line in of_set if line.get(ON, now) == now]
    values = [
        (sign * line[metric], -line["step"])
        for line in alike
        if line.get(metric) is not None and line["step"] in there
    ]
    return -max(values)[1] if values else None
