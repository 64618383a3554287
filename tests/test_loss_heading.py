"""The loss of heads that know their heading alone, against the loops."""

from functools import cache

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.losses import LossWeights, heading_loss, multitask_loss
from mtnet_jax.representations import make_representation
from tests import slow_loops
from tests.losses import (
    GRID,
    POSE,
    POSE_SIZE,
    WEIGHTS,
    around,
    at,
    check,
    compiled,
    level,
    place_of,
    random_outputs,
    random_truths,
    truths_of,
)

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
        iou_loss="giou",
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
