"""Evaluations as a whole: of nothing, merged from parts, by the authors' protocol."""

import json

import numpy as np
import pytest

from mtnet_jax.evaluation.metrics import (
    EMPTY,
    Settings,
    evaluate,
    image_state,
    merge_states,
    summarise,
)
from tests.evaluations import NOTHING, a_pred, a_truth, canonical, random_pairs


@pytest.mark.parametrize("protocol", ["matched", "authors"])
def test_empty_everything(protocol):
    for pairs in ([], [(NOTHING, a_truth([]))]):
        result = evaluate(pairs, protocol=protocol)
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert result["counts"]["images"] == len(pairs)
        assert result["detection"]["ap50"] is None
        assert result["detection"]["recall"] is None
        assert result["pose"]["mae"] is None


def test_no_truths_and_no_predictions():
    result = evaluate([(a_pred([[0, 0, 9, 9]], [0.9]), a_truth([]))])
    assert result["detection"]["false_positives"] == 1
    assert result["detection"]["precision"] == 0.0
    result = evaluate([(NOTHING, a_truth([[0, 0, 9, 9]], [np.eye(3)]))])
    assert result["detection"]["ap50"] == 0.0
    assert result["detection"]["missed"] == 1
    assert result["detection"]["mean_iou_all"] == 0.0
    assert result["detection"]["mean_iou_matched"] is None
    assert result["pose"]["coverage"] == 0.0


@pytest.mark.parametrize("protocol", ["matched", "authors"])
def test_merged_states_give_exactly_the_numbers_of_one_pass(protocol):
    pairs = random_pairs(7)
    settings = Settings(protocol=protocol)
    states = [image_state(pred, truth, settings) for pred, truth in pairs]
    hosts = [merge_states(states[20:]), EMPTY, merge_states(states[:3]), merge_states(states[3:20])]
    assert summarise(merge_states(hosts), settings) == evaluate(pairs, protocol=protocol)
    assert evaluate(pairs[::-1], protocol=protocol) == evaluate(pairs, protocol=protocol)


def test_authors_protocol_skips_images_whose_counts_differ_and_pairs_whatever_the_iou():
    one = a_truth([[0, 0, 10, 10]], [canonical(0)])
    far = (a_pred([[5, 0, 15, 10]], [0.9], [canonical(20)]), one)  # IoU 1/3
    extra = (a_pred([[0, 0, 10, 10]] * 2, [0.9, 0.8], [canonical(0)] * 2), one)
    weak = (a_pred([[0, 0, 10, 10]] * 2, [0.9, 0.1], [canonical(10)] * 2), one)  # one of .3 or more
    result = evaluate([far, extra, weak], protocol="authors")
    assert result["counts"]["images"] == 2
    assert result["counts"]["images_skipped"] == 1
    assert result["detection"]["mean_iou_matched"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["pose"]["yaw"] == pytest.approx(15, abs=1e-3)
    matched = evaluate([far, extra, weak])
    assert matched["detection"]["missed"] == 1
    assert matched["detection"]["false_positives"] == 2
    assert matched["pose"]["yaw"] == pytest.approx(5, abs=1e-3)


def test_unknown_protocol():
    with pytest.raises(ValueError, match="matched"):
        evaluate([(NOTHING, a_truth([]))], protocol="best")
