"""The multitask loss against loops over images, cells, anchors and truths.

All batches have the same shape (two images, six slots, two classes), so that each representation
compiles once for a whole file.
"""

import jax
import numpy as np
import pytest

from mtnet_jax.losses import IOU_LOSSES, LossWeights, multitask_loss
from mtnet_jax.representations import VECTOR_LOSSES, make_representation
from mtnet_jax.targets import AssignOptions
from tests import slow_loops
from tests.losses import (
    CLASSES,
    GRID,
    IMAGES,
    PARTS,
    POSE,
    POSE_SIZE,
    SIZE,
    SLOTS,
    WEIGHTS,
    at,
    check,
    compiled,
    place_of,
    put_predictions_on_truths,
    random_outputs,
    random_truths,
    slow,
    truths_of,
)


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
