"""The multitask loss against loops over images, cells, anchors and truths.

All batches have the same shape (two images, six slots, two classes), so that each representation
compiles once for the whole file.
"""

from functools import cache

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.anchors import make_grid
from mtnet_jax.data.batches import touched_cells
from mtnet_jax.losses import IOU_LOSSES, LossWeights, heading_loss, multitask_loss
from mtnet_jax.representations import VECTOR_LOSSES, make_representation
from mtnet_jax.targets import AssignOptions, Truths
from tests import slow_loops

SIZE = 64  # 2 x 2, 4 x 4 and 8 x 8 cells, 252 predictions
GRID = make_grid(SIZE)
IMAGES, SLOTS, CLASSES = 2, 6, 2
POSE = 5 + CLASSES  # the first pose channel
POSE_SIZE = {"euler": 3, "vectors": 9, "sixd": 6, "quaternion": 4}
WEIGHTS = LossWeights(alpha=0.3, xy=1.5, wh=0.7, obj=1.2, cls=0.4, heading=0.6, iou=0.9)
PARTS = ("xy", "wh", "iou", "obj", "cls", "pose", "heading")


@cache
def compiled(name, kind="squared"):
    """Jitted (outputs, truths, weights = WEIGHTS) -> ((loss, parts), gradient of the outputs)."""
    representation = make_representation(name, vector_loss=kind)

    def loss(outputs, truths, weights):
        return multitask_loss(
            outputs,
            truths,
            grid=GRID,
            representation=representation,
            weights=weights,
            iou_loss="giou",  # all of whose gradient the loops' differences see
        )

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda outputs, truths, weights=WEIGHTS: run(outputs, truths, weights)


def random_outputs(rng, name):
    channels = POSE + POSE_SIZE[name]
    return [
        rng.normal(size=(IMAGES, SIZE // s, SIZE // s, 3, channels)).astype(np.float32)
        for s in (32, 16, 8)
    ]


def random_truths(rng):
    shape = (IMAGES, SLOTS)
    centre = rng.uniform(0, SIZE, (*shape, 2))
    extent = np.exp(rng.uniform(np.log(2), np.log(60), (*shape, 2)))
    boxes = np.clip(np.concatenate([centre - extent / 2, centre + extent / 2], axis=-1), 0, SIZE)
    yaw = rng.uniform(-179, 179, IMAGES * SLOTS)
    pitch, roll = rng.uniform(-70, 70, (2, IMAGES * SLOTS))
    rotations = Rotation.from_euler("XYZ", np.stack([-pitch, yaw, roll], axis=1), degrees=True)
    has_pose = rng.random(shape) < 0.7
    matrices = rotations.as_matrix().reshape(*shape, 3, 3)
    return Truths(
        boxes=boxes.astype(np.float32),
        rotations=np.where(has_pose[..., None, None], matrices, np.eye(3)).astype(np.float32),
        has_pose=has_pose,
        ignore=rng.random(shape) < 0.2,
        labels=rng.integers(0, CLASSES, shape).astype(np.int32),
        valid=rng.random(shape) < 0.9,
        headings=rng.uniform(-180, 180, shape).astype(np.float32),
        has_heading=rng.random(shape) < 0.6,
    )


def truths_of(*boxes, has_pose=True, ignore=False, headings=None):
    """The first image shows these heads, the second one none. All look straight ahead, but for
    the headings."""
    truths = Truths(
        boxes=np.zeros((IMAGES, SLOTS, 4), np.float32),
        rotations=np.tile(np.eye(3, dtype=np.float32), (IMAGES, SLOTS, 1, 1)),
        has_pose=np.ones((IMAGES, SLOTS), bool),
        ignore=np.zeros((IMAGES, SLOTS), bool),
        labels=np.zeros((IMAGES, SLOTS), np.int32),
        valid=np.zeros((IMAGES, SLOTS), bool),
        headings=np.zeros((IMAGES, SLOTS), np.float32),
        has_heading=np.zeros((IMAGES, SLOTS), bool),
    )
    given = (0, slice(len(boxes)))
    truths.boxes[given], truths.valid[given] = boxes, True
    truths.has_pose[given], truths.ignore[given] = has_pose, ignore
    if headings is not None:
        truths.headings[given], truths.has_heading[given] = headings, True
    return truths


def around(x, y, width, height):
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def at(outputs, place, image=0):
    """The channels of one prediction."""
    level, row, column, anchor = place
    return outputs[level][image, row, column, anchor]


def place_of(box):
    return slow_loops.place_of(np.asarray(box, np.float64), SIZE)


def slow(outputs, truths, name, weights=WEIGHTS):
    return slow_loops.multitask_loss(
        outputs,
        truths,
        size=SIZE,
        pose_size=POSE_SIZE[name],
        name=name,
        weights=weights,
        iou_loss="giou",
    )


def check(outputs, truths, name, weights=WEIGHTS):
    """Compares loss, parts and counts with the loops. Returns the counts and the gradient."""
    (loss, aux), gradient = compiled(name)(outputs, truths, weights)
    expected_loss, parts, counts = slow(outputs, truths, name, weights)
    for part in PARTS:
        np.testing.assert_allclose(aux[part], parts[part], rtol=2e-5, atol=1e-6, err_msg=part)
    for count in ("positives", "posed", "headed", "shadowed"):
        assert aux[count] == counts[count], count
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)
    assert all(np.isfinite(g).all() for g in gradient)
    return counts, [np.asarray(g) for g in gradient]


@pytest.mark.parametrize("kind", IOU_LOSSES)
def test_losses_of_overlap_are_as_in_the_loops(kind):
    rng = np.random.default_rng(4)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    put_predictions_on_truths(rng, outputs, truths)
    weights = LossWeights(alpha=1.0, xy=0.0, wh=0.0, obj=0.0, cls=0.0, iou=2.0)

    def loss(outputs, truths):
        return multitask_loss(
            outputs,
            truths,
            grid=GRID,
            representation=make_representation("vectors"),
            weights=weights,
            iou_loss=kind,
        )[0]

    found, gradient = jax.jit(jax.value_and_grad(loss))(outputs, truths)
    expected, parts, _ = slow_loops.multitask_loss(
        outputs, truths, size=SIZE, pose_size=9, name="vectors", weights=weights, iou_loss=kind
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert found == pytest.approx(2 * parts["iou"], rel=1e-4)
    assert 0 < parts["iou"] < 2
    # A step along the gradient makes the boxes better, by about as much as it says.
    step = 1e-3 / sum((np.asarray(g) ** 2).sum() for g in gradient)
    moved = [o - step * np.asarray(g) for o, g in zip(outputs, gradient, strict=True)]
    assert loss(moved, truths) == pytest.approx(float(found) - 1e-3, abs=2e-4)


@pytest.mark.parametrize("seed", range(3))
def test_several_anchors_a_truth_train_as_in_the_loops(seed):
    rng = np.random.default_rng(seed)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    loss, parts = multitask_loss(
        outputs,
        truths,
        grid=GRID,
        representation=make_representation("vectors"),
        weights=WEIGHTS,
        assign=AssignOptions(positives=3, shape_iou=0.3),
    )
    expected, slow_parts, counts = slow_loops.multitask_loss(
        outputs,
        truths,
        size=SIZE,
        pose_size=9,
        name="vectors",
        weights=WEIGHTS,
        positives=3,
        threshold=0.3,
    )
    one = slow(outputs, truths, "vectors")[2]
    assert counts["positives"] > one["positives"]
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    for part in PARTS:
        np.testing.assert_allclose(parts[part], slow_parts[part], rtol=2e-5, err_msg=part)
    for count in ("positives", "posed", "headed", "shadowed"):
        assert parts[count] == counts[count], count


def put_predictions_on_truths(rng, outputs, truths):
    """Half of the predictions whose cell holds a truth's centre come to lie on its box, roughly."""
    for b, i in zip(*np.nonzero(truths.valid), strict=True):
        box = truths.boxes[b, i].astype(np.float64)
        for place in slow_loops.all_places(SIZE):
            level, row, column, _ = place
            stride = slow_loops.STRIDES[level]
            x = (box[0] + box[2]) / 2 / stride - column
            y = (box[1] + box[3]) / 2 / stride - row
            if 0.02 < x < 0.98 and 0.02 < y < 0.98 and rng.random() < 0.5:
                exact = slow_loops.raw_of(box, place, SIZE)
                at(outputs, place, b)[:4] = exact + rng.normal(0, 0.2, 4)


@pytest.mark.parametrize("name", POSE_SIZE)
def test_random_batches_against_loops(name):
    rng = np.random.default_rng(5)
    total = dict.fromkeys(("positives", "posed", "headed", "shadowed", "neutral"), 0)
    for n in range(6):
        outputs, truths = random_outputs(rng, name), random_truths(rng)
        truths.boxes[0, :2] = truths.boxes[0, 2] + rng.uniform(0, 0.3, (2, 4))
        truths.valid[1] &= n % 3 > 0  # now and then an image shows no head
        put_predictions_on_truths(rng, outputs, truths)
        counts, _ = check(outputs, truths, name)
        total = {key: total[key] + counts[key] for key in total}
    # The comparison means something only where all kinds were met.
    assert total["positives"] > total["posed"] > 20
    assert total["positives"] - total["posed"] > total["headed"] > 5
    assert total["neutral"] > 20
    assert total["shadowed"] > 3


@pytest.mark.parametrize("name", POSE_SIZE)
def test_gradient_against_differences_of_the_loops(name):
    rng = np.random.default_rng(6)
    outputs, truths = random_outputs(rng, name), random_truths(rng)
    truths.valid[0], truths.ignore[0], truths.has_pose[0] = True, False, True
    truths.has_pose[0, 0], truths.ignore[0, 1] = False, True
    truths.has_heading[0, 0] = True
    _, gradient = compiled(name)(outputs, truths)
    exact = [o.astype(np.float64) for o in outputs]
    truth_places = [place_of(box) for box in truths.boxes[0]]
    for place in [*truth_places[:4], (0, 0, 0, 0), (2, 5, 6, 1)]:
        values = at(exact, place)
        # One step in all channels, each with a weight of its own, says as much as one in each.
        direction = rng.normal(size=values.shape) * 1e-5
        values += direction
        forward = slow(exact, truths, name)[0]
        values -= 2 * direction
        backward = slow(exact, truths, name)[0]
        values += direction
        slope = np.sum(at(gradient, place) * direction) * 2
        np.testing.assert_allclose(slope, forward - backward, rtol=1e-3, atol=1e-10)


def test_default_weights():
    assert LossWeights() == (0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 0.0)
    rng = np.random.default_rng(7)
    check(random_outputs(rng, "vectors"), random_truths(rng), "vectors", LossWeights())


# --- Images without heads -----------------------------------------------------------------------


@pytest.mark.parametrize("name", POSE_SIZE)
def test_a_batch_without_any_truth(name):
    rng = np.random.default_rng(8)
    outputs, truths = random_outputs(rng, name), random_truths(rng)
    truths.valid[:] = False
    counts, gradient = check(outputs, truths, name)
    assert counts["positives"] == counts["neutral"] == 0
    for g in gradient:
        assert (g[..., 4] > 0).all()  # every objectness is pushed down,
        assert not np.delete(g, 4, axis=-1).any()  # and nothing else is touched


def test_only_ignored_heads():
    rng = np.random.default_rng(9)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    truths.ignore[:] = True
    counts, gradient = check(outputs, truths, "vectors")
    assert counts["positives"] == 0
    places = {(b, place_of(truths.boxes[b, i])) for b, i in np.argwhere(truths.valid)}
    assert counts["neutral"] >= len(places) > 5
    assert not any(np.delete(g, 4, axis=-1).any() for g in gradient)


# --- Who counts -----------------------------------------------------------------------------------


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


# --- Headings ------------------------------------------------------------------------------------


ROWS = 128  # of answers at once, so that each representation compiles once


@cache
def encoded(name):
    """Jitted rotations -> raw answers and where these face."""
    representation = make_representation(name)
    encode = jax.jit(lambda r: (raw := representation.encode(r), representation.facing(raw)))

    def run(rotations):
        rows = np.tile(np.eye(3, dtype=np.float32), (ROWS, 1, 1))
        rows[: len(rotations)] = rotations
        return tuple(np.asarray(found)[: len(rotations)] for found in encode(rows))

    return run


@cache
def headed(name):
    """Jitted (raw answers, headings) -> (heading losses, gradient of the answers, facing)."""
    facing = make_representation(name).facing

    def total(raw, headings):
        losses = heading_loss(facing(raw), headings)
        return losses.sum(), (losses, facing(raw))

    gradient = jax.jit(jax.grad(total, has_aux=True))

    def run(raw, headings):
        count = len(raw)
        rows = np.zeros((ROWS, POSE_SIZE[name]), np.float32), np.zeros(ROWS, np.float32)
        rows[0][:count], rows[1][:count] = raw, headings
        found, (losses, faces) = gradient(*rows)
        return tuple(np.asarray(x)[:count] for x in (losses, found, faces))

    return run


def level(headings):
    """Rotations of heads that look level, by scipy."""
    return Rotation.from_euler("Y", np.reshape(headings, (-1, 1)), degrees=True).as_matrix()


def angle_between(a, b):
    """Degrees from 0 to 180 between two headings, by the arithmetic of a clock."""
    return np.abs((np.asarray(a) - b + 180) % 360 - 180)


def heading_of(columns):
    return np.degrees(np.arctan2(columns[:, 0], columns[:, 2]))


@pytest.mark.parametrize("name", POSE_SIZE)
def test_heading_loss_is_that_of_the_angle(name):
    """2 (1 - cos) of level heads: 0 at the truth, 1 at 60 degrees, 2 at 90, 4 behind."""
    seen, true = (v.ravel() for v in np.meshgrid(np.arange(-180, 180, 15), [-180, -90, 0, 7, 90]))
    raw, facing = encoded(name)(level(seen))
    np.testing.assert_allclose(facing, level(seen)[..., 2], atol=1e-5)
    losses, _, _ = headed(name)(raw, true)
    expected = 2 - 2 * np.cos(np.radians(angle_between(seen, true)))
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    by_hand = {0: 0, 60: 1, 90: 2, 180: 4}
    raw, _ = encoded(name)(level(list(by_hand)))
    losses, _, _ = headed(name)(raw, np.zeros(4))
    np.testing.assert_allclose(losses, list(by_hand.values()), atol=1e-5)


@pytest.mark.parametrize("name", POSE_SIZE)
def test_nod_and_length_have_no_part_in_the_heading_loss(name):
    """Heads that nod by up to 60 degrees count by where they face as seen from above."""
    rng = np.random.default_rng(30)
    yaw, pitch, roll = rng.uniform(-1, 1, (3, 60)) * [[180], [60], [60]]
    rotations = Rotation.from_euler("XYZ", np.stack([-pitch, yaw, roll], axis=1), degrees=True)
    rotations = rotations.as_matrix()
    raw, _ = encoded(name)(rotations)
    if name != "euler":  # any length says the same
        raw = raw * 3
    headings = rng.uniform(-180, 180, 60)
    losses, _, _ = headed(name)(raw, headings)
    off = angle_between(heading_of(rotations[..., 2]), headings)
    np.testing.assert_allclose(losses, 2 - 2 * np.cos(np.radians(off)), atol=1e-4)


@pytest.mark.parametrize("name", POSE_SIZE)
def test_descent_on_the_heading_loss_turns_the_face_to_the_truth(name):
    """From answers that look 40 degrees past it, small steps bring them there."""
    headings = np.array([-170, -90, -20, 45, 120])
    raw, _ = encoded(name)(level(headings + 40))
    before, _, _ = headed(name)(raw, headings)
    np.testing.assert_allclose(before, 2 - 2 * np.cos(np.radians(40)), atol=1e-4)
    rate = 0.02 if name == "euler" else 0.2  # a unit of Euler's yaw is half a turn
    for _ in range(150):
        raw = raw - rate * headed(name)(raw, headings)[1]
    losses, _, facing = headed(name)(raw, headings)
    assert losses.max() < 1e-3
    assert angle_between(heading_of(facing), headings).max() < 2


@pytest.mark.parametrize("name", POSE_SIZE)
def test_the_gradient_of_the_heading_loss_is_finite_at_zeros(name):
    losses, gradient, _ = headed(name)(np.zeros((3, POSE_SIZE[name])), [0, 60, 180])
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    # Zero vectors look nowhere: the first step goes where they should look.
    step = -headed("vectors")(np.zeros((1, 9)), [60])[1][0]
    expected = [0, 0, 0, 0, 0, 0, np.sin(np.radians(60)), 0, 0.5]
    np.testing.assert_allclose(step / np.linalg.norm(step), expected, atol=1e-5)
    # Nor is it infinite where a face looks straight up or down and has no heading.
    up = Rotation.from_euler("X", [[90], [-90]], degrees=True).as_matrix()
    assert np.isfinite(headed(name)(encoded(name)(up)[0], [60, 60])[1]).all()


@pytest.mark.parametrize("name", POSE_SIZE)
def test_a_heading_trains_where_its_head_is_and_nothing_else(name):
    outputs = random_outputs(np.random.default_rng(31), name)
    boxes = around(20, 20, 10, 20), around(50, 30, 30, 30)
    truths = truths_of(*boxes, has_pose=[True, False], headings=[30, -100])
    counts, gradient = check(outputs, truths, name)
    assert (counts["positives"], counts["posed"], counts["headed"]) == (2, 1, 1)
    assert at(gradient, place_of(boxes[1]))[POSE:].any()
    # With no pose known at all, the heading has its place: (1 - alpha) lambda L_heading.
    alone = truths_of(boxes[1], has_pose=False, headings=[-100])
    (loss, parts), gradient = compiled(name)(outputs, alone)
    assert (parts["posed"], parts["headed"], parts["pose"]) == (0, 1, 0)
    bbox = sum(getattr(WEIGHTS, part) * parts[part] for part in ("xy", "wh", "iou", "obj", "cls"))
    expected = WEIGHTS.alpha * bbox + (1 - WEIGHTS.alpha) * WEIGHTS.heading * parts["heading"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    answer = at(outputs, place_of(boxes[1]))[POSE:]
    np.testing.assert_allclose(
        parts["heading"],
        slow_loops.heading_loss(name, answer.astype(np.float64), -100),
        rtol=2e-5,
        atol=1e-6,
    )
    touched = [g[..., POSE:].any(axis=-1).sum() for g in map(np.asarray, gradient)]
    assert sum(touched) == 1


@pytest.mark.parametrize("name", POSE_SIZE)
def test_a_head_with_a_pose_ignores_its_heading(name):
    rng = np.random.default_rng(32)
    outputs, truths = random_outputs(rng, name), random_truths(rng)
    truths.has_pose[:] = True
    (loss, parts), gradient = compiled(name)(outputs, truths)
    assert parts["headed"] == parts["heading"] == 0
    assert parts["posed"] > 3
    for headings in (truths.headings + 50, truths.headings * np.nan):
        other = truths._replace(headings=headings, has_heading=~truths.has_heading)
        (again, again_parts), again_gradient = compiled(name)(outputs, other)
        assert again == loss
        assert again_parts == parts
        for one, two in zip(again_gradient, gradient, strict=True):
            np.testing.assert_array_equal(one, two)


def test_headings_that_train_nothing_are_not_read():
    """A compiler may drop what has a weight of 0; without one, a NaN there would reach the loss."""
    rng = np.random.default_rng(35)
    outputs, truths = random_outputs(rng, "vectors"), random_truths(rng)
    truths.valid[:, -1] = False
    expected = compiled("vectors")(outputs, truths)[0][0]
    unread = ~truths.valid | truths.has_pose | ~truths.has_heading | truths.ignore
    truths.headings[unread] = np.nan
    loss, _ = multitask_loss(
        outputs,
        truths,
        grid=GRID,
        representation=make_representation("vectors"),
        weights=WEIGHTS,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["vectors", "euler"])
def test_without_headings_the_loss_is_that_of_the_paper(name):
    """None, none known, and alpha L_bbox + (1 - alpha) L_pose are one number."""
    rng = np.random.default_rng(33)
    outputs, truths = random_outputs(rng, name), random_truths(rng)
    zeros = truths._replace(
        headings=np.zeros_like(truths.headings), has_heading=np.zeros_like(truths.has_heading)
    )
    absent = truths._replace(headings=None, has_heading=None)
    (loss, parts), gradient = compiled(name)(outputs, zeros)
    (other, other_parts), other_gradient = compiled(name)(outputs, absent)
    assert loss == other
    assert parts == other_parts
    for one, two in zip(gradient, other_gradient, strict=True):
        np.testing.assert_array_equal(one, two)
    assert parts["posed"] > 2
    bbox = sum(getattr(WEIGHTS, part) * parts[part] for part in ("xy", "wh", "iou", "obj", "cls"))
    expected = WEIGHTS.alpha * bbox + (1 - WEIGHTS.alpha) * parts["pose"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("lambda_heading", [0.0, 1.0, 5.0])
def test_posed_and_headed_heads_are_one_mean(lambda_heading):
    """Each head weighs the same, however many of the other kind there are."""
    outputs = random_outputs(np.random.default_rng(34), "vectors")
    boxes = [around(x, y, 8, 10) for x, y in ((10, 10), (30, 10), (50, 10), (10, 40), (30, 40))]
    weights = LossWeights(alpha=0.0, heading=lambda_heading)
    posed = np.array([True, True, False, False, False])
    headings = [0, 0, 90, -45, 170]
    truths = truths_of(*boxes, has_pose=posed, headings=headings)
    check(outputs, truths, "vectors", weights)
    (loss, _), _ = compiled("vectors")(outputs, truths, weights)
    total = 0.0
    for box, known, heading in zip(boxes, posed, headings, strict=True):
        answer = at(outputs, place_of(box))[POSE:].astype(np.float64)
        if known:
            total += slow_loops.pose_loss("vectors", answer, np.eye(3))
        else:
            total += lambda_heading * slow_loops.heading_loss("vectors", answer, heading)
    np.testing.assert_allclose(loss, total / 5, rtol=1e-5)


# --- Numbers at the edge --------------------------------------------------------------------------

BORDER_BOXES = {
    "centre on the right and lower border": (54, 54, 74, 74),
    "centre on the upper border": (22, -20, 30, 20),
    "centre in the corner": (-10, -10, 10, 10),
    "centre outside": (70, 20, 90, 44),
    "larger than the image": (-200, -200, 300, 300),
    "the image": (0, 0, 64, 64),
}


@pytest.mark.parametrize("box", BORDER_BOXES.values(), ids=BORDER_BOXES)
def test_boxes_at_and_beyond_the_border(box):
    outputs = random_outputs(np.random.default_rng(19), "vectors")
    check(outputs, truths_of(box), "vectors")
    _, parts = compiled("vectors")(outputs, truths_of(box))[0]
    assert parts["xy"] > 0
    assert parts["wh"] > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "squared") for name in POSE_SIZE), *(("vectors", k) for k in VECTOR_LOSSES[1:])],
)
def test_gradient_is_finite_everywhere(name, kind):
    rng = np.random.default_rng(20)
    truths = random_truths(rng)
    random = random_outputs(rng, name)
    at_truth = [o.copy() for o in random]
    targets = jax.jit(make_representation(name).encode)(truths.rotations)
    for b, i in zip(*np.nonzero(truths.valid), strict=True):
        at(at_truth, place_of(truths.boxes[b, i]), b)[POSE:] = targets[b, i]
    truths.boxes[0, 0] = (5, 5, 5, 5)  # a head without size
    scaled = [[o * np.float32(s) for o in random] for s in (0, 1e-20, 1, 1e2, 1e4)]
    for outputs in (at_truth, *scaled):
        (loss, parts), gradient = compiled(name, kind)(outputs, truths)
        assert np.isfinite(loss)
        assert all(np.isfinite(value) for value in parts.values())
        assert all(np.isfinite(g).all() for g in gradient)


def test_the_perfect_answer_costs_nothing():
    rng = np.random.default_rng(21)
    truths = random_truths(rng)
    truths.valid[:], truths.ignore[:], truths.has_pose[:] = True, False, True
    outputs = random_outputs(rng, "vectors")
    for level in outputs:
        level[..., 4] = -30
    for b, i in np.ndindex(IMAGES, SLOTS):
        box = truths.boxes[b, i].astype(np.float64)
        place = place_of(box)
        answer = at(outputs, place, b)
        answer[:4], answer[4] = slow_loops.raw_of(box, place, SIZE), 30
        answer[5:POSE] = np.where(np.arange(CLASSES) == truths.labels[b, i], 30, -30)
        answer[POSE:] = truths.rotations[b, i].T.ravel()
    (loss, parts), _ = compiled("vectors")(outputs, truths)
    assert parts["positives"] == IMAGES * SLOTS
    assert loss < 1e-6


def test_one_compilation_for_any_number_of_heads():
    rng = np.random.default_rng(22)
    traces = []

    @jax.jit
    def loss(outputs, truths):
        traces.append(len(truths))
        return multitask_loss(
            outputs,
            truths,
            grid=GRID,
            representation=make_representation("vectors"),
            weights=WEIGHTS,
        )

    for heads in (0, 1, 4, SLOTS):
        valid = np.tile(np.arange(SLOTS) < heads, (IMAGES, 1))
        loss(random_outputs(rng, "vectors"), random_truths(rng)._replace(valid=valid))
    assert len(traces) == loss._cache_size() == 1


def test_the_loss_of_one_class_equals_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no twin to compare with")
    from tests import torch_loss

    for seed in range(5):
        rng = np.random.default_rng(seed)
        outputs = [output[..., 1:] for output in random_outputs(rng, "vectors")]  # one class less
        truths = random_truths(rng)._replace(
            labels=np.zeros((IMAGES, SLOTS), np.int32),
            has_heading=np.zeros((IMAGES, SLOTS), bool),  # the twin knows none
        )
        loss, _ = multitask_loss(
            outputs,
            truths,
            grid=GRID,
            representation=make_representation("vectors"),
            weights=LossWeights(alpha=0.3),
        )
        theirs = torch_loss.multitask_loss(
            [torch.from_numpy(output) for output in outputs],
            {n: torch.from_numpy(v) for n, v in truths._asdict().items() if v is not None},
            torch.from_numpy(GRID.level_anchors_wh),
            SIZE,
            alpha=0.3,
        )
        assert float(loss) == pytest.approx(float(theirs), rel=1e-5)
