"""Representations on one detector: which prediction answers, what is learnt, the histograms."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks import pose_branches
from benchmarks.pose_branches import Seen, Trainer, make_branch, measured, predict
from mtnet_jax.anchors import ANCHORS_PER_CELL
from mtnet_jax.network.fpn import ScaleFeatures


def seen_of(count, answer=0, seed=0):
    """Heads whose rotations stand in the features of the first scale, among noise."""
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(count, random_state=seed).as_matrix().astype(np.float32)
    noise = rng.normal(0, 0.3, (count, 15))
    first = np.concatenate([rotations.reshape(count, 9), noise], axis=1).astype(np.float32)
    others = rng.normal(0, 1, (2, count, 24)).astype(np.float32)
    names = np.array([f"image{i // 2}#{i % 2}" for i in range(count)])
    return Seen(first, *others, np.full(count, answer), rotations, names)


@pytest.mark.parametrize("answer", [0, 4, 8])
def test_the_prediction_that_answers_is_read(answer):
    """All nine by the branch itself, of one cell a scale: `answer` counts scales, then anchors."""
    branch, representation = make_branch("quaternion")
    heads = list(seen_of(3)[:3])
    scales = [ScaleFeatures(face_BxKxKxC=h, pose_BxKxKxC=h[:, None, None]) for h in heads]
    variables = branch.init(jax.random.key(0), scales, heads, train=False)
    raw, _ = predict(branch, variables, heads, np.full(3, answer), train=False)
    scale, anchor = divmod(answer, ANCHORS_PER_CELL)
    size = representation.size
    outputs = branch.apply(variables, scales, heads, train=False)
    own = np.asarray(outputs[scale]).reshape(3, -1)[:, anchor * size : (anchor + 1) * size]
    np.testing.assert_allclose(raw, own, rtol=1e-6)
    assert not np.allclose(raw[0], raw[1])


def test_a_branch_learns_what_its_features_say():
    train, test = seen_of(4096), {"test": seen_of(256, seed=1)}
    trainer = Trainer({"name": "vectors"}, train, epochs=6, batch_size=64)
    trained = trainer(0, test, "test")
    rows = measured(test["test"], trained.rotations["test"]).state.rows
    truth = Rotation.from_matrix(test["test"].rotations)
    off = truth.inv() * Rotation.from_matrix(trained.rotations["test"])
    np.testing.assert_allclose(rows["geodesic"], np.rad2deg(off.magnitude()), atol=1e-3)
    assert rows["geodesic"].mean() < 15  # of random rotations: 126
    assert trained.curve[-1][0] == 6 * 4096
    assert trained.curve[-1][1] < trained.curve[0][1]


def test_histograms_tell_upright_from_level_edges():
    upright = np.zeros((64, 64), np.uint8)
    upright[:, 32:] = 200
    cells = {name: pose_branches._histogram(i) for name, i in (("|", upright), ("-", upright.T))}
    strongest = {name: h.reshape(64, 9).sum(axis=0).argmax() for name, h in cells.items()}
    assert strongest == {"|": 0, "-": 4}  # gradients at 0 and at 90 degrees, 20 a bin
