"""The numbers of a comparison: every figure of every arm with its interval, and differences.

Figures are those of `evaluation.metrics`, per run; what stands for an arm is the mean over its
seeds with Student's t interval. A difference from the reference is that of the heads that all runs
of the two arms found, so that an arm which misses the hard ones does not look better for it. It has
two intervals: t over the differences seed by seed, and a bootstrap over images (or persons).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.ablation.measure import SETTINGS, Measured
from mtnet_jax.evaluation.comparison import group_of
from mtnet_jax.evaluation.figures import RECALL_POINTS, by_bins, pose_and_iou_figures
from mtnet_jax.evaluation.intervals import (
    ENOUGH_GROUPS,
    Interval,
    holm,
    paired_bootstrap,
    resampled_counts,
    resampled_interval,
    seed_interval,
    weighed,
)
from mtnet_jax.evaluation.metrics import YAW_BINS, summarise

Rows = np.ndarray  # of `evaluation.metrics.TRUTH_ROW`
FINE_YAW_BINS = tuple(range(0, 181, 15))  # of the plots
_AP_RESAMPLES = 400  # each sorts nothing, but goes through all predictions of all runs


class Figure(NamedTuple):
    """A figure that is reported.

    Attributes:
      key: in files.
      title: in tables.
      unit: "°" or "%".
      section: of `metrics.summarise` that holds it.
      of_row: rows of truths -> (n,) the figure of each head, NaN where it has none; None where the
        figure is not made of heads.
      by_yaw: whether it is reported by bins of |yaw|.
      median: of the heads, and not their mean.
    """

    key: str
    title: str
    unit: str
    section: str
    of_row: Callable[[Rows], np.ndarray] | None
    by_yaw: bool = True
    median: bool = False


def _geodesic(rows: Rows) -> np.ndarray:
    return rows["geodesic"]


FIGURES = (
    Figure("geodesic_mean", "geodesic", "°", "pose", _geodesic),
    Figure("geodesic_median", "median", "°", "pose", _geodesic, median=True),
    Figure("maev", "MAEV", "°", "pose", lambda rows: rows["vectors"].mean(axis=1)),
    Figure("mae", "MAE", "°", "pose", lambda rows: rows["euler"].mean(axis=1)),
    Figure("yaw", "yaw", "°", "pose", lambda rows: rows["euler"][:, 0]),
    Figure("pitch", "pitch", "°", "pose", lambda rows: rows["euler"][:, 1]),
    Figure("roll", "roll", "°", "pose", lambda rows: rows["euler"][:, 2]),
    Figure("ap50", "AP50", "%", "detection", None, by_yaw=False),
    Figure("ap50_95", "AP50:95", "%", "detection", None, by_yaw=False),
    Figure(
        "mean_iou_matched",
        "IoU",
        "%",
        "detection",
        lambda rows: np.where(rows["matched"], rows["iou"], np.nan),
    ),
    Figure("mean_iou_all", "IoU of all", "%", "detection", lambda rows: rows["iou"]),
    Figure("recall", "found", "%", "detection", lambda rows: rows["matched"].astype(float)),
)
BY_KEY = {figure.key: figure for figure in FIGURES}


def compare(
    runs: Mapping[str, Mapping[int, Mapping[str, Measured]]],
    reference: str,
    groups: Mapping[str, str],
) -> dict[str, Any]:
    """All numbers of a comparison.

    Args:
      runs: arm -> seed -> test set -> what was measured; runs that are not done are left out.
      reference: arm that the others are compared with.
      groups: test set -> regular expression, see `evaluation.comparison.group_of`.

    Returns:
      Test set -> {"images", "groups", "arms": arm -> {"overall", "yaw_bins", "fine_yaw_bins"},
      "common": {"heads", "runs", "arms": arm -> {"overall", "yaw_bins"}}, "differences": arm ->
      {"overall", "yaw_bins"}}, ready for JSON. In "arms" each figure has `Interval` and the values
      of the seeds, of the heads that each run found by itself; in "common" so have the errors of
      the heads that all runs of all arms found. In "differences" there is one interval "over_seeds"
      and one "over_groups", None for a figure that is no mean over heads, "seeds" that both arms
      have, "heads" that it is of, None for a figure that is not made of heads, and "p": the larger
      one of the two intervals, by `holm` over the arms; None where one of them has no limits.
    """
    found = {}
    for name, pattern in groups.items():
        measured = {
            arm: {seed: sets[name] for seed, sets in seeds.items() if name in sets}
            for arm, seeds in runs.items()
        }
        measured = {arm: seeds for arm, seeds in measured.items() if seeds}
        if not measured:
            continue
        some = next(iter(next(iter(measured.values())).values()))
        group_of_image = np.array([group_of(str(n), pattern) for n in some.image_ids])
        arms = {arm: _arm(seeds) for arm, seeds in measured.items()}
        found[name] = {
            "images": len(some.image_ids),
            "groups": len(np.unique(group_of_image)),
            "arms": arms,
            "common": _common(measured),
            "differences": _corrected(
                {
                    arm: _difference(
                        measured[arm],
                        measured[reference],
                        _values_of(arms[arm]),
                        _values_of(arms[reference]),
                        group_of_image,
                    )
                    for arm in measured
                    if arm != reference and reference in measured
                }
            ),
        }
    return found


def _arm(seeds: Mapping[int, Measured]) -> dict[str, Any]:
    """The figures of an arm over all heads and by |yaw|."""
    summaries = {seed: summarise(m.state, SETTINGS) for seed, m in seeds.items()}
    overall = {
        figure.key: _over_seeds(
            {seed: summary[figure.section][figure.key] for seed, summary in summaries.items()}
        )
        for figure in FIGURES
    }
    return {
        "overall": overall,
        "yaw_bins": list(_by_yaw(seeds, YAW_BINS)),
        "fine_yaw_bins": list(_by_yaw(seeds, FINE_YAW_BINS)),
    }


def _by_yaw(seeds: Mapping[int, Measured], limits: Sequence[int]) -> Iterator[dict[str, Any]]:
    bins = {
        seed: by_bins(m.state.rows, np.abs(m.state.rows["yaw"]), limits, pose_and_iou_figures)
        for seed, m in seeds.items()
    }
    for number, (low, high) in enumerate(pairwise(limits)):
        here = {seed: each[number] for seed, each in bins.items()}
        figures = {
            figure.key: _over_seeds({seed: each[figure.key] for seed, each in here.items()})
            for figure in FIGURES
            if figure.by_yaw
        }
        truths = next(iter(here.values()))["truths"]
        yield {"low": low, "high": high, "truths": truths, **figures}


COMMON = tuple(f for f in FIGURES if f.section == "pose" or f.key == "mean_iou_matched")


def _common(measured: Mapping[str, Mapping[int, Measured]]) -> dict[str, Any]:
    """Errors of the heads of which all runs of all arms have one, so that arms can be compared."""
    runs = [each for seeds in measured.values() for each in seeds.values()]
    kept = np.isfinite(_of_heads(runs, _geodesic)).all(axis=0)
    arms = {}
    for arm, seeds in measured.items():
        on_these = {
            seed: m._replace(state=m.state._replace(rows=m.state.rows[kept]))
            for seed, m in seeds.items()
        }
        summaries = {s: pose_and_iou_figures(m.state.rows) for s, m in on_these.items()}
        arms[arm] = {
            "overall": {
                f.key: _over_seeds({seed: each[f.key] for seed, each in summaries.items()})
                for f in COMMON
            },
            "yaw_bins": list(_by_yaw(on_these, YAW_BINS)),
        }
    return {"heads": int(kept.sum()), "runs": len(runs), "arms": arms}


def _corrected(differences: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same, each with its "p": of a figure, overall or in a bin, over the arms."""
    places: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for of_arm in differences.values():
        for number, figures in enumerate((of_arm["overall"], *of_arm["yaw_bins"])):
            for figure in BY_KEY.keys() & figures.keys():
                places.setdefault((number, figure), []).append(figures[figure])
    for family in places.values():
        for difference, p in zip(family, holm([_larger_p(d) for d in family]), strict=True):
            difference["p"] = p
    return differences


def _larger_p(difference: Mapping[str, Any]) -> float | None:
    """Of a difference that must be beyond both of its intervals, where there are two."""
    intervals = [i for i in (difference["over_seeds"], difference["over_groups"]) if i is not None]
    values = [interval["p"] for interval in intervals]
    return None if None in values else max(values)


def _over_seeds(values: Mapping[int, float | None]) -> dict[str, Any]:
    interval = seed_interval(list(values.values()))
    return {**interval._asdict(), "by_seed": {str(seed): v for seed, v in values.items()}}


# --- Differences ----------------------------------------------------------------------------------


def _difference(
    arm: Mapping[int, Measured],
    reference: Mapping[int, Measured],
    arm_values: Mapping[tuple[str, int], Mapping[str, Any]],
    reference_values: Mapping[tuple[str, int], Mapping[str, Any]],
    group_of_image: np.ndarray,
) -> dict[str, Any]:
    """Arm minus reference, overall and by |yaw|, of the seeds that both have."""
    shared = sorted(set(arm) & set(reference))
    ours, theirs = [arm[seed] for seed in shared], [reference[seed] for seed in shared]

    def both(figure: Figure, place: tuple[str, int], inside: np.ndarray) -> dict[str, Any]:
        over_groups = heads = None
        if figure.of_row is not None:
            each, other = _of_heads(ours, figure.of_row), _of_heads(theirs, figure.of_row)
            kept = inside & np.isfinite(each - other).all(axis=0)
            each, other, heads = each[:, kept], other[:, kept], int(kept.sum())
            of_heads = np.median if figure.median else np.mean
            pairs = [
                float(of_heads(a) - of_heads(b)) if heads else None
                for a, b in zip(each, other, strict=True)
            ]
            if not figure.median:
                groups = group_of_image[ours[0].image_of_row][kept]
                over_groups = paired_bootstrap((each - other).mean(axis=0), groups)._asdict()
        else:
            values = zip(
                *(_of_seeds(v[place][figure.key], shared) for v in (arm_values, reference_values)),
                strict=True,
            )
            pairs = [None if a is None or b is None else a - b for a, b in values]
            if figure.key == "ap50":
                over_groups = _ap_difference(ours, theirs, group_of_image)._asdict()
        over_seeds = seed_interval(pairs)._asdict()
        return {
            "over_seeds": over_seeds,
            "over_groups": over_groups,
            "seeds": len(shared),
            "heads": heads,
        }

    if not shared:
        return {"overall": {}, "yaw_bins": []}
    absolute = np.abs(ours[0].state.rows["yaw"])
    everything = np.ones(len(absolute), bool)
    bins = []
    for number, (low, high) in enumerate(pairwise(YAW_BINS)):
        inside = (absolute >= low) & ((absolute < high) | (high == 180))
        figures = {f.key: both(f, ("yaw_bins", number), inside) for f in FIGURES if f.by_yaw}
        bins.append({"low": low, "high": high, **figures})
    overall = {figure.key: both(figure, ("overall", 0), everything) for figure in FIGURES}
    return {"overall": overall, "yaw_bins": bins}


def _values_of(arm: Mapping[str, Any]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """("overall", 0) and ("yaw_bins", number of the bin) -> figures there."""
    bins = {("yaw_bins", number): each for number, each in enumerate(arm["yaw_bins"])}
    return {("overall", 0): arm["overall"], **bins}


def _of_seeds(figure: Mapping[str, Any], seeds: Sequence[int]) -> list[float | None]:
    return [figure["by_seed"][str(seed)] for seed in seeds]


def _of_heads(runs: Sequence[Measured], of_row: Callable[[Rows], np.ndarray]) -> np.ndarray:
    """(runs, heads) the figure of each head; NaN where a run has none."""
    return np.array([of_row(run.state.rows) for run in runs])


def _ap_difference(
    ours: Sequence[Measured], theirs: Sequence[Measured], group_of_image: np.ndarray
) -> Interval:
    """Difference of AP50, averaged over seeds, with a bootstrap over groups."""
    names, group = np.unique(group_of_image, return_inverse=True)
    once = np.ones((1, len(names)))
    value = float(_mean_ap(ours, once, group)[0] - _mean_ap(theirs, once, group)[0])
    if len(names) < ENOUGH_GROUPS:
        return Interval(value, None, None, len(names))
    counts = resampled_counts(len(names), _AP_RESAMPLES)
    apart = _mean_ap(ours, counts, group) - _mean_ap(theirs, counts, group)
    return resampled_interval(value, apart, len(names))


def _mean_ap(runs: Sequence[Measured], counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    return np.mean([average_precision(run, counts, group) for run in runs], axis=0)


def average_precision(run: Measured, counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """AP50 with groups of images drawn more than once or not at all.

    As `metrics.summarise` has it of the images drawn: the mean over the classes that have truths
    among them, with predictions of equal score entering together. 0 where no truth is drawn.

    Args:
      run: what was measured.
      counts: (resamples, groups) how often each group is drawn.
      group: (images,) of each image.

    Returns:
      (resamples,) average precisions by 101 points of recall, as `figures.interpolated_precision`.
    """
    total, classes = np.zeros(len(counts)), np.zeros(len(counts))
    for label in np.unique(run.state.rows["label"]):
        of_class = run.image_of_row[run.state.rows["label"] == label]
        truths = weighed(counts, np.bincount(group[of_class], minlength=counts.shape[1]))
        total += np.where(truths > 0, _precision_of_class(run, label, counts, group, truths), 0)
        classes += truths > 0
    return total / np.maximum(classes, 1)


def _precision_of_class(
    run: Measured, label: int, counts: np.ndarray, group: np.ndarray, truths: np.ndarray
) -> np.ndarray:
    """(resamples,) AP50 of a class that has so many truths in each resample."""
    outcome = run.state.outcomes[:, 0]
    kept = np.flatnonzero((outcome >= 0) & (run.state.labels == label))
    order = kept[np.argsort(-run.state.scores[kept], kind="stable")]
    true, of_prediction = outcome[order] > 0, group[run.image_of_prediction[order]]
    scores = run.state.scores[order]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of each group of ties
    values = []
    for drawn, of_drawn in zip(counts, truths, strict=True):
        weights = drawn[of_prediction].astype(np.int64)
        hits = np.cumsum(weights * true)
        precision = (hits / np.maximum(np.cumsum(weights), 1e-12))[last]
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        recall = hits[last] / max(float(of_drawn), 1.0)
        values.append(envelope[np.searchsorted(recall, RECALL_POINTS, side="left")].mean())
    return np.array(values)
