"""Boxes against loops over pairs, in NumPy and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import boxes as box_ops
from tests import slow_loops


def random_boxes(rng, count, size=100.0):
    low = rng.uniform(-20, size, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.5, size / 2, (count, 2))], axis=1)


@pytest.fixture(params=["numpy", "jit"])
def call(request):
    """Calls a function on NumPy arrays as it is, or under jit."""
    return lambda f, *args: (f if request.param == "numpy" else jax.jit(f))(*args)


def test_formats_by_hand(call):
    xyxy = np.array([[[10.0, 20, 14, 30]], [[-4, 0, 0, 1]]])
    cxcywh = np.array([[[12.0, 25, 4, 10]], [[-2, 0.5, 4, 1]]])
    np.testing.assert_array_equal(call(box_ops.xyxy_to_cxcywh, xyxy), cxcywh)
    np.testing.assert_array_equal(call(box_ops.cxcywh_to_xyxy, cxcywh), xyxy)


def test_kind_and_precision_are_kept():
    assert isinstance(box_ops.xyxy_to_cxcywh(np.zeros((1, 4), np.float32)), np.ndarray)
    assert isinstance(box_ops.iou_xyxy(jnp.zeros((1, 4)), jnp.zeros((1, 4))), jax.Array)
    assert box_ops.iou_xyxy(np.zeros((1, 4)), np.zeros((1, 4))).dtype == np.float64


def test_iou_of_all_pairs_against_a_loop(call):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 40), random_boxes(rng, 30)
    b[:10] = a[:10] + rng.normal(0, 2, (10, 4))  # near duplicates
    b[10] = a[10]
    expected = np.array([[slow_loops.iou(x, y) for y in b] for x in a])
    actual = call(box_ops.iou_xyxy, a[:, None, :], b[None, :, :])
    assert actual.shape == (40, 30)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(actual[10, 10], 1, atol=1e-6)
    assert (expected > 0.5).sum() > 5


def test_iou_of_boxes_that_touch_or_have_no_area(call):
    box = np.array([[0.0, 0, 4, 4]])
    others = np.array(
        [
            [4.0, 0, 8, 4],  # touches with an edge
            [4, 4, 8, 8],  # touches with a corner
            [2, 2, 2, 3],  # no width
            [3, 3, 1, 1],  # inverted both ways: its negative sides must not multiply to an area
            [9, 9, 7, 7],
            [0, 0, 4, 8],
        ]
    )
    actual = call(box_ops.iou_xyxy, box, others)
    np.testing.assert_allclose(actual, [0, 0, 0, 0, 0, 0.5], atol=1e-7)
    np.testing.assert_array_equal(call(box_ops.area_xyxy, others), [16, 16, 0, 0, 0, 32])
    np.testing.assert_array_equal(call(box_ops.longer_side_xyxy, others), [4, 4, 1, 0, 0, 8])
    nothing = np.zeros((1, 4))
    np.testing.assert_array_equal(call(box_ops.iou_xyxy, nothing, nothing), [0])


def test_shape_iou_against_a_loop_and_centred_boxes(call):
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 50, (20, 2)), rng.uniform(1, 50, (9, 2))
    expected = np.array([[slow_loops.shape_iou(x, y) for y in b] for x in a])
    actual = call(box_ops.shape_iou, a[:, None, :], b[None, :, :])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    centred = np.array(
        [[slow_loops.iou([*-x / 2, *x / 2], [*-y / 2, *y / 2]) for y in b] for x in a]
    )
    np.testing.assert_allclose(actual, centred, rtol=1e-5)


def test_shape_iou_of_nothing_is_zero(call):
    nothing, something = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    np.testing.assert_array_equal(call(box_ops.shape_iou, nothing, something), [0])
    np.testing.assert_array_equal(call(box_ops.shape_iou, nothing, nothing), [0])


def test_no_boxes_at_all(call):
    none = np.zeros((0, 4))
    assert call(box_ops.xyxy_to_cxcywh, none).shape == (0, 4)
    assert call(box_ops.iou_xyxy, none[:, None, :], np.zeros((1, 3, 4))).shape == (0, 3)
