"""Several weights, or programs, on the same record sets: one table, and how sure a difference is.

Weights that skip hard heads have low errors, so two are compared on the heads that both found. The
interval of a difference is a paired bootstrap over images, or over groups of images (persons,
sequences), of the mean over heads (`evaluation.intervals`).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.columns import align
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.intervals import LEVEL, Interval, paired_bootstrap
from mtnet_jax.evaluation.run import Evaluation
from mtnet_jax.evaluation.summary import COLUMNS
from mtnet_jax.evaluation.tables import cell

Evaluations = Mapping[str, Mapping[str, Evaluation]]  # set -> weights -> what became of them


class Measure(NamedTuple):
    """What is compared head by head.

    Attributes:
      key, title, unit: its name in JSON and in tables, and "°" or "%".
      of: rows of heads -> their values, NaN where there is none.
      less_is_better: as an error is.
    """

    key: str
    title: str
    unit: str
    of: Callable[[np.ndarray], np.ndarray]
    less_is_better: bool


MEASURES = (
    Measure("geodesic", "geodesic error", "°", lambda rows: rows["geodesic"], True),
    Measure("heading", "heading error", "°", lambda rows: rows["heading_error"], True),
    Measure("recall", "recall", "%", lambda rows: rows["matched"].astype(np.float64), False),
    Measure("iou", "IoU, missed = 0", "%", lambda rows: rows["iou"], False),
)


class Difference(NamedTuple):
    """Weights against others by one measure, on the heads of which both have a value.

    Attributes:
      measure: one of `MEASURES`.
      heads: how many these are.
      mine, theirs: means over them; None without heads.
      interval: of mine minus theirs.
    """

    measure: Measure
    heads: int
    mine: float | None
    theirs: float | None
    interval: Interval


Differences = dict[str, dict[str, list[Difference]]]


def compare(evaluations: Evaluations, group: str = "") -> Differences:
    """Set -> weights but the first -> how they differ from the first; see `differences_of`."""
    found: Differences = {}
    for name, by_weights in evaluations.items():
        (_, reference), *others = by_weights.items()
        found[name] = {w: differences_of(each, reference, group) for w, each in others}
    return found


def differences_of(mine: Evaluation, theirs: Evaluation, group: str = "") -> list[Difference]:
    """How weights differ from others on the same records, by each of `MEASURES`.

    Args:
      mine, theirs: evaluations of the same images. Images that a protocol skipped for either are
        left out.
      group: regular expression; images in whose name it finds the same are drawn together. Empty:
        each image stands for itself.

    Raises:
      BadInput: they are of other images, or `group` is not found in a name.
    """
    if mine.image_ids != theirs.image_ids:
        raise BadInput("These evaluations are of different images: compare them on one record set.")
    both = [
        (name, a, b)
        for name, a, b in zip(mine.image_ids, mine.rows, theirs.rows, strict=True)
        if len(a) == len(b) > 0
    ]
    if not both:
        return []
    names, my_rows, their_rows = zip(*both, strict=True)
    groups = np.repeat([group_of(name, group) for name in names], [len(rows) for rows in my_rows])
    first, second = np.concatenate(my_rows), np.concatenate(their_rows)
    return [_difference(measure, first, second, groups) for measure in MEASURES]


def _difference(
    measure: Measure, mine: np.ndarray, theirs: np.ndarray, groups: np.ndarray
) -> Difference:
    a, b = measure.of(mine), measure.of(theirs)
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return Difference(measure, 0, None, None, Interval(None, None, None, 0))
    interval = paired_bootstrap(a - b, groups)
    return Difference(
        measure, int(known.sum()), float(a[known].mean()), float(b[known].mean()), interval
    )


def group_of(name: str, pattern: str) -> str:
    """What an image stands or falls together with in a bootstrap: the first group that a regular
    expression finds in its name, or all that it finds; an empty one takes the image itself."""
    if not pattern:
        return name
    found = re.search(pattern, name)
    if found is None:
        raise BadInput(f"The group {pattern!r} finds nothing in the image name {name!r}.")
    return next((group for group in found.groups() if group is not None), found.group())


def format_comparison(evaluations: Evaluations) -> str:
    """The table of all weights on all sets: a line for each, the sets one under the other."""
    titles = [title for _, _, title, _ in COLUMNS]
    lines: list[list[str] | None] = [["set", "weights", *titles]]
    for name, by_weights in evaluations.items():
        lines.append(None)
        for number, (weights, evaluation) in enumerate(by_weights.items()):
            result = evaluation.results["network"]
            cells = [cell(result[section][key], unit) for section, key, _, unit in COLUMNS]
            lines.append(["" if number else name, weights, *cells])
    return align(lines)


def format_differences(differences: Differences, group: str = "") -> str:
    """The table of differences: all weights against the first.

    Args:
      differences: see `compare`.
      group: what stood or fell together, for the title.
    """
    what = f"images grouped by {group!r}" if group else "images"
    lines: list[list[str] | None] = [
        ["set, weights", "heads", "first", "here", "difference", f"{100 * LEVEL:.0f} % interval"]
    ]
    for name, by_weights in differences.items():
        for weights, found in by_weights.items():
            lines += [None, [f"{name}, {weights}", *[""] * 5]]
            lines += [[f"  {each.measure.title}", *_cells(each)] for each in found if each.heads]
    return (
        "Against the first weights; errors of poses on the heads that both found, recall and IoU "
        f"on all.\nPaired bootstrap over {what}; + better, - worse, beyond the interval.\n\n"
        f"{align(lines)}"
    )


def _cells(found: Difference) -> list[str]:
    unit, interval = found.measure.unit, found.interval
    limits = [_signed(value, unit) for value in (interval.low, interval.high)]
    shown, sign = "too few to say" if interval.low is None else " to ".join(limits), " "
    if interval.excludes_zero() and interval.value is not None:
        sign = "+" if (interval.value < 0) == found.measure.less_is_better else "-"
    return [
        cell(found.heads, ""),
        cell(found.theirs, unit),
        cell(found.mine, unit),
        _signed(interval.value, unit),
        f"{shown} {sign}",
    ]


def _signed(value: float | None, unit: str) -> str:
    text = cell(value, unit)
    return text if value is None or value < 0 else f"+{text}"


def as_json(evaluations: Evaluations, differences: Differences, group: str = "") -> str:
    """The results of `metrics.evaluate` and the differences, as strict JSON."""
    sets = {
        name: {
            "results": {w: each.results["network"] for w, each in by_weights.items()},
            "against": next(iter(by_weights)),
            "differences": {
                weights: {
                    each.measure.key: {
                        "heads": each.heads,
                        "first": each.theirs,
                        "here": each.mine,
                        "difference": each.interval._asdict(),
                    }
                    for each in found
                }
                for weights, found in differences[name].items()
            },
        }
        for name, by_weights in evaluations.items()
    }
    return json.dumps({"group": group, "sets": sets}, indent=1, allow_nan=False) + "\n"


def names_of(paths: Sequence[Any]) -> list[str]:
    """A short name for each of several weights: the last part of its path, all of it where needed.

    Raises:
      BadInput: one is named twice.
    """
    texts = [str(path) for path in paths]
    if len(set(texts)) < len(texts):
        raise BadInput(f"One of the weights is named twice: {', '.join(texts)}.")
    last = [path.stem if path.suffix in (".json", ".onnx") else path.name for path in paths]
    whole = [text.strip("/").replace("/", "_") for text in texts]
    both = zip(last, whole, strict=True)
    return [short if last.count(short) == 1 else long for short, long in both]
