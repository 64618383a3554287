"""Which predictions and truths count in the multitask loss, against the loops."""

import jax
import numpy as np
import pytest

from mtnet_jax.data.batches import touched_cells
from mtnet_jax.losses import LossWeights
from mtnet_jax.targets import Truths
from tests import slow_loops
from tests.losses import (
    POSE,
    POSE_SIZE,
    SIZE,
    around,
    at,
    check,
    compiled,
    place_of,
    put_predictions_on_truths,
    random_outputs,
    random_truths,
    truths_of,
)


def test_sums_are_divided_by_the_positives_of_the_batch():
    rng = np.random.default_rng(11)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    truths.has_pose[0, ::2], truths.has_heading[0] = False, True
    for array in jax.tree.leaves((outputs, truths)):
        array[1] = array[0]
    _, twice = compiled("vectors")(outputs, truths)[0]
    alone = truths._replace(valid=truths.valid & np.array([[True], [False]]))
    _, once = compiled("vectors")(outputs, alone)[0]
    assert twice["positives"] == 2 * once["positives"] > 2
    assert once["headed"] > 0
    for part in ("xy", "wh", "cls", "pose", "heading"):
        np.testing.assert_allclose(twice[part], once[part], rtol=1e-5)
    # An image without heads adds its background to the sum and nothing to the count (which is
    # larger than the number of images here).
    background = sum(np.logaddexp(0, o[1, ..., 4]).sum() for o in outputs) / once["positives"]
    np.testing.assert_allclose(once["obj"], twice["obj"] + background, rtol=1e-5)


def test_a_batch_without_heads_weighs_no_more_than_one_with_heads():
    """The same background, sixteen images: without heads, and with one head in each."""
    rng = np.random.default_rng(14)
    outputs = [np.concatenate(8 * [o]) for o in random_outputs(rng, "vectors")]
    one = truths_of(around(20, 20, 10, 20))._asdict().items()  # in the first of two images
    some = Truths(**{n: np.repeat(a[:1], 16, axis=0) for n, a in one if a is not None})
    none = some._replace(valid=np.zeros_like(some.valid))
    with_heads, without = (compiled("vectors")(outputs, t)[0][1] for t in (some, none))
    assert len(some.valid) == len(outputs[0]) == 16 == with_heads["positives"]
    np.testing.assert_allclose(without["obj"], with_heads["obj"], rtol=0.05)


def test_a_head_without_a_slot_is_no_background():
    """Its prediction learns nothing; with a slot it is pushed up, as background down."""
    outputs = random_outputs(np.random.default_rng(15), "vectors")
    kept, beyond = around(20, 20, 10, 20), around(50, 30, 30, 30)
    both = truths_of(kept, beyond)
    one = truths_of(kept)
    cells = touched_cells(np.array([beyond], np.float32), SIZE)[None]
    pushed = {}
    for name, truths in {
        "slot": both,
        "background": one,
        "no slot": one._replace(unlabelled=cells),
    }.items():
        gradient = compiled("vectors")(outputs, truths)[1]
        pushed[name] = float(at(gradient, place_of(beyond))[4])
    assert pushed["slot"] < 0 < pushed["background"]
    assert pushed["no slot"] == 0


def test_of_three_heads_at_one_place_only_the_largest_counts():
    outputs = random_outputs(np.random.default_rng(12), "vectors")
    small, middle, large = (around(20, 20, s, 2 * s) for s in (4.75, 5.0, 5.25))
    assert place_of(small) == place_of(middle) == place_of(large)
    counts, gradient = check(outputs, truths_of(middle, large, small), "vectors")
    assert (counts["positives"], counts["shadowed"]) == (1, 2)
    _, alone = check(outputs, truths_of(large), "vectors")
    np.testing.assert_array_equal(at(gradient, place_of(large)), at(alone, place_of(large)))


@pytest.mark.parametrize("unknown", [1.0, 0.0, np.nan])
@pytest.mark.parametrize("name", POSE_SIZE)
def test_unlabelled_poses_add_no_pose_loss(name, unknown):
    outputs = random_outputs(np.random.default_rng(13), name)
    boxes = around(20, 20, 10, 20), around(50, 30, 30, 30)
    at(outputs, place_of(boxes[1]))[POSE:] *= 1e30  # even where its square is infinite
    truths = truths_of(*boxes, has_pose=[True, False])
    truths.rotations[0, 1] *= np.float32(unknown)
    counts, gradient = check(outputs, truths, name)
    assert (counts["positives"], counts["posed"]) == (2, 1)
    labelled, unlabelled = (at(gradient, place_of(box)) for box in boxes)
    assert labelled[POSE:].all()
    assert not unlabelled[POSE:].any()
    assert unlabelled[:POSE].all()
    # Nobody's pose is known: that part is 0 and touches nothing.
    (_, parts), gradient = compiled(name)(outputs, truths_of(*boxes, has_pose=False))
    assert parts["pose"] == parts["posed"] == 0
    assert not any(np.asarray(g[..., POSE:]).any() for g in gradient)


def test_an_ignored_head_adds_nothing():
    outputs = random_outputs(np.random.default_rng(14), "vectors")
    other, ignored = around(20, 20, 10, 20), around(50, 40, 24, 24)
    own, near, far = place_of(ignored), (0, 1, 1, 0), (0, 0, 0, 0)
    assert own not in (near, far)
    # One more prediction lies on the ignored head; the one that would own it lies elsewhere.
    at(outputs, near)[:4] = slow_loops.raw_of(ignored, near, SIZE)
    at(outputs, own)[:4] = (0, 0, 4, 4)
    truths = truths_of(other, ignored, ignore=[False, True])
    counts, gradient = check(outputs, truths, "vectors")
    assert counts["positives"] == counts["posed"] == 1
    assert not at(gradient, near).any()
    assert not at(gradient, own).any()
    assert at(gradient, far)[4] > 0

    _, with_it = compiled("vectors")(outputs, truths)[0]
    _, without = compiled("vectors")(outputs, truths_of(other))[0]
    for part in ("xy", "wh", "cls", "pose", "positives"):
        assert with_it[part] == without[part]
    assert without["obj"] > with_it["obj"]

    # Whatever else it holds changes nothing.
    truths.rotations[0, 1], truths.labels[0, 1], truths.has_pose[0, 1] = np.nan, 1, False
    (_, again), after = compiled("vectors")(outputs, truths)
    assert again == with_it
    np.testing.assert_array_equal(at(after, place_of(other)), at(gradient, place_of(other)))
    # Nor does what the network says there.
    for place in (near, own):
        at(outputs, place)[4:] = 50
    assert compiled("vectors")(outputs, truths)[0][1] == with_it


def test_an_ignored_head_at_the_place_of_another_changes_nothing_there():
    outputs = random_outputs(np.random.default_rng(15), "vectors")
    larger, box = around(20, 20, 5.25, 10.5), around(20, 20, 5, 10)
    assert place_of(larger) == place_of(box)
    _, gradient = check(outputs, truths_of(larger, box, ignore=[True, False]), "vectors")
    _, alone = check(outputs, truths_of(box), "vectors")
    np.testing.assert_array_equal(at(gradient, place_of(box)), at(alone, place_of(box)))


@pytest.mark.parametrize(("overlap", "neutral"), [(0.51, True), (0.49, False)])
def test_predictions_on_a_head_are_neutral_above_an_iou_of_one_half(overlap, neutral):
    box, place = (12.0, 12, 44, 44), (1, 1, 1, 1)
    assert place != place_of(box)
    outputs = random_outputs(np.random.default_rng(16), "vectors")
    taller = around(28, 28, 32, 32 / overlap)
    at(outputs, place)[:4] = slow_loops.raw_of(taller, place, SIZE)
    _, gradient = check(outputs, truths_of(box), "vectors")
    assert (at(gradient, place)[4] == 0) == neutral
    assert not np.delete(at(gradient, place), 4).any()


def test_no_box_gradient_from_objectness():
    """The overlap that makes predictions neutral is a decision, nothing to descend on."""
    rng = np.random.default_rng(17)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    put_predictions_on_truths(rng, outputs, truths)
    weights = LossWeights(alpha=1.0, xy=0.0, wh=0.0, obj=1.0, cls=0.0)
    _, gradient = check(outputs, truths, "vectors", weights)
    assert not any(np.delete(g, 4, axis=-1).any() for g in gradient)


@pytest.mark.parametrize("name", POSE_SIZE)
def test_padding_never_contributes(name):
    rng = np.random.default_rng(18)
    outputs, truths = random_outputs(rng, name), random_truths(rng)
    truths.valid[:, -2:] = False
    # What padding is answered with is read, but never used.
    at(outputs, (0, 0, 0, 0), 0)[:4] = at(outputs, (0, 0, 0, 0), 1)[POSE:] = 1e30
    (loss, aux), gradient = compiled(name)(outputs, truths)
    assert np.isfinite(loss)
    empty = ~truths.valid
    for garbage in (1e3, -7.0, 3e38, np.inf, np.nan):
        changed = Truths(
            boxes=np.where(empty[..., None], np.float32(garbage), truths.boxes),
            rotations=np.where(empty[..., None, None], np.float32(garbage), truths.rotations),
            has_pose=truths.has_pose ^ empty,
            ignore=truths.ignore ^ empty,
            labels=np.where(empty, 77, truths.labels),
            valid=truths.valid,
            headings=np.where(empty, np.float32(garbage), truths.headings),
            has_heading=truths.has_heading ^ empty,
        )
        (changed_loss, changed_aux), changed_gradient = compiled(name)(outputs, changed)
        assert changed_loss == loss
        assert changed_aux == aux
        for actual, expected in zip(changed_gradient, gradient, strict=True):
            np.testing.assert_array_equal(actual, expected)
