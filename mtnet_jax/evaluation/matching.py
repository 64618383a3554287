"""Greedy matching of the predicted heads of one image to its true heads (COCO's rule).

The rule, in this order:

1. Predictions choose one after the other, the highest score first (equal scores: given order).
2. A prediction takes, of the truths that are not ignored and still free, the one of highest IoU,
   provided that IoU >= threshold and IoU > 0 (equal IoUs: given order). That truth is then no
   longer free.
3. Only if there is none, the ignored truth of highest such IoU absorbs the prediction, which then
   counts neither for nor against. One ignored truth absorbs any number of predictions.
4. Else the prediction is a false positive.

Heads of different classes never match: their IoU counts as 0.

Truths not taken are missed, except ignored ones, which never count. Since predictions of lower
score choose later, dropping all predictions below some score changes nothing for the others.
"""

from typing import NamedTuple

import numpy as np

from mtnet_jax.boxes import iou_xyxy


class Match(NamedTuple):
    """The matching of one image with m predictions and n truths, in the order they were given.

    Attributes:
      truth_of_prediction: (m,) int, index of the truth taken (or of the ignored truth that absorbed
        the prediction), -1 for a false positive.
      absorbed: (m,) bool, the prediction was absorbed by an ignored truth.
      prediction_of_truth: (n,) int, index of the prediction that took the truth; -1 if missed, and
        always -1 for an ignored truth.
      iou: (m, n) float64, IoU of every pair.
    """

    truth_of_prediction: np.ndarray
    absorbed: np.ndarray
    prediction_of_truth: np.ndarray
    iou: np.ndarray


def match_heads(
    iou: np.ndarray, scores: np.ndarray, ignore: np.ndarray, iou_threshold: float
) -> Match:
    """Matches one image's predictions to its truths by the rule of this module.

    Args:
      iou: (m, n) IoU of predictions and truths, 0 between heads of different classes.
      scores: (m,) scores of the predictions, in any order.
      ignore: (n,) bool, truths to be ignored.
      iou_threshold: smallest IoU of a match.
    """
    taken = match_thresholds(iou, scores, ignore, np.array([iou_threshold]))[0]
    absorbed = np.zeros(len(taken), bool)
    absorbed[taken >= 0] = ignore[taken[taken >= 0]]
    prediction_of_truth = np.full(len(ignore), -1)
    counting = np.flatnonzero((taken >= 0) & ~absorbed)
    prediction_of_truth[taken[counting]] = counting
    return Match(taken, absorbed, prediction_of_truth, iou)


def match_thresholds(
    iou: np.ndarray, scores: np.ndarray, ignore: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """The matching at several IoU thresholds at once.

    Args:
      iou: (m, n) IoU of predictions and truths.
      scores: (m,) scores of the predictions.
      ignore: (n,) bool, truths to be ignored.
      thresholds: (t,) smallest IoU of a match.

    Returns:
      (t, m) int, index of the truth that the prediction took or was absorbed by, else -1.
    """
    taken = np.full((len(thresholds), len(iou)), -1)
    if iou.size == 0:
        return taken
    free = np.broadcast_to(~ignore, (len(thresholds), len(ignore))).copy()  # (t, n)
    each = np.arange(len(thresholds))
    # Predictions that reach no truth need no turn: they take nothing from the others.
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        if not iou[index].max() >= thresholds.min():
            continue
        enough = (iou[index] >= thresholds[:, None]) & (iou[index] > 0)  # (t, n)
        for candidates in (free & enough, ignore & enough):
            best = np.where(candidates, iou[index], -1.0).argmax(axis=1)  # (t,)
            takes = candidates[each, best] & (taken[:, index] < 0)
            taken[takes, index] = best[takes]
            free[each[takes], best[takes]] = False
    return taken


def pair_by_iou(iou: np.ndarray) -> np.ndarray:
    """One-to-one pairs of equally many predictions and truths, the highest IoU first.

    No IoU is too small: this is the pairing of the `authors` protocol, which has no other notion of
    a match than that the numbers of heads agree.

    Args:
      iou: (n, n).

    Returns:
      (n,) int, index of the prediction of each truth.
    """
    prediction_of_truth = np.full(iou.shape[1], -1)
    used = np.zeros(iou.shape[0], bool)
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        prediction, truth = divmod(int(flat), iou.shape[1])
        if not used[prediction] and prediction_of_truth[truth] < 0:
            used[prediction] = True
            prediction_of_truth[truth] = prediction
    return prediction_of_truth


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of all pairs of (m, 4) and (n, 4) xyxy boxes in float64 -> (m, n); NaN boxes give 0."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    iou = iou_xyxy(a[:, None, :], b[None, :, :])
    return np.where(np.isfinite(iou), iou, 0.0)
