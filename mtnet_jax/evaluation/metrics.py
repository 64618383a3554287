"""Metrics of detection and head pose, exact over any split of the images into batches or hosts.

`evaluate` does everything in one call. Its parts are `image_state` (one image), `merge_states`
(any number of states, in any order) and `summarise` (numbers out of a state). A state holds what
the metrics need of each prediction and each truth instead of running sums, because average
precision and medians need it; sums are taken without rounding error, so the order of images has
no influence.

Every number is defined in docs/evaluation.md.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.boxes import longer_side_xyxy
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.figures import (
    GEODESIC_POINTS,
    RECALL_POINTS,
    by_bins,
    cumulative_geodesic,
    euler_errors,
    figures_by_size,
    heading_figures,
    interpolated_precision,
    iou_figures,
    labels_of,
    mean,
    pose_and_iou_figures,
    pose_figures,
    ratio,
    vector_errors,
)
from mtnet_jax.evaluation.matching import (
    match_heads,
    match_thresholds,
    pair_by_iou,
    pairwise_iou,
)
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.rotations import (
    angle_from,
    geodesic_degrees,
    heading_degrees,
    rotation_faults,
    rotation_to_euler,
)

AP_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
YAW_BINS = (0, 30, 60, 90, 120, 150, 180)
SIZE_BINS = (0, 32, 64, 128, 256, None)  # pixels of the image, longer side of the box
PROTOCOLS = ("matched", "authors")

# What is kept of every truth that counts (is not ignored). Errors are in degrees, and NaN where the
# truth was missed, has no pose, or was given a matrix that is no rotation.
TRUTH_ROW = np.dtype(
    [
        ("prediction", np.int64),  # that matched, its index in the image; -1 where missed
        ("matched", np.bool_),
        ("label", np.int64),  # class of the truth
        ("iou", np.float64),  # 0 where missed
        ("side", np.float64),  # of the true box, the longer one, pixels of the image
        ("has_pose", np.bool_),
        ("invalid", np.bool_),  # matched and has_pose, but the predicted matrix is no rotation
        ("yaw", np.float64),  # of the truth, canonical; NaN without a pose
        ("euler", np.float64, (3,)),  # absolute wrapped errors of yaw, pitch, roll
        ("vectors", np.float64, (3,)),  # angle between true and predicted columns of R
        ("geodesic", np.float64),
        ("heading", np.float64),  # of the truth; NaN without pose and heading
        ("heading_error", np.float64),  # 0 to 180, of what is predicted seen from above
        ("heading_outward", np.float64),  # the same, below 0 where it lies nearer the front
    ]
)


# Fields that are NaN where the truth lacks what they are of, or was missed.
_UNKNOWN = ("yaw", "euler", "vectors", "geodesic", "heading", "heading_error", "heading_outward")


class Settings(NamedTuple):
    """What has to be stated beside every number.

    Attributes:
      protocol: "matched" (greedy matching, see matching.py) or "authors" (images whose numbers of
        predictions and truths differ are skipped; see `image_state`).
      iou_threshold: smallest IoU of a match, for everything but the average precisions.
      score_threshold: predictions of lower score count in the average precisions alone.
    """

    protocol: str = "matched"
    iou_threshold: float = 0.5
    score_threshold: float = FOUND_SCORE


class State(NamedTuple):
    """What is known of a set of images. The empty state is `EMPTY`."""

    images: int  # evaluated, without the skipped ones
    skipped: int  # by the authors protocol
    ignored: int  # truths marked so
    false_positives: int  # at the settings' score and IoU thresholds
    scores: np.ndarray  # (predictions,) float64
    labels: np.ndarray  # (predictions,) int64, class
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
    np.zeros(0, np.int64),
    np.zeros((0, len(AP_IOU_THRESHOLDS)), np.int8),
    np.zeros(0, bool),
    np.zeros(0, TRUTH_ROW),
)


def evaluate(
    pairs: Iterable[tuple[dict, dict]],
    *,
    protocol: str = "matched",
    iou_threshold: float = 0.5,
    score_threshold: float = FOUND_SCORE,
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """All metrics over images.

    Args:
      pairs: (prediction, truth) of each image. A prediction has "boxes" (m, 4) xyxy in pixels,
        "scores" (m,), "rotations" (m, 3, 3) and "labels" (m,); a truth has "boxes" (n, 4),
        "rotations" (n, 3, 3), "has_pose" (n,), "ignore" (n,) and "labels" (n,), and optionally
        "headings" (n,) and "has_heading" (n,). Heads match within their class; without
        labels all are of class 0. The image itself is not needed.
      protocol: see `Settings`.
      iou_threshold: see `Settings`.
      score_threshold: see `Settings`.
      class_names: of the labels, for the rows by class.

    Returns:
      A nested dict of numbers, strings, lists and None (undefined, such as the mean of nothing),
      ready for JSON; see `summarise`.

    Raises:
      ValueError: unknown protocol, or a true pose that is no rotation.
    """
    settings = Settings(protocol, iou_threshold, score_threshold)
    state = merge_states(image_state(p, t, settings) for p, t in pairs)
    return summarise(state, settings, class_names)


def image_state(pred: dict, truth: dict, settings: Settings) -> State:
    """The state of one image.

    With the `authors` protocol an image counts only if the number of predictions of score >=
    threshold equals the number of truths that are not ignored; heads are then paired by IoU, the
    highest first, however small it is. Whatever goes wrong in detection thereby drops out of the
    numbers, which is why it is not the default.

    Args:
      pred: predicted heads of the image.
      truth: true heads of the image.
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
    labels = labels_of(pred, len(pred_boxes))
    iou = pairwise_iou(pred_boxes, truth["boxes"])
    iou = np.where(labels[:, None] == labels_of(truth, len(ignore)), iou, 0.0)
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
        match = match_heads(iou[counted], scores[counted], ignore, settings.iou_threshold)
        taken = match.prediction_of_truth
        prediction_of_truth = np.full(len(ignore), -1)
        prediction_of_truth[taken >= 0] = np.flatnonzero(counted)[taken[taken >= 0]]
        false_positives = int((match.truth_of_prediction < 0).sum())

    taken = match_thresholds(iou, scores, ignore, AP_IOU_THRESHOLDS).T  # (m, 10)
    outcomes = (taken >= 0).astype(np.int8)
    if ignore.any():
        outcomes[(taken >= 0) & ignore[taken]] = -1
    return State(
        images=1,
        skipped=0,
        ignored=int(ignore.sum()),
        false_positives=false_positives,
        scores=scores,
        labels=labels,
        outcomes=outcomes,
        counted=counted,
        rows=_truth_rows(pred, truth, prediction_of_truth, iou)[~ignore],
    )


def merge_states(states: Iterable[State]) -> State:
    """One state of all images of any number of states; the order has no influence on numbers."""
    columns = list(zip(*[EMPTY, *states], strict=True))
    return State(*(sum(c) for c in columns[:4]), *(np.concatenate(c) for c in columns[4:]))


def summarise(state: State, settings: Settings, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """The numbers of a state, ready for JSON.

    Args:
      state: merged states of the images.
      settings: those the state was made with.
      class_names: of the labels; a label without a name is called by its number.

    Returns:
      "settings"; "counts" (images, images_skipped, truths, truths_with_pose, ignored,
      predictions, predictions_counted); "detection" (ap50, ap50_95, ap_by_iou, recall, precision,
      matched, missed, false_positives, mean_iou_matched, mean_iou_all); "pose" (evaluated,
      invalid_rotations, coverage, and in degrees yaw, pitch, roll, mae, maev_left, maev_bottom,
      maev_front, maev, geodesic_mean, geodesic_median); "heading" (evaluated, mean, median,
      beyond_90, outward) of truths with a pose or a heading; "yaw_bins", a list with low, high,
      truths, recall, mean_iou_matched, mean_iou_all and the figures of "pose"; "heading_bins", a
      list with low, high, truths and the figures of "heading"; "size_bins", a list with low, high
      (None: no end), the fields of a yaw bin and heading_mean, by the longer side of the true box;
      "classes", a list with name, truths, predictions, ap50, ap50_95, recall and mean IoUs (the
      average precisions of "detection" are means over the classes that have truths, as COCO's);
      "curves" (precision at IoU .5 over recall, cumulative geodesic error).
    """
    rows = state.rows
    present = np.unique(rows["label"]).tolist()
    by_class = [p for label in present if (p := _precisions(state, label)) is not None]
    precision = np.mean(by_class, axis=0) if by_class else None  # (10, 101)
    no_average: list[float | None] = [None] * len(AP_IOU_THRESHOLDS)
    average = no_average if precision is None else [mean(p) for p in precision]
    matched = int(rows["matched"].sum())
    return {
        "settings": settings._asdict(),
        "counts": {
            "images": state.images,
            "images_skipped": state.skipped,
            "truths": len(rows),
            "truths_with_pose": int(rows["has_pose"].sum()),
            "truths_with_heading": int(np.isfinite(rows["heading"]).sum()),
            "ignored": state.ignored,
            "predictions": len(state.scores),
            "predictions_counted": int(state.counted.sum()),
        },
        "detection": {
            "ap50": average[0],
            "ap50_95": None if average[0] is None else mean(np.array(average)),
            "ap_by_iou": {f"{t:.2f}": a for t, a in zip(AP_IOU_THRESHOLDS, average, strict=True)},
            "precision": ratio(matched, matched + state.false_positives),
            "matched": matched,
            "missed": len(rows) - matched,
            "false_positives": state.false_positives,
            **iou_figures(rows),
        },
        "pose": pose_figures(rows),
        "heading": heading_figures(rows),
        "yaw_bins": by_bins(rows, np.abs(rows["yaw"]), YAW_BINS, pose_and_iou_figures),
        "heading_bins": by_bins(rows, np.abs(rows["heading"]), YAW_BINS, heading_figures),
        "size_bins": by_bins(rows, rows["side"], SIZE_BINS, figures_by_size),
        "classes": [
            _class_row(state, label, class_names)
            for label in sorted({*present, *state.labels.tolist(), *range(len(class_names))})
        ],
        "curves": {
            "recall": RECALL_POINTS.tolist(),
            "precision50": None if precision is None else precision[0].tolist(),
            "geodesic_degrees": GEODESIC_POINTS.tolist(),
            "geodesic_fraction": cumulative_geodesic(rows),
        },
    }


def _truth_rows(
    pred: dict, truth: dict, prediction_of_truth: np.ndarray, iou: np.ndarray
) -> np.ndarray:
    """(n,) TRUTH_ROW of all truths of an image, from (n,) matches and (m, n) IoU."""
    matched = prediction_of_truth >= 0
    has_pose = np.asarray(truth["has_pose"], bool).reshape(-1)
    true = np.asarray(truth["rotations"], np.float64).reshape(-1, 3, 3)
    counts = has_pose & ~np.asarray(truth["ignore"], bool)
    if rotation_faults(true[counts]).any():
        name = truth.get("image_id", "?")
        raise BadInput(f"Image {name}: a true pose is no rotation: {true[counts].tolist()}.")

    rows = np.zeros(len(has_pose), TRUTH_ROW)
    rows["prediction"], rows["matched"], rows["has_pose"] = prediction_of_truth, matched, has_pose
    rows["label"] = labels_of(truth, len(has_pose))
    boxes = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)
    rows["side"] = longer_side_xyxy(boxes)
    rows["iou"][matched] = iou[prediction_of_truth[matched], np.flatnonzero(matched)]
    for field in _UNKNOWN:
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
    """Fills the fields of the heading: one that is labelled, or that of the rotation."""
    rows["heading"][posed] = heading_degrees(rotations[posed])
    if "has_heading" in truth:
        headed = np.asarray(truth["has_heading"], bool).reshape(-1)
        rows["heading"][headed] = np.asarray(truth["headings"], np.float64).reshape(-1)[headed]
    asked = np.flatnonzero(rows["matched"] & np.isfinite(rows["heading"]))
    guess = np.asarray(pred["rotations"], np.float64).reshape(-1, 3, 3)
    guess = guess[rows["prediction"][asked]]
    good = ~rotation_faults(guess)
    asked, guess = asked[good], guess[good]
    true_heading = rows["heading"][asked]
    off = angle_from(heading_degrees(guess), true_heading)
    rows["heading_error"][asked] = abs(off)
    rows["heading_outward"][asked] = np.copysign(off, off * true_heading)


def _precisions(state: State, label: int) -> np.ndarray | None:
    """(10, 101) interpolated precision of a class at `AP_IOU_THRESHOLDS`; None without truths."""
    truths = int((state.rows["label"] == label).sum())
    mine = state.labels == label
    if truths == 0:
        return None
    return np.array(
        [interpolated_precision(state.scores[mine], o, truths) for o in state.outcomes[mine].T],
        np.float64,
    )


def _class_row(state: State, label: int, names: Sequence[str]) -> dict[str, Any]:
    """The figures of the truths and predictions of a class."""
    rows = state.rows[state.rows["label"] == label]
    precision = _precisions(state, label)
    return {
        "name": names[label] if 0 <= label < len(names) else str(label),
        "truths": len(rows),
        "predictions": int((state.counted & (state.labels == label)).sum()),
        "ap50": None if precision is None else mean(precision[0]),
        "ap50_95": None if precision is None else mean(precision),
        **iou_figures(rows),
    }
