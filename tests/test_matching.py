"""Predictions matched with truths, against a loop and hand-made cases."""

import numpy as np
import pytest

from mtnet_jax.evaluation.matching import Match, match_heads, pair_by_iou, pairwise_iou
from tests.evaluations import a_pred, a_truth, random_pairs, slow_match


def match_image(pred: dict, truth: dict, threshold: float) -> Match:
    iou = pairwise_iou(pred["boxes"], truth["boxes"])
    return match_heads(iou, pred["scores"], truth["ignore"], threshold)


@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_slow_loops(seed):
    for pred, truth in random_pairs(seed):
        for threshold in (0.3, 0.5, 0.75):
            match = match_image(pred, truth, threshold)
            takes, absorbed = slow_match(pred, truth, threshold)
            m, n = len(pred["scores"]), len(truth["boxes"])
            assert match.iou.shape == (m, n)
            assert set(np.flatnonzero(match.absorbed)) == absorbed
            for i in range(m):
                if i not in absorbed:
                    assert match.truth_of_prediction[i] == takes.get(i, -1)
            back = {j: i for i, j in takes.items()}
            assert match.prediction_of_truth.tolist() == [back.get(j, -1) for j in range(n)]


def test_two_predictions_on_one_truth_the_higher_score_wins_though_its_iou_is_lower():
    pred = a_pred([[0, 0, 10, 10], [0, 0, 10, 12]], [0.5, 0.9])
    match = match_image(pred, a_truth([[0, 0, 10, 10]]), 0.5)
    assert match.truth_of_prediction.tolist() == [-1, 0]
    assert match.prediction_of_truth.tolist() == [1]


def test_the_threshold_itself_is_enough():
    match = match_image(a_pred([[0, 0, 10, 5]], [1]), a_truth([[0, 0, 10, 10]]), 0.5)
    assert match.truth_of_prediction.tolist() == [0]


def test_heads_that_do_not_touch_never_match():
    truth = a_truth([[0, 0, 10, 10], [50, 0, 60, 10]], ignore=[False, True])
    match = match_image(a_pred([[20, 0, 30, 10]], [1]), truth, 0.0)
    assert match.truth_of_prediction.tolist() == [-1]
    assert not match.absorbed.any()
    assert match_image(a_pred([[9, 0, 30, 10]], [1]), truth, 0.0).truth_of_prediction[0] == 0


def test_a_counting_truth_goes_before_a_nearer_ignored_one():
    truth = a_truth([[0, 0, 10, 10], [0, 0, 10, 12]], ignore=[True, False])
    pred = a_pred([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8, 0.7])
    match = match_image(pred, truth, 0.5)
    assert match.truth_of_prediction.tolist() == [1, 0, 0]  # then both others are absorbed
    assert match.absorbed.tolist() == [False, True, True]
    assert match.prediction_of_truth.tolist() == [-1, 0]


def test_pairs_by_iou_take_the_highest_first():
    iou = np.array([[0.9, 0.8], [0.7, 0.0]])
    assert pair_by_iou(iou).tolist() == [0, 1]  # though 0.8 + 0.7 would sum to more
    assert pair_by_iou(np.zeros((0, 0))).tolist() == []


def test_pairwise_iou_of_nothing_and_of_nan():
    assert pairwise_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert pairwise_iou([[np.nan] * 4], [[0, 0, 1, 1]]).tolist() == [[0.0]]
