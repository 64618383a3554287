"""The constant predictor: the mean box, rotation and class of what it has seen."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation import run
from mtnet_jax.evaluation.constant import constant_predictor
from mtnet_jax.evaluation.metrics import evaluate
from tests.evaluations import a_truth, canonical
from tests.tiny import DEMO_RECORDS


def test_constant_predictor():
    truths = [
        a_truth([[0, 0, 200, 100]], [canonical(30)]),
        a_truth(
            [[100, 100, 200, 200], [0, 0, 1, 1]],
            [canonical(-10), canonical(90)],
            ignore=[False, True],
        ),
    ]
    constant = constant_predictor(iter(truths))
    assert constant.rotation == pytest.approx(canonical(10), abs=1e-6)
    assert constant.box == pytest.approx([0.125, 0.25, 0.5, 0.75])
    heads = constant.heads(width=800, height=40)
    assert heads["boxes"] == pytest.approx(np.array([[100, 10, 400, 30]]))
    assert heads["scores"].tolist() == [1.0]
    pairs = [(constant.on_boxes(t["boxes"], np.zeros(len(t["boxes"]), int)), t) for t in truths]
    result = evaluate(pairs)
    assert result["pose"]["yaw"] == pytest.approx(20, abs=1e-3)
    assert result["detection"]["recall"] == 1.0
    assert evaluate([(constant.heads(400, 200), truths[0])])["counts"]["predictions"] == 1


def test_constant_predictor_is_the_chordal_mean():
    rng = np.random.default_rng(0)
    poses = Rotation.from_rotvec(rng.normal(0, 0.5, (50, 3)))
    constant = constant_predictor([a_truth(np.tile([0, 0, 9, 9], (50, 1)), poses.as_matrix())])
    # scipy's mean minimises the same squared chordal distance.
    assert constant.rotation == pytest.approx(poses.mean().as_matrix(), abs=1e-6)


def test_constant_predictor_says_the_most_frequent_class():
    truth = a_truth(np.tile([0, 0, 9, 9], (3, 1)), np.tile(np.eye(3), (3, 1, 1)))
    constant = constant_predictor([{**truth, "labels": np.array([1, 0, 1])}])
    assert constant.heads(10, 10)["labels"].tolist() == [1]


def test_the_constant_is_learned_without_decoding_an_image(monkeypatch):
    source = RecordSource(DEMO_RECORDS, "test")
    train = RecordSource(DEMO_RECORDS, "train")
    decoded = (train[i] for i in range(len(train)))
    expected = constant_predictor(
        {**record, "width": record["image"].shape[1], "height": record["image"].shape[0]}
        for record in decoded
    )

    def refuse(encoded):
        raise AssertionError("decoded")

    monkeypatch.setattr("mtnet_jax.data.example.decode_image", refuse)
    monkeypatch.setattr("mtnet_jax.data.images.decode_image", refuse)
    constant = run._constant_of(source, ("head",))
    np.testing.assert_array_equal(constant.box, expected.box)
    np.testing.assert_array_equal(constant.rotation, expected.rotation)


def test_constant_predictor_of_nothing():
    with pytest.raises(ValueError, match="0"):
        constant_predictor([a_truth([])])
