"""Suppression against OpenCV and a loop."""

import cv2
import jax
import numpy as np
import pytest

from mtnet_jax.decode import suppress
from tests import slow_loops


@jax.jit
def kept_by_suppress(boxes, scores, score_threshold, iou_threshold):
    """The order by falling score, which `suppress` wants, and which boxes of it are kept."""
    order = jax.numpy.argsort(-scores, stable=True)
    return order, suppress(boxes[order], scores[order] >= score_threshold, iou_threshold)


def suppressed(boxes, scores, score_threshold, iou_threshold):
    """Indices of the kept boxes, best first."""
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    order, keep = kept_by_suppress(boxes, scores, score_threshold, iou_threshold)
    return np.asarray(order)[np.asarray(keep)].tolist()


def by_opencv(boxes, scores, score_threshold, iou_threshold):
    boxes = np.asarray(boxes, np.float32).astype(np.float64)
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = np.asarray(scores, np.float32).tolist()
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores, score_threshold, iou_threshold)
    return np.asarray(kept, int).ravel().tolist()


def crowd(rng, count):
    """Boxes round a few heads, so that most overlap heavily."""
    centre = rng.uniform(0, 200, (6, 2))[rng.integers(0, 6, count)] + rng.normal(0, 8, (count, 2))
    shape = rng.uniform(20, 60, (count, 2))
    return np.concatenate([centre - shape / 2, centre + shape / 2], axis=1)


@pytest.mark.parametrize("iou_threshold", [0.2, 0.5, 0.8])
def test_suppression_equals_that_of_opencv(iou_threshold):
    lost = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        boxes, scores = crowd(rng, 100), rng.random(100)
        expected = by_opencv(boxes, scores, 0.1, iou_threshold)
        lost += (scores > 0.1).sum() - len(expected)
        assert suppressed(boxes, scores, 0.1, iou_threshold) == expected
        if seed < 5:
            assert slow_loops.suppress(boxes, scores, 0.1, iou_threshold) == expected
    assert lost > 50


def test_suppression_with_equal_scores_equals_a_loop():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        boxes, scores = crowd(rng, 100), rng.integers(1, 5, 100) / 4
        expected = slow_loops.suppress(boxes, scores, 0.5, 0.4)
        assert suppressed(boxes, scores, 0.5, 0.4) == expected
        assert by_opencv(boxes, scores, 0.4999, 0.4) == expected


def test_boxes_that_overlap_by_exactly_the_threshold_stay():
    boxes = [(0, 0, 4, 4), (0, 0, 4, 8), (0, 0, 4, 4.001)]
    scores = [0.9, 0.8, 0.7]
    assert suppressed(boxes[:2] + boxes[:1], scores, 0.1, 0.5) == [0, 1]
    assert suppressed(boxes, scores, 0.1, 0.5) == [0, 1]
    assert suppressed([boxes[2], boxes[1], boxes[0]], scores, 0.1, 0.5) == [0]
    assert by_opencv(boxes, scores, 0.1, 0.5) == [0, 1]


def test_a_suppressed_box_suppresses_nothing():
    chain = [(0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)]  # neighbours overlap by 6 / 14
    assert suppressed(chain, [0.9, 0.8, 0.7], 0.1, 0.4) == [0, 2]
    assert suppressed(chain, [0.8, 0.9, 0.7], 0.1, 0.4) == [1]


def test_unusable_boxes_are_neither_kept_nor_suppress():
    boxes = [(0, 0, 10, 10), (0, 0, 10, 10), (np.nan,) * 4, (0, 0, 0, 0)]
    keep = suppress(np.array(boxes, np.float32), np.array([False, True, False, True]), 0.5)
    assert keep.tolist() == [False, True, False, True]
