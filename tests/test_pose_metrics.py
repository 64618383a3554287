"""Errors of poses and headings against loops and scipy, and their bins."""

import json
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.evaluation.figures import euler_errors, vector_errors
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.rotations import euler_to_rotation
from tests.evaluations import a_pred, a_truth, canonical, random_pairs, slow_iou, slow_match


def slow_pose_errors(pairs, iou_threshold, score_threshold):
    errors = {"euler": [], "vectors": [], "geodesic": [], "yaw": []}
    for pred, truth in pairs:
        takes, _ = slow_match(pred, truth, iou_threshold)
        for i, j in takes.items():
            if pred["scores"][i] < score_threshold or not truth["has_pose"][j]:
                continue
            a, b = pred["rotations"][i].astype(float), truth["rotations"][j].astype(float)
            relative = Rotation.from_matrix(a.T @ b).magnitude()
            errors["geodesic"].append(math.degrees(relative))
            columns = [math.acos(np.clip(a[:, c] @ b[:, c], -1, 1)) for c in range(3)]
            errors["vectors"].append([math.degrees(x) for x in columns])
            angles = [_slow_euler(m) for m in (a, b)]
            differences = [abs(x - y) for x, y in zip(*angles, strict=True)]
            errors["euler"].append([min(d, 360 - d) for d in differences])
            errors["yaw"].append(abs(angles[1][0]))
    return errors


def _slow_euler(matrix):
    """Canonical yaw, pitch, roll by scipy: of its two solutions the one of an upright head, and for
    a head that is not upright the one with |pitch| <= 90."""
    x, y, z = Rotation.from_matrix(matrix).as_euler("XYZ", degrees=True)
    solutions = np.array([(y, -x, z), (180 - y, 180 - x, z + 180)])
    solutions = (solutions + 180) % 360 - 180
    upright = [s for s in solutions if abs(s[1]) < 90 and abs(s[2]) < 90]
    return (upright or [s for s in solutions if abs(s[1]) <= 90])[0]


@pytest.mark.parametrize("seed", range(3))
def test_pose_errors_equal_slow_loops(seed):
    pairs = random_pairs(seed, images=40, upright=True)
    for pred, truth in pairs:
        for j in range(len(truth["boxes"])):
            for i in range(len(pred["scores"])):
                if slow_iou(pred["boxes"][i], truth["boxes"][j]) >= 0.5:
                    small = Rotation.from_rotvec([0.1, -0.2, 0.05 * i]).as_matrix()
                    pred["rotations"][i] = truth["rotations"][j] @ small
    slow = slow_pose_errors(pairs, 0.5, 0.3)
    result = evaluate(pairs)
    pose = result["pose"]
    assert pose["evaluated"] == len(slow["geodesic"]) > 10
    assert pose["geodesic_mean"] == pytest.approx(np.mean(slow["geodesic"]), abs=1e-4)
    assert pose["geodesic_median"] == pytest.approx(np.median(slow["geodesic"]), abs=1e-4)
    euler, vectors = np.array(slow["euler"]), np.array(slow["vectors"])
    assert [pose[k] for k in ("yaw", "pitch", "roll")] == pytest.approx(euler.mean(0), abs=1e-4)
    assert pose["mae"] == pytest.approx(euler.mean(), abs=1e-4)
    keys = ("maev_left", "maev_bottom", "maev_front")
    assert [pose[k] for k in keys] == pytest.approx(vectors.mean(0), abs=1e-3)
    assert pose["maev"] == pytest.approx(vectors.mean(), abs=1e-3)
    bins = np.digitize(slow["yaw"], [30, 60, 90, 120, 150])
    for k, each in enumerate(result["yaw_bins"]):
        chosen = np.array(slow["geodesic"])[bins == k]
        assert each["evaluated"] == len(chosen)
        if len(chosen):
            assert each["geodesic_mean"] == pytest.approx(chosen.mean(), abs=1e-4)


def test_angles_wrap_around():
    a, b = canonical(179.0), canonical(-179.0)
    assert euler_errors(a, b) == pytest.approx([2, 0, 0], abs=1e-9)
    assert vector_errors(a, b) == pytest.approx([2, 0, 2], abs=1e-9)


def test_an_error_beyond_90_degrees_is_never_folded_back():
    truth = a_truth([[0, 0, 10, 10]], [canonical(0)])
    result = evaluate([(a_pred([[0, 0, 10, 10]], [1], [canonical(170)]), truth)])
    assert result["pose"]["yaw"] == pytest.approx(170, abs=1e-3)
    assert result["pose"]["geodesic_mean"] == pytest.approx(170, abs=1e-3)


def test_euler_errors_of_named_angles_through_the_package():
    angles = np.array([[30.0, -20.0, 10.0], [-100.0, 5.0, 0.0]])
    moved = angles + [4, -3, 2]
    errors = euler_errors(
        euler_to_rotation(angles, convention="canonical"),
        euler_to_rotation(moved, convention="canonical"),
    )
    assert errors == pytest.approx(np.array([[4, 3, 2], [4, 3, 2]]), abs=1e-9)


def test_a_steep_and_tilted_head_has_the_nearer_of_its_two_triples():
    labelled = np.array([-75.0, -91.1, 79.2])  # image03283 of AFLW2000: beyond 90 degrees of pitch
    by_scipy = Rotation.from_euler("XYZ", labelled[[1, 0, 2]] * [-1, 1, 1], degrees=True)
    nearby = canonical(-70, -80, 75)
    assert canonical(*labelled) == pytest.approx(by_scipy.as_matrix(), abs=1e-6)
    assert euler_errors(nearby, canonical(*labelled)) == pytest.approx([5, 11.1, 4.2], abs=1e-6)
    far = canonical(-105, 85, -98)  # nearer to the other one: -105, 88.9, -100.8
    assert euler_errors(far, canonical(*labelled)).max() < 5
    # A head that is upright has one triple, however far off the prediction is.
    assert euler_errors(canonical(-105, 85, -98), canonical(-75, -80, 79)).max() > 150


def test_an_upside_down_head_is_kept():
    turned = canonical(0, 0, 180)
    result = evaluate([(a_pred([[0, 0, 9, 9]], [1], [turned]), a_truth([[0, 0, 9, 9]], [turned]))])
    assert result["pose"]["evaluated"] == 1
    assert result["pose"]["geodesic_mean"] == pytest.approx(0, abs=1e-3)
    assert result["pose"]["mae"] == pytest.approx(0, abs=1e-3)


def test_only_matched_truths_with_a_pose_are_evaluated():
    truth = a_truth([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [np.eye(3)] * 3)
    truth["has_pose"] = np.array([True, False, True])
    pred = a_pred([[0, 0, 9, 9], [20, 0, 29, 9]], [1, 1], [canonical(10), canonical(50)])
    pose = evaluate([(pred, truth)])["pose"]
    assert pose["evaluated"] == 1
    assert pose["coverage"] == 0.5
    assert pose["yaw"] == pytest.approx(10, abs=1e-3)


def test_a_prediction_that_is_no_rotation_is_counted_and_left_out():
    truth = a_truth([[0, 0, 9, 9], [20, 0, 29, 9]], [np.eye(3)] * 2)
    pred = a_pred(truth["boxes"], [1, 1], [np.full((3, 3), np.nan), canonical(20)])
    result = evaluate([(pred, truth)])
    assert result["pose"]["invalid_rotations"] == 1
    assert result["pose"]["evaluated"] == 1
    assert result["detection"]["recall"] == 1.0
    json.dumps(result, allow_nan=False)


def test_a_true_pose_that_is_no_rotation_is_an_error_that_names_the_image():
    truth = a_truth([[0, 0, 9, 9]], [2 * np.eye(3)])
    with pytest.raises(ValueError, match="made"):
        evaluate([(a_pred([], []), truth)])


def test_heading_of_rotations_and_of_labels_alone():
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]]
    turned = [Rotation.from_euler("y", a, degrees=True).as_matrix() for a in (0, 170, -175, 65)]
    # A nod leaves the direction seen from above.
    nodded = turned[1] @ Rotation.from_euler("x", 30, degrees=True).as_matrix()
    pred = a_pred(boxes, [0.9] * 4, [turned[0], nodded, turned[2], turned[3]])
    truth = a_truth(boxes, rotations=[turned[3], np.eye(3), np.eye(3), np.eye(3)])
    truth["has_pose"] = np.array([True, False, False, False])
    truth["has_heading"] = np.array([False, True, True, False])
    truth["headings"] = np.array([0, 160, 175, 0], np.float32)
    result = evaluate([(pred, truth)])
    assert result["counts"]["truths_with_heading"] == 3
    heading = result["heading"]  # 65 (from the rotation), 10, and 10 over the seam
    assert heading["evaluated"] == 3
    assert heading["mean"] == pytest.approx(85 / 3)
    assert heading["median"] == pytest.approx(10)
    assert heading["beyond_90"] == 0
    bins = {(b["low"], b["high"]): b for b in result["heading_bins"]}
    assert bins[60, 90]["mean"] == pytest.approx(65)
    assert bins[150, 180]["truths"] == 2
    # 65 to the front; from 160 on to 170; from 175 over the back to 185.
    assert bins[60, 90]["outward"] == pytest.approx(-65)
    assert bins[150, 180]["outward"] == pytest.approx(10)
    assert heading["outward"] == pytest.approx((-65 + 10 + 10) / 3)
    mirrored = {**truth, "headings": -truth["headings"]}
    flip = np.diag([-1.0, 1, 1])
    looks = (turned[0], nodded, turned[2], turned[3])
    other = a_pred(boxes, [0.9] * 4, [flip @ r @ flip for r in looks])
    outward = evaluate([(other, mirrored)])["heading"]["outward"]
    assert outward == pytest.approx(heading["outward"])

    backwards = a_pred(boxes, [0.9] * 4, [turned[2]] * 4)  # -175
    far = evaluate([(backwards, truth)])["heading"]
    assert far["beyond_90"] == pytest.approx(1 / 3)


# --- bins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("yaw", "index"), [(0, 0), (-29.9, 0), (45, 1), (-120.1, 4), (180, 5)])
def test_yaw_bins(yaw, index):
    truth = a_truth([[0, 0, 9, 9]], [canonical(yaw)])
    bins = evaluate([(a_pred([], []), truth)])["yaw_bins"]
    assert [each["truths"] for each in bins] == [int(k == index) for k in range(6)]
    assert bins[index]["recall"] == 0.0


@pytest.mark.parametrize(
    ("box", "index"),
    [((0, 0, 31.9, 5), 0), ((9, 9, 11, 41), 1), ((0, 0, 127, 128), 3), ((0, 0, 900, 256), 4)],
)
def test_bins_of_size_go_by_the_longer_side(box, index):
    truth = a_truth([list(box)], [canonical(20)])
    bins = evaluate([(a_pred([list(box)], [0.9], [np.eye(3)]), truth)])["size_bins"]
    assert [each["truths"] for each in bins] == [int(k == index) for k in range(5)]
    assert [each["low"] for each in bins] == [0, 32, 64, 128, 256]
    assert bins[index]["recall"] == 1
    assert bins[index]["geodesic_mean"] == pytest.approx(20)
    assert bins[index]["heading_mean"] == pytest.approx(20)
