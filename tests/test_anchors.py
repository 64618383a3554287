"""The grid of predictions, boxes of raw outputs, and fitted anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.anchors import (
    COCO_ANCHORS,
    Place,
    cluster_anchors,
    decode_boxes,
    flatten_outputs,
    make_grid,
    mean_best_iou,
)
from tests import slow_loops

OTHER_ANCHORS = (
    (90, 90), (80, 130), (200, 190),
    (40, 40), (50, 70), (60, 60),
    (8, 8), (12, 20), (30, 25),
)  # fmt: skip


@pytest.mark.parametrize("size", [32, 96, 416])
@pytest.mark.parametrize("anchors", [COCO_ANCHORS, OTHER_ANCHORS])
def test_grid_against_a_loop(size, anchors):
    grid = make_grid(size, anchors)
    places = list(slow_loops.all_places(size))
    assert grid.places.cell.shape == (len(places), 2)
    scaled = slow_loops.anchors_for(size, anchors)
    np.testing.assert_array_equal(grid.places.cell, [(column, row) for _, row, column, _ in places])
    np.testing.assert_array_equal(grid.places.stride[:, 0], [(32, 16, 8)[p[0]] for p in places])
    np.testing.assert_allclose(grid.places.anchor_wh, [scaled[p[0], p[3]] for p in places])
    np.testing.assert_allclose(grid.level_anchors_wh, scaled)
    first = [slow_loops.flat_index((level, 0, 0, 0), size) for level in range(3)]
    np.testing.assert_array_equal(grid.level_offset, first)
    for field in grid.places:
        assert field.dtype == np.float32


def test_grid_at_416_has_the_predictions_of_yolov3():
    assert len(make_grid(416).places.cell) == 10647


@pytest.mark.parametrize("size", [0, -32, 100, 415])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(ValueError, match=f"{size}.*multiple of 32"):
        make_grid(size)


@pytest.mark.parametrize(
    "anchors",
    [
        COCO_ANCHORS[:6],
        [a for pair in COCO_ANCHORS for a in pair],
        [*COCO_ANCHORS[:8], (10, 0)],
        [*COCO_ANCHORS[:8], (10, -3)],
        [*COCO_ANCHORS[:8], (10, float("nan"))],
    ],
)
def test_anchors_that_do_not_fit(anchors):
    with pytest.raises(ValueError, match="nine pairs of positive"):
        make_grid(64, anchors)


def test_flatten_puts_every_prediction_at_its_place():
    size = 64
    # Each value names where it came from: image, level, row, column, anchor, channel.
    maps = [np.zeros((2, size // s, size // s, 3, 2, 6), np.float32) for s in (32, 16, 8)]
    for level, values in enumerate(maps):
        for at in np.ndindex(values.shape[:-1]):
            b, row, column, anchor, channel = at
            values[at] = (b, level, row, column, anchor, channel)
    flat = np.stack(
        [np.asarray(flatten_outputs([jnp.asarray(m[..., i]) for m in maps])) for i in range(6)],
        axis=-1,
    )
    assert flat.shape == (2, 252, 2, 6)
    for place in slow_loops.all_places(size):
        n = slow_loops.flat_index(place, size)
        for b in range(2):
            for channel in range(2):
                np.testing.assert_array_equal(flat[b, n, channel], (b, *place, channel))


def test_decode_boxes_against_a_loop():
    size = 96
    grid = make_grid(size, OTHER_ANCHORS)
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1.5, (2, len(grid.places.cell), 7)).astype(np.float32)
    actual = jax.jit(lambda r: decode_boxes(r, grid.at(jnp.arange(r.shape[1])[None])))(raw)
    expected = [
        [
            slow_loops.box_of(raw[b, n].astype(np.float64), place, size, OTHER_ANCHORS)
            for n, place in enumerate(slow_loops.all_places(size))
        ]
        for b in range(2)
    ]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


def test_a_box_encoded_by_hand_decodes_to_itself():
    size = 416
    grid = make_grid(size)
    rng = np.random.default_rng(1)
    boxes, raws, indices = [], [], []
    for _ in range(200):
        centre, shape = rng.uniform(1, 415, 2), rng.uniform(4, 400, 2)
        box = np.concatenate([centre - shape / 2, centre + shape / 2])
        place = slow_loops.place_of(box, size)
        boxes.append(box)
        raws.append(slow_loops.raw_of(box, place, size))
        indices.append(slow_loops.flat_index(place, size))
    decoded = jax.jit(lambda r, i: decode_boxes(r, grid.at(i)))(
        np.array([raws], np.float32), np.array([indices])
    )
    np.testing.assert_allclose(decoded[0], boxes, rtol=1e-4, atol=2e-2)


def test_decoded_boxes_and_their_gradient_stay_finite():
    grid = make_grid(32)
    raw = np.tile(np.array([[0, 100, -100, 1e30, -1e30]], np.float32).T, (1, 4))
    raw = np.concatenate([raw, raw[::-1] * np.array([1, -1, 1, -1], np.float32)])[None]
    place = Place(*(field[None, :10] for field in grid.places))
    decode_and_gradient = jax.jit(
        lambda r: (decode_boxes(r, place), jax.grad(lambda q: decode_boxes(q, place).sum())(r))
    )
    for values in decode_and_gradient(raw):
        assert np.isfinite(values).all()


# --- Fitted anchors ------------------------------------------------------------------------------

CENTRES = np.array(  # largest three first, each three by rising area, as a config wants them
    [(150, 150), (180, 260), (330, 300), (40, 60), (90, 60), (80, 110), (8, 10), (16, 14), (22, 34)]
)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found_and_ordered(seed):
    rng = np.random.default_rng(seed)
    sizes = np.repeat(CENTRES, rng.integers(40, 80, 9), axis=0)
    sizes = sizes * rng.uniform(0.95, 1.05, sizes.shape)
    anchors = cluster_anchors(rng.permutation(sizes), seed=seed)
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.03)
    assert make_grid(416, anchors).level_anchors_wh.shape == (3, 3, 2)


def test_fitted_anchors_of_scattered_boxes_are_ordered_and_beat_those_of_coco():
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.normal(3.5, 0.8, (400, 1))) * rng.uniform([0.8, 1.0], [1.0, 1.4], (400, 2))
    anchors = cluster_anchors(sizes)
    area = anchors.prod(axis=1).reshape(3, 3)
    assert (np.diff(area, axis=1) >= 0).all()
    assert area[0].min() >= area[1].max() >= area[1].min() >= area[2].max()
    assert mean_best_iou(sizes, anchors) > mean_best_iou(sizes, COCO_ANCHORS) + 0.05
    np.testing.assert_array_equal(anchors, cluster_anchors(sizes))  # the same for the same seed


def test_clusters_of_few_different_shapes():
    anchors = cluster_anchors(np.tile([[10.0, 20.0], [30.0, 40.0]], (6, 1)))
    assert {tuple(a) for a in anchors} == {(10, 20), (30, 40)}
    nine = cluster_anchors(CENTRES)
    np.testing.assert_array_equal(nine, CENTRES)


@pytest.mark.parametrize("count", [0, 1, 8])
def test_too_few_boxes_for_nine_anchors(count):
    with pytest.raises(ValueError, match=f"nine boxes, got {count}"):
        cluster_anchors(CENTRES[:count].reshape(-1, 2))


@pytest.mark.parametrize("bad", [(0, 10), (5, -1), (np.nan, 4), (np.inf, 4)])
def test_a_box_without_size_is_refused(bad):
    with pytest.raises(ValueError, match=r"1 of 10.*positive"):
        cluster_anchors(np.vstack([CENTRES, [bad]]))


def test_mean_best_iou_against_a_loop():
    rng = np.random.default_rng(4)
    sizes = rng.uniform(5, 300, (50, 2))
    best = [max(slow_loops.shape_iou(s, a) for a in COCO_ANCHORS) for s in sizes]
    np.testing.assert_allclose(mean_best_iou(sizes, COCO_ANCHORS), np.mean(best))
    assert mean_best_iou(np.array(COCO_ANCHORS), COCO_ANCHORS) == 1
