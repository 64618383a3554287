"""The figures of evaluation: errors of rotations, and what is said of rows of truths.

Rows are those of `metrics.TRUTH_ROW`. Every number is defined in docs/evaluation.md.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mtnet_jax.rotations import angles_apart, rotation_to_euler

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
GEODESIC_POINTS = np.arange(181)


def interpolated_precision(
    scores: np.ndarray, outcomes: np.ndarray, truths: int
) -> np.ndarray | None:
    """Precision at the 101 recall points of COCO; its mean is the average precision.

    At recall r it is the highest precision reached at any recall >= r, and 0 beyond the highest
    recall. Predictions of equal score enter together, so that their order has no influence (COCO's
    tool takes them in the order of the images; the two agree where scores differ).

    Args:
      scores: (p,) scores of all predictions.
      outcomes: (p,) 1 true positive, 0 false positive, -1 left out.
      truths: number of truths that count.

    Returns:
      (101,) precisions, or None if there are no truths.
    """
    if truths == 0:
        return None
    kept = outcomes >= 0
    scores, outcomes = scores[kept], outcomes[kept]
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], np.cumsum(outcomes[order])
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of each group of ties
    precision = (true / np.arange(1, len(true) + 1))[last]
    recall = true[last] / truths
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return highest[np.searchsorted(recall, RECALL_POINTS, side="left")]


def euler_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Absolute differences of canonical Euler angles, wrapped (179 and -179 differ by 2).

    A rotation has two triples of angles. Upright ones have one with pitch and roll within 90
    degrees, which is taken. Of a truth that has none (a steep head that is tilted far, whose label
    may be either: image03283 of AFLW2000 has a pitch of -91), that one counts which is nearer to
    what is predicted.

    Args:
      predicted: (..., 3, 3) rotations.
      true: (..., 3, 3) rotations.

    Returns:
      (..., 3) degrees within 0..180, of yaw, pitch, roll.
    """
    found, angles = (rotation_to_euler(r, convention="canonical") for r in (predicted, true))
    errors: np.ndarray = angles_apart(found, angles)
    other: np.ndarray = angles_apart(found, angles * [-1, 1, 1] + 180)
    nearer = other.sum(axis=-1) < errors.sum(axis=-1)
    tilted = np.abs(angles[..., 2]) > 90  # pitch is within 90 degrees wherever roll is not
    return np.where((tilted & nearer)[..., None], other, errors)


def vector_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between the columns of rotations; their mean is the MAEV of a pose.

    Args:
      a: (..., 3, 3) rotations.
      b: (..., 3, 3) rotations.

    Returns:
      (..., 3) degrees within 0..180, of columns 0, 1, 2 (left, bottom, front in section 3.2).
    """
    sine = np.linalg.norm(np.cross(a, b, axis=-2), axis=-2)
    return np.rad2deg(np.arctan2(sine, (a * b).sum(axis=-2)))


def iou_figures(rows: np.ndarray) -> dict[str, Any]:
    return {
        "recall": ratio(int(rows["matched"].sum()), len(rows)),
        "mean_iou_matched": mean(rows["iou"][rows["matched"]]),
        "mean_iou_all": mean(rows["iou"]),
    }


def pose_figures(rows: np.ndarray) -> dict[str, Any]:
    """Pose errors in degrees over the matched truths with a pose, and how many these are."""
    evaluated = rows[np.isfinite(rows["geodesic"])]
    yaw, pitch, roll = (mean(evaluated["euler"][:, i]) for i in range(3))
    left, bottom, front = (mean(evaluated["vectors"][:, i]) for i in range(3))
    geodesic = evaluated["geodesic"]
    return {
        "evaluated": len(evaluated),
        "invalid_rotations": int(rows["invalid"].sum()),
        "coverage": ratio(len(evaluated), int(rows["has_pose"].sum())),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "mae": mean(evaluated["euler"]),
        "maev_left": left,
        "maev_bottom": bottom,
        "maev_front": front,
        "maev": mean(evaluated["vectors"]),
        "geodesic_mean": mean(geodesic),
        "geodesic_median": float(np.median(geodesic)) if len(geodesic) else None,
    }


def heading_figures(rows: np.ndarray) -> dict[str, Any]:
    """Errors of the heading in degrees, over matched truths with a pose or a heading."""
    errors = rows["heading_error"][np.isfinite(rows["heading_error"])]
    return {
        "evaluated": len(errors),
        "mean": mean(errors),
        "median": float(np.median(errors)) if len(errors) else None,
        "beyond_90": ratio(int((errors > 90).sum()), len(errors)),
        "outward": mean(rows["heading_outward"][np.isfinite(rows["heading_outward"])]),
    }


def pose_and_iou_figures(rows: np.ndarray) -> dict[str, Any]:
    return {**iou_figures(rows), **pose_figures(rows)}


def figures_by_size(rows: np.ndarray) -> dict[str, Any]:
    return {**pose_and_iou_figures(rows), "heading_mean": heading_figures(rows)["mean"]}


def by_bins(
    rows: np.ndarray,
    values: np.ndarray,
    edges: Sequence[float | None],
    figures: Callable[[np.ndarray], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The figures of the truths in each bin.

    Args:
      rows: (n,) of truths.
      values: (n,) to bin by; NaN is in no bin.
      edges: low and high of the bins. A low edge belongs to its bin; the last bin has no upper end.
      figures: of rows.

    Returns:
      A dict for each bin: low, high, truths, and the figures.
    """
    found = []
    for low, high in pairwise(edges):
        below = True if high == edges[-1] else values < high
        chosen = rows[(values >= low) & below]
        found.append({"low": low, "high": high, "truths": len(chosen), **figures(chosen)})
    return found


def cumulative_geodesic(rows: np.ndarray) -> list[float] | None:
    """Fraction of evaluated poses with an error of at most 0, 1, ..., 180 degrees."""
    errors = np.sort(rows["geodesic"][np.isfinite(rows["geodesic"])])
    if len(errors) == 0:
        return None
    return (np.searchsorted(errors, GEODESIC_POINTS, side="right") / len(errors)).tolist()


def mean(values: np.ndarray) -> float | None:
    """Mean by an exactly rounded sum, so that the order of values has no influence."""
    return math.fsum(values.ravel().tolist()) / values.size if values.size else None


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def labels_of(heads: dict, count: int) -> np.ndarray:
    """(count,) classes of predictions or truths; 0 where they have no labels."""
    return np.asarray(heads.get("labels", np.zeros(count)), np.int64).reshape(count)
