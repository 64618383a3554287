"""Metrics of detection and head pose, exact over any split of the pictures into batches or hosts.

`evaluate` does everything in one call. Its parts are `picture_state` (one picture), `merge_states`
(any number of states, in any order) and `summarise` (numbers out of a state). A state holds what
the metrics need of each prediction and each truth instead of running sums, because average
precision and medians need it; sums are taken without rounding error, so the order of pictures has
no influence.

Every number is defined in docs/evaluation.md.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.matching import (
    match_picture,
    match_thresholds,
    pair_by_iou,
    pairwise_iou,
)
from mtnet_jax.rotations import (
    geodesic_degrees,
    heading_degrees,
    nearest_rotation,
    rotation_faults,
    rotation_to_euler,
)

AP_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
YAW_BINS = (0, 30, 60, 90, 120, 150, 180)
GEODESIC_POINTS = np.arange(181)
PROTOCOLS = ("matched", "authors")

# What is kept of every truth that counts (is not ignored). Errors are in degrees, and NaN where the
# truth was missed, has no pose, or was given a matrix that is no rotation.
TRUTH_ROW = np.dtype(
    [
        ("prediction", np.int64),  # that matched, its index in the picture; -1 where missed
        ("matched", np.bool_),
        ("iou", np.float64),  # 0 where missed
        ("has_pose", np.bool_),
        ("invalid", np.bool_),  # matched and has_pose, but the predicted matrix is no rotation
        ("yaw", np.float64),  # of the truth, canonical; NaN without a pose
        ("euler", np.float64, (3,)),  # absolute wrapped errors of yaw, pitch, roll
        ("vectors", np.float64, (3,)),  # angle between true and predicted columns of R
        ("geodesic", np.float64),
        ("heading", np.float64),  # of the truth; NaN without pose and heading
        ("heading_error", np.float64),  # 0 to 180, of what is predicted seen from above
    ]
)


class Settings(NamedTuple):
    """What has to be stated beside every number.

    Attributes:
      protocol: "matched" (greedy matching, see matching.py) or "authors" (pictures whose numbers of
        predictions and truths differ are skipped; see `picture_state`).
      iou_threshold: smallest IoU of a match, for everything but the average precisions.
      score_threshold: predictions of lower score count in the average precisions alone.
    """

    protocol: str = "matched"
    iou_threshold: float = 0.5
    score_threshold: float = 0.3


class State(NamedTuple):
    """What is known of a set of pictures. The empty state is `EMPTY`."""

    pictures: int  # evaluated, without the skipped ones
    skipped: int  # by the authors protocol
    ignored: int  # truths marked so
    false_positives: int  # at the settings' score and IoU thresholds
    scores: np.ndarray  # (predictions,) float64
    outcomes: (
        np.ndarray
    )  # (predictions, 10) int8 at AP_IOU_THRESHOLDS: 1 true, 0 false, -1 absorbed
    counted: np.ndarray  # (predictions,) bool, score >= score threshold
    rows: np.ndarray  # (truths,) TRUTH_ROW


EMPTY = State(
    0,
    0,
    0,
    0,
    np.zeros(0),
    np.zeros((0, len(AP_IOU_THRESHOLDS)), np.int8),
    np.zeros(0, bool),
    np.zeros(0, TRUTH_ROW),
)


def evaluate(
    pairs: Iterable[tuple[dict, dict]],
    *,
    protocol: str = "matched",
    iou_threshold: float = 0.5,
    score_threshold: float = 0.3,
) -> dict[str, Any]:
    """All metrics over pictures.

    Args:
      pairs: (prediction, truth) of each picture. A prediction has "boxes" (m, 4) xyxy in pixels,
        "scores" (m,) and "rotations" (m, 3, 3); a truth has "boxes" (n, 4), "rotations" (n, 3, 3),
        "has_pose" (n,) and "ignore" (n,), and optionally "headings" (n,) and "has_heading" (n,).
        The picture itself is not needed.
      protocol: see `Settings`.
      iou_threshold: see `Settings`.
      score_threshold: see `Settings`.

    Returns:
      A nested dict of numbers, strings, lists and None (undefined, such as the mean of nothing),
      ready for JSON; see `summarise`.

    Raises:
      ValueError: unknown protocol, or a true pose that is no rotation.
    """
    settings = Settings(protocol, iou_threshold, score_threshold)
    return summarise(merge_states(picture_state(p, t, settings) for p, t in pairs), settings)


def picture_state(pred: dict, truth: dict, settings: Settings) -> State:
    """The state of one picture.

    With the `authors` protocol a picture counts only if the number of predictions of score >=
    threshold equals the number of truths that are not ignored; heads are then paired by IoU, the
    highest first, however small it is. Whatever goes wrong in detection thereby drops out of the
    numbers, which is why it is not the default.

    Args:
      pred: predicted heads of the picture.
      truth: true heads of the picture.
      settings: thresholds and protocol.

    Returns:
      The state, to be merged with others.

    Raises:
      ValueError: unknown protocol, or a true pose that is no rotation.
    """
    if settings.protocol not in PROTOCOLS:
        raise BadInput(f"Unknown protocol {settings.protocol!r}: choose one of {PROTOCOLS}.")
    pred_boxes = np.asarray(pred["boxes"], np.float64).reshape(-1, 4)
    scores = np.asarray(pred["scores"], np.float64).reshape(-1)
    scores = np.where(np.isnan(scores), -np.inf, scores)  # the least certain of all
    ignore = np.asarray(truth["ignore"], bool).reshape(-1)
    iou = pairwise_iou(pred_boxes, truth["boxes"])
    counted = scores >= settings.score_threshold

    if settings.protocol == "authors":
        if counted.sum() != (~ignore).sum():
            return EMPTY._replace(skipped=1)
        prediction_of_truth = np.full(len(ignore), -1)
        prediction_of_truth[~ignore] = np.flatnonzero(counted)[
            pair_by_iou(iou[counted][:, ~ignore])
        ]
        false_positives = 0
    else:
        boxes_counted = {"boxes": pred_boxes[counted], "scores": scores[counted]}
        match = match_picture(boxes_counted, truth, settings.iou_threshold)
        taken = match.prediction_of_truth
        prediction_of_truth = np.full(len(ignore), -1)
        prediction_of_truth[taken >= 0] = np.flatnonzero(counted)[taken[taken >= 0]]
        false_positives = int((match.truth_of_prediction < 0).sum())

    taken = match_thresholds(iou, scores, ignore, AP_IOU_THRESHOLDS).T  # (m, 10)
    outcomes = (taken >= 0).astype(np.int8)
    if ignore.any():
        outcomes[(taken >= 0) & ignore[taken]] = -1
    return State(
        pictures=1,
        skipped=0,
        ignored=int(ignore.sum()),
        false_positives=false_positives,
        scores=scores,
        outcomes=outcomes,
        counted=counted,
        rows=_truth_rows(pred, truth, prediction_of_truth, iou)[~ignore],
    )


def merge_states(states: Iterable[State]) -> State:
    """One state of all pictures of any number of states; the order has no influence on numbers."""
    columns = list(zip(*[EMPTY, *states], strict=True))
    return State(*(sum(c) for c in columns[:4]), *(np.concatenate(c) for c in columns[4:]))


def summarise(state: State, settings: Settings) -> dict[str, Any]:
    """The numbers of a state, ready for JSON.

    Args:
      state: merged states of the pictures.
      settings: those the state was made with.

    Returns:
      "settings"; "counts" (pictures, pictures_skipped, truths, truths_with_pose, ignored,
      predictions, predictions_counted); "detection" (ap50, ap50_95, ap_by_iou, recall, precision,
      matched, missed, false_positives, mean_iou_matched, mean_iou_all); "pose" (evaluated,
      invalid_rotations, coverage, and in degrees yaw, pitch, roll, mae, maev_left, maev_bottom,
      maev_front, maev, geodesic_mean, geodesic_median); "heading" (evaluated, mean, median,
      beyond_90) of truths with a pose or a heading; "yaw_bins", a list with low, high, truths,
      recall, mean_iou_matched, mean_iou_all and the figures of "pose"; "heading_bins", a list with
      low, high, truths and the figures of "heading"; "curves" (precision at IoU .5 over recall,
      cumulative geodesic error).
    """
    rows = state.rows
    precision = [
        interpolated_precision(state.scores, state.outcomes[:, i], len(rows))
        for i in range(len(AP_IOU_THRESHOLDS))
    ]  # 10 of (101,) or None
    average = [None if p is None else _mean(p) for p in precision]
    matched = int(rows["matched"].sum())
    absolute_yaw = np.abs(rows["yaw"])
    return {
        "settings": settings._asdict(),
        "counts": {
            "pictures": state.pictures,
            "pictures_skipped": state.skipped,
            "truths": len(rows),
            "truths_with_pose": int(rows["has_pose"].sum()),
            "truths_with_heading": int(np.isfinite(rows["heading"]).sum()),
            "ignored": state.ignored,
            "predictions": len(state.scores),
            "predictions_counted": int(state.counted.sum()),
        },
        "detection": {
            "ap50": average[0],
            "ap50_95": None if average[0] is None else _mean(np.array(average)),
            "ap_by_iou": {f"{t:.2f}": a for t, a in zip(AP_IOU_THRESHOLDS, average, strict=True)},
            "precision": _ratio(matched, matched + state.false_positives),
            "matched": matched,
            "missed": len(rows) - matched,
            "false_positives": state.false_positives,
            **_iou_figures(rows),
        },
        "pose": _pose_figures(rows),
        "heading": _heading_figures(rows),
        "yaw_bins": [_yaw_bin(rows, absolute_yaw, low, high) for low, high in pairwise(YAW_BINS)],
        "heading_bins": [_heading_bin(rows, low, high) for low, high in pairwise(YAW_BINS)],
        "curves": {
            "recall": RECALL_POINTS.tolist(),
            "precision50": None if precision[0] is None else precision[0].tolist(),
            "geodesic_degrees": GEODESIC_POINTS.tolist(),
            "geodesic_fraction": _cumulative_geodesic(rows),
        },
    }


def interpolated_precision(
    scores: np.ndarray, outcomes: np.ndarray, truths: int
) -> np.ndarray | None:
    """Precision at the 101 recall points of COCO; its mean is the average precision.

    At recall r it is the highest precision reached at any recall >= r, and 0 beyond the highest
    recall. Predictions of equal score enter together, so that their order has no influence (COCO's
    tool takes them in the order of the pictures; the two agree where scores differ).

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


class ConstantPredictor(NamedTuple):
    """Says the same of every picture: what any network has to beat.

    Attributes:
      box: (4,) xyxy as fractions of the width and height of the picture.
      rotation: (3, 3) chordal mean of the training poses.
    """

    box: np.ndarray
    rotation: np.ndarray

    def heads(self, width: int, height: int) -> dict[str, np.ndarray]:
        """One head of score 1: the mean box and mean pose, for a picture of the given size."""
        return _constant_heads(self.box[None] * [width, height, width, height], self.rotation)

    def on_boxes(self, boxes: np.ndarray) -> dict[str, np.ndarray]:
        """The mean pose on every given (n, 4) box, score 1: to compare the pose error alone."""
        return _constant_heads(boxes, self.rotation)


def constant_predictor(train_truths: Iterable[dict]) -> ConstantPredictor:
    """The mean box and the mean pose of training pictures; ignored truths are left out.

    Args:
      train_truths: decoded records ("image" gives the size of the picture), read once.

    Returns:
      The predictor. The mean pose is the rotation nearest to the sum of the rotations, which is
      the one of least mean squared chordal (Frobenius) distance.

    Raises:
      ValueError: no box, or no pose, in any truth.
    """
    box_sum, boxes, rotation_sum, poses = np.zeros(4), 0, np.zeros((3, 3)), 0
    for truth in train_truths:
        height, width = truth["image"].shape[:2]
        keep = ~np.asarray(truth["ignore"], bool)
        kept = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)[keep]
        box_sum += (kept / [width, height, width, height]).sum(axis=0)
        boxes += len(kept)
        posed = keep & np.asarray(truth["has_pose"], bool)
        rotations = np.asarray(truth["rotations"], np.float64).reshape(-1, 3, 3)
        rotation_sum += rotations[posed].sum(axis=0)
        poses += int(posed.sum())
    if boxes == 0 or poses == 0:
        raise BadInput(f"A mean box and pose need training truths: got {boxes} and {poses}.")
    return ConstantPredictor(box_sum / boxes, nearest_rotation(rotation_sum))


def _constant_heads(boxes: np.ndarray, rotation: np.ndarray) -> dict[str, np.ndarray]:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return {
        "boxes": boxes,
        "scores": np.ones(len(boxes), np.float32),
        "rotations": np.tile(rotation.astype(np.float32), (len(boxes), 1, 1)),
    }


def _truth_rows(
    pred: dict, truth: dict, prediction_of_truth: np.ndarray, iou: np.ndarray
) -> np.ndarray:
    """(n,) TRUTH_ROW of all truths of a picture, from (n,) matches and (m, n) IoU."""
    matched = prediction_of_truth >= 0
    has_pose = np.asarray(truth["has_pose"], bool).reshape(-1)
    true = np.asarray(truth["rotations"], np.float64).reshape(-1, 3, 3)
    counts = has_pose & ~np.asarray(truth["ignore"], bool)
    if rotation_faults(true[counts]).any():
        name = truth.get("image_id", "?")
        raise BadInput(f"Picture {name}: a true pose is no rotation: {true[counts].tolist()}.")

    rows = np.zeros(len(has_pose), TRUTH_ROW)
    rows["prediction"], rows["matched"], rows["has_pose"] = prediction_of_truth, matched, has_pose
    rows["iou"][matched] = iou[prediction_of_truth[matched], np.flatnonzero(matched)]
    for field in ("yaw", "euler", "vectors", "geodesic", "heading", "heading_error"):
        rows[field] = np.nan
    rows["yaw"][counts] = rotation_to_euler(true[counts], convention="canonical")[..., 0]

    _fill_headings(rows, pred, truth, true, counts)

    posed = np.flatnonzero(matched & counts)
    guess = np.asarray(pred["rotations"], np.float64).reshape(-1, 3, 3)[prediction_of_truth[posed]]
    invalid = rotation_faults(guess)
    rows["invalid"][posed] = invalid
    posed, guess = posed[~invalid], guess[~invalid]
    rows["euler"][posed] = euler_errors(guess, true[posed])
    rows["vectors"][posed] = vector_errors(guess, true[posed])
    rows["geodesic"][posed] = geodesic_degrees(guess, true[posed])
    return rows


def _fill_headings(
    rows: np.ndarray, pred: dict, truth: dict, rotations: np.ndarray, posed: np.ndarray
) -> None:
    """Fills "heading" and "heading_error": a heading that is labelled, or that of the rotation."""
    rows["heading"][posed] = heading_degrees(rotations[posed])
    if "has_heading" in truth:
        headed = np.asarray(truth["has_heading"], bool).reshape(-1)
        rows["heading"][headed] = np.asarray(truth["headings"], np.float64).reshape(-1)[headed]
    asked = np.flatnonzero(rows["matched"] & np.isfinite(rows["heading"]))
    guess = np.asarray(pred["rotations"], np.float64).reshape(-1, 3, 3)
    guess = guess[rows["prediction"][asked]]
    asked, guess = asked[~rotation_faults(guess)], guess[~rotation_faults(guess)]
    difference = heading_degrees(guess) - rows["heading"][asked]
    rows["heading_error"][asked] = np.abs((difference + 180) % 360 - 180)


def euler_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute differences of canonical Euler angles, wrapped (179 and -179 differ by 2).

    Args:
      a: (..., 3, 3) rotations.
      b: (..., 3, 3) rotations.

    Returns:
      (..., 3) degrees within 0..180, of yaw, pitch, roll.
    """
    difference = rotation_to_euler(a, convention="canonical") - rotation_to_euler(
        b, convention="canonical"
    )
    return np.abs((difference + 180) % 360 - 180)


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


def _iou_figures(rows: np.ndarray) -> dict[str, Any]:
    return {
        "recall": _ratio(int(rows["matched"].sum()), len(rows)),
        "mean_iou_matched": _mean(rows["iou"][rows["matched"]]),
        "mean_iou_all": _mean(rows["iou"]),
    }


def _pose_figures(rows: np.ndarray) -> dict[str, Any]:
    """Pose errors in degrees over the matched truths with a pose, and how many these are."""
    evaluated = rows[np.isfinite(rows["geodesic"])]
    yaw, pitch, roll = (_mean(evaluated["euler"][:, i]) for i in range(3))
    left, bottom, front = (_mean(evaluated["vectors"][:, i]) for i in range(3))
    geodesic = evaluated["geodesic"]
    return {
        "evaluated": len(evaluated),
        "invalid_rotations": int(rows["invalid"].sum()),
        "coverage": _ratio(len(evaluated), int(rows["has_pose"].sum())),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "mae": _mean(evaluated["euler"]),
        "maev_left": left,
        "maev_bottom": bottom,
        "maev_front": front,
        "maev": _mean(evaluated["vectors"]),
        "geodesic_mean": _mean(geodesic),
        "geodesic_median": float(np.median(geodesic)) if len(geodesic) else None,
    }


def _heading_figures(rows: np.ndarray) -> dict[str, Any]:
    """Errors of the heading in degrees, over matched truths with a pose or a heading."""
    errors = rows["heading_error"][np.isfinite(rows["heading_error"])]
    return {
        "evaluated": len(errors),
        "mean": _mean(errors),
        "median": float(np.median(errors)) if len(errors) else None,
        "beyond_90": _ratio(int((errors > 90).sum()), len(errors)),
    }


def _heading_bin(rows: np.ndarray, low: int, high: int) -> dict[str, Any]:
    """The figures of truths with low <= |heading| < high; 180 belongs to the last bin."""
    absolute = np.abs(rows["heading"])
    chosen = rows[(absolute >= low) & ((absolute < high) | (high == 180))]
    return {"low": low, "high": high, "truths": len(chosen), **_heading_figures(chosen)}


def _yaw_bin(rows: np.ndarray, absolute_yaw: np.ndarray, low: int, high: int) -> dict[str, Any]:
    """The figures of truths with low <= |yaw| < high; 180 belongs to the last bin."""
    inside = (absolute_yaw >= low) & ((absolute_yaw < high) | (high == 180))
    chosen = rows[inside]
    return {
        "low": low,
        "high": high,
        "truths": len(chosen),
        **_iou_figures(chosen),
        **_pose_figures(chosen),
    }


def _cumulative_geodesic(rows: np.ndarray) -> list[float] | None:
    """Fraction of evaluated poses with an error of at most 0, 1, ..., 180 degrees."""
    errors = np.sort(rows["geodesic"][np.isfinite(rows["geodesic"])])
    if len(errors) == 0:
        return None
    return (np.searchsorted(errors, GEODESIC_POINTS, side="right") / len(errors)).tolist()


def _mean(values: np.ndarray) -> float | None:
    """Mean by an exactly rounded sum, so that the order of values has no influence."""
    return math.fsum(values.ravel().tolist()) / values.size if values.size else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
