"""Anchor assignment against loops over truths, cells and anchors."""

import jax
import numpy as np
import pytest

from mtnet_jax.anchors import COCO_ANCHORS, make_grid
from mtnet_jax.targets import AssignOptions, Truths, assign_anchors, check_assign_options
from tests import slow_loops

SIZE = 416
GRID = make_grid(SIZE)


def of_best_anchor(truths, grid):
    """The assignment with one prediction a truth, (B, M) each."""
    found = assign_anchors(truths, grid)
    return found._replace(flat_index=found.flat_index[..., 0], positive=found.positive[..., 0])


assign = jax.jit(lambda truths: of_best_anchor(truths, GRID))


def make_truths(boxes, valid=None, ignore=None):
    """Truths of (B, M, 4) boxes; what the assignment never reads is left at rest."""
    boxes = np.asarray(boxes, np.float32)
    shape = boxes.shape[:2]
    return Truths(
        boxes=boxes,
        rotations=np.tile(np.eye(3, dtype=np.float32), (*shape, 1, 1)),
        has_pose=np.ones(shape, bool),
        ignore=np.zeros(shape, bool) if ignore is None else np.asarray(ignore, bool),
        labels=np.zeros(shape, np.int32),
        valid=np.ones(shape, bool) if valid is None else np.asarray(valid, bool),
    )


def around(x, y, width, height):
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def expect(truths, size=SIZE, anchors=COCO_ANCHORS):
    """Index, positive and shadowed by the loops."""
    shape = truths.boxes.shape[:2]
    index, positive, shadowed = np.zeros(shape, int), np.zeros(shape, bool), np.zeros(shape, bool)
    for b in range(shape[0]):
        boxes = truths.boxes[b].astype(np.float64)
        places, owner, lost = slow_loops.assign(
            boxes, truths.valid[b], truths.ignore[b], size, anchors
        )
        index[b] = [0 if p is None else slow_loops.flat_index(p, size) for p in places]
        positive[b, list(owner.values())] = True
        shadowed[b, list(lost)] = True
    return index, positive, shadowed


def check(truths, actual, **grid):
    index, positive, shadowed = expect(truths, **grid)
    np.testing.assert_array_equal(actual.flat_index, index)
    np.testing.assert_array_equal(actual.positive, positive)
    np.testing.assert_array_equal(actual.shadowed, shadowed)


def test_random_truths():
    rng = np.random.default_rng(0)
    centre = rng.uniform(-10, SIZE + 10, (16, 24, 2))
    shape = np.exp(rng.uniform(np.log(4), np.log(400), (16, 24, 2)))
    # Half of them crowd round one point, so that many claim the same prediction.
    centre[:, 12:] = 200 + rng.uniform(-20, 20, (16, 12, 2))
    shape[:, 12:] = (30, 60) * rng.uniform(0.9, 1.1, (16, 12, 2))
    truths = make_truths(
        np.concatenate([centre - shape / 2, centre + shape / 2], axis=-1),
        valid=rng.random((16, 24)) < 0.7,
        ignore=rng.random((16, 24)) < 0.2,
    )
    actual = assign(truths)
    check(truths, actual)
    assert np.asarray(actual.shadowed).sum() > 20


@pytest.mark.parametrize(("positives", "threshold"), [(2, 0.0), (3, 0.4), (9, 0.3)])
def test_several_anchors_answer_for_a_truth(positives, threshold):
    rng = np.random.default_rng(2)
    centre = rng.uniform(0, SIZE, (6, 16, 2))
    centre[:, 8:] = 200 + rng.uniform(-12, 12, (6, 8, 2))  # many claim the same predictions
    shape = np.exp(rng.uniform(np.log(8), np.log(300), (6, 16, 2)))
    truths = make_truths(
        np.concatenate([centre - shape / 2, centre + shape / 2], axis=-1),
        valid=rng.random((6, 16)) < 0.8,
        ignore=rng.random((6, 16)) < 0.2,
    )
    options = AssignOptions(positives, threshold)
    actual = jax.jit(lambda t: assign_anchors(t, GRID, options))(truths)
    lost = 0
    for b in range(6):
        places, owner, shadowed = slow_loops.assign_several(
            truths.boxes[b].astype(np.float64),
            truths.valid[b],
            truths.ignore[b],
            SIZE,
            COCO_ANCHORS,
            positives,
            threshold,
        )
        for i, mine in enumerate(places):
            flat = [slow_loops.flat_index(place, SIZE) for place in mine]
            claimed = np.asarray(actual.claimed[b, i])
            np.testing.assert_array_equal(np.asarray(actual.flat_index[b, i])[claimed], flat)
            trained = np.asarray(actual.flat_index[b, i])[np.asarray(actual.positive[b, i])]
            expected = [slow_loops.flat_index(p, SIZE) for p in mine if owner.get(p) == i]
            np.testing.assert_array_equal(trained, expected)
            lost += len(mine) - len(expected)
        np.testing.assert_array_equal(np.flatnonzero(actual.shadowed[b]), sorted(shadowed))
    assert lost > 10  # some claims met


@pytest.mark.parametrize("options", [AssignOptions(0), AssignOptions(10), AssignOptions(2, 1.5)])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"config\.assign\."):
        check_assign_options(options)


def test_other_size_and_anchors():
    size, anchors = 96, tuple((w, h * 1.5) for w, h in COCO_ANCHORS)
    rng = np.random.default_rng(1)
    centre, shape = rng.uniform(0, size, (4, 30, 2)), rng.uniform(2, size, (4, 30, 2))
    truths = make_truths(np.concatenate([centre - shape / 2, centre + shape / 2], axis=-1))
    actual = jax.jit(lambda t: of_best_anchor(t, make_grid(size, anchors)))(truths)
    check(truths, actual, size=size, anchors=anchors)


def test_each_anchor_answers_for_its_own_shape():
    boxes = [around(208 + 1, 100 + 2, w, h) for w, h in COCO_ANCHORS]
    expected = []
    for level, stride in enumerate((32, 16, 8)):
        for anchor in range(3):
            place = (level, 102 // stride, 209 // stride, anchor)
            expected.append(slow_loops.flat_index(place, SIZE))
    np.testing.assert_array_equal(assign(make_truths([boxes])).flat_index[0], expected)


def test_centres_on_and_outside_the_border():
    ends = (-1e9, -50, -1, 0, 415.9, 416, 417, 500, 1e9)
    boxes = [around(x, y, 30, 61) for x in ends for y in ends]
    actual = assign(make_truths([boxes]))
    nearest = [0, 0, 0, 0, 25, 25, 25, 25, 25]  # stride 16: cells 0 to 25
    far = {-1e9, 1e9}  # there float32 loses the shape of the box, and with it the anchor
    for n, (x, y) in enumerate((x, y) for x in ends for y in ends):
        column, row = nearest[ends.index(x)], nearest[ends.index(y)]
        if not {x, y} & far:
            place = (1, row, column, 0)
            assert actual.flat_index[0, n] == slow_loops.flat_index(place, SIZE), (x, y)
    assert (np.asarray(actual.flat_index) >= 0).all()
    assert (np.asarray(actual.flat_index) < len(GRID.places.cell)).all()


def test_a_centre_on_the_line_belongs_to_the_cell_right_and_below():
    actual = assign(make_truths([[around(32, 64, 116, 90), around(31.75, 63.75, 116, 90)]]))
    expected = [slow_loops.flat_index(place, SIZE) for place in ((0, 2, 1, 0), (0, 1, 0, 0))]
    np.testing.assert_array_equal(actual.flat_index[0], expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_largest_of_three_in_one_cell_wins(order):
    three = [around(100, 100, s, 2 * s) for s in (30, 31, 32)]
    actual = assign(make_truths([[three[i] for i in order]]))
    assert len(set(np.asarray(actual.flat_index[0]).tolist())) == 1
    np.testing.assert_array_equal(actual.positive[0], [i == 2 for i in order])
    np.testing.assert_array_equal(actual.shadowed[0], [i != 2 for i in order])


def test_of_equal_boxes_the_first_wins():
    box = around(100, 100, 30, 60)
    other_place_same_cell = around(104, 98, 60, 30)
    actual = assign(make_truths([[box, box, box], [box, around(102, 101, 30, 60), box]]))
    np.testing.assert_array_equal(actual.positive, [[True, False, False]] * 2)
    np.testing.assert_array_equal(actual.shadowed, [[False, True, True]] * 2)
    # Equal area, but another anchor: both stay.
    both = assign(make_truths([[box, other_place_same_cell]]))
    np.testing.assert_array_equal(both.positive, [[True, True]])


def test_the_same_place_in_two_images_is_no_conflict():
    box, larger = around(100, 100, 30, 60), around(100, 100, 32, 64)
    actual = assign(make_truths([[box], [larger]]))
    np.testing.assert_array_equal(actual.positive, [[True], [True]])


def test_ignored_truths_are_never_positive_and_shadow_nobody():
    larger, box = around(100, 100, 32, 64), around(100, 100, 30, 60)
    actual = assign(make_truths([[larger, box]], ignore=[[True, False]]))
    assert actual.flat_index[0, 0] == actual.flat_index[0, 1]
    np.testing.assert_array_equal(actual.positive, [[False, True]])
    np.testing.assert_array_equal(actual.shadowed, [[False, False]])
    # The smaller one ignored: it is not shadowed either, there was nothing it could lose.
    actual = assign(make_truths([[larger, box]], ignore=[[False, True]]))
    np.testing.assert_array_equal(actual.positive, [[True, False]])
    np.testing.assert_array_equal(actual.shadowed, [[False, False]])


def test_padding_claims_nothing_whatever_it_holds():
    box = around(100, 100, 30, 60)
    for garbage in (around(100, 100, 32, 64), (0,) * 4, (np.nan,) * 4, (-np.inf, 0, np.inf, 1)):
        for ignore in (False, True):
            actual = assign(
                make_truths([[garbage, box]], valid=[[False, True]], ignore=[[ignore, False]])
            )
            assert actual.flat_index[0, 0] == 0
            np.testing.assert_array_equal(actual.positive, [[False, True]])
            np.testing.assert_array_equal(actual.shadowed, [[False, False]])


def test_no_truths_at_all():
    actual = assign(make_truths(np.zeros((2, 3, 4)), valid=np.zeros((2, 3))))
    for field in actual:
        assert not np.asarray(field).any()


def test_one_compilation_for_any_number_of_heads():
    rng = np.random.default_rng(2)
    compiled = jax.jit(lambda truths: of_best_anchor(truths, GRID))
    for heads in (0, 1, 5, 8):
        centre, shape = rng.uniform(0, SIZE, (2, 8, 2)), rng.uniform(5, 200, (2, 8, 2))
        truths = make_truths(
            np.concatenate([centre - shape / 2, centre + shape / 2], axis=-1),
            valid=np.tile(np.arange(8) < heads, (2, 1)),
        )
        check(truths, compiled(truths))
    assert compiled._cache_size() == 1
