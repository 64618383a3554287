"""Matching, metrics and reports against loops written from the definitions, hand-made cases, scipy,
and numbers of pycocotools."""

import json
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation import run
from mtnet_jax.evaluation.constant import constant_predictor
from mtnet_jax.evaluation.figures import euler_errors, vector_errors
from mtnet_jax.evaluation.matching import match_image, pair_by_iou, pairwise_iou
from mtnet_jax.evaluation.metrics import (
    EMPTY,
    Settings,
    evaluate,
    image_state,
    merge_states,
    summarise,
)
from mtnet_jax.evaluation.plots import plot_geodesic, plot_pose_by_yaw, plot_precision_recall
from mtnet_jax.evaluation.report import (
    as_json,
    format_bins,
    format_classes,
    format_table,
    write_report,
)
from mtnet_jax.evaluation.summary import format_summary
from mtnet_jax.outputs import Outputs
from mtnet_jax.rotations import euler_to_rotation
from tests.image_files import written
from tests.tiny import DEMO_RECORDS


def a_pred(boxes, scores, rotations=None):
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "rotations": _rotations(rotations, len(scores)),
    }


def a_truth(boxes, rotations=None, ignore=None, has_pose=None):
    n = len(boxes)
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "rotations": _rotations(rotations, n),
        "has_pose": np.full(n, rotations is not None) if has_pose is None else np.array(has_pose),
        "ignore": np.zeros(n, bool) if ignore is None else np.array(ignore, bool),
        "width": 400,
        "height": 200,
        "image_id": "made",
    }


def _rotations(rotations, n):
    if rotations is None:
        return np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    return np.array(rotations, np.float32).reshape(-1, 3, 3)


def canonical(yaw, pitch=0.0, roll=0.0):
    """R = Rx(-pitch) Ry(yaw) Rz(roll) by scipy."""
    return Rotation.from_euler("XYZ", [-pitch, yaw, roll], degrees=True).as_matrix()


def random_pairs(seed, images=30, upright=False):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        n = int(rng.integers(0, 5))
        corner = rng.uniform(0, 150, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(15, 60, (n, 2))], axis=1)
        chosen = rng.integers(0, n, int(rng.integers(0, 7))) if n else np.zeros(0, int)
        guesses = boxes[chosen] + rng.normal(0, 5, (len(chosen), 4))
        poses = [_random_pose(rng, upright) for _ in range(n)]
        guessed = [
            poses[i] @ Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix() for i in chosen
        ]
        pairs.append(
            (
                a_pred(guesses, rng.uniform(0, 1, len(chosen)), guessed),
                a_truth(boxes, poses, rng.random(n) < 0.2, rng.random(n) < 0.8),
            )
        )
    return pairs


def _random_pose(rng, upright):
    if not upright:
        return Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return canonical(rng.uniform(-180, 180), rng.uniform(-60, 60), rng.uniform(-60, 60))


# --- definitions, written out slowly ------------------------------------------------------------


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def slow_match(pred, truth, threshold):
    """{prediction: truth}, set of absorbed predictions."""
    takes, absorbed = {}, set()
    order = sorted(range(len(pred["scores"])), key=lambda i: (-float(pred["scores"][i]), i))
    for i in order:
        overlaps = [
            slow_iou(pred["boxes"][i].astype(float), b.astype(float)) for b in truth["boxes"]
        ]
        best = None
        for j, overlap in enumerate(overlaps):
            is_free = not truth["ignore"][j] and j not in takes.values()
            if is_free and overlap >= threshold and (best is None or overlap > overlaps[best]):
                best = j
        if best is not None:
            takes[i] = best
        elif any(g and o >= threshold for g, o in zip(truth["ignore"], overlaps, strict=True)):
            absorbed.add(i)
    return takes, absorbed


def slow_average_precision(pairs, threshold):
    """Precision at every possible score cut, then the 101-point mean, straight from the words."""
    found, total = [], 0
    for pred, truth in pairs:
        total += sum(not g for g in truth["ignore"])
        takes, absorbed = slow_match(pred, truth, threshold)
        for i, score in enumerate(pred["scores"]):
            if i not in absorbed:
                found.append((float(score), i in takes))
    cuts = []
    for cut in {score for score, _ in found}:
        kept = [hit for score, hit in found if score >= cut]
        cuts.append((sum(kept) / total, sum(kept) / len(kept)))
    points = []
    for k in range(101):
        # A recall that equals k / 100 in exact arithmetic is decided as NumPy's grid rounds it.
        reached = [p for r, p in cuts if r >= np.linspace(0, 1, 101)[k]]
        points.append(max(reached, default=0.0))
    return sum(points) / 101


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


# --- matching -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_slow_loops(seed):
    for pred, truth in random_pairs(seed):
        for threshold in (0.3, 0.5, 0.75):
            match = match_image(pred, truth, threshold)
            takes, absorbed = slow_match(pred, truth, threshold)
            m, n = len(pred["scores"]), len(truth["boxes"])
            assert match.iou.shape == (m, n)
            assert set(np.flatnonzero(match.absorbed)) == absorbed
            for i in range(m):
                if i not in absorbed:
                    assert match.truth_of_prediction[i] == takes.get(i, -1)
            back = {j: i for i, j in takes.items()}
            assert match.prediction_of_truth.tolist() == [back.get(j, -1) for j in range(n)]


def test_two_predictions_on_one_truth_the_higher_score_wins_though_its_iou_is_lower():
    pred = a_pred([[0, 0, 10, 10], [0, 0, 10, 12]], [0.5, 0.9])
    match = match_image(pred, a_truth([[0, 0, 10, 10]]), 0.5)
    assert match.truth_of_prediction.tolist() == [-1, 0]
    assert match.prediction_of_truth.tolist() == [1]


def test_the_threshold_itself_is_enough():
    match = match_image(a_pred([[0, 0, 10, 5]], [1]), a_truth([[0, 0, 10, 10]]), 0.5)
    assert match.truth_of_prediction.tolist() == [0]


def test_a_counting_truth_goes_before_a_nearer_ignored_one():
    truth = a_truth([[0, 0, 10, 10], [0, 0, 10, 12]], ignore=[True, False])
    pred = a_pred([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8, 0.7])
    match = match_image(pred, truth, 0.5)
    assert match.truth_of_prediction.tolist() == [1, 0, 0]  # then both others are absorbed
    assert match.absorbed.tolist() == [False, True, True]
    assert match.prediction_of_truth.tolist() == [-1, 0]


def test_pairs_by_iou_take_the_highest_first():
    iou = np.array([[0.9, 0.8], [0.7, 0.0]])
    assert pair_by_iou(iou).tolist() == [0, 1]  # though 0.8 + 0.7 would sum to more
    assert pair_by_iou(np.zeros((0, 0))).tolist() == []


def test_pairwise_iou_of_nothing_and_of_nan():
    assert pairwise_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert pairwise_iou([[np.nan] * 4], [[0, 0, 1, 1]]).tolist() == [[0.0]]


# --- detection ----------------------------------------------------------------------------------


def test_average_precision_by_hand():
    # Four truths; by falling score: hit, miss, hit. Recall 1/4 at precision 1, 2/4 at 2/3.
    # Points 0..0.25 are 26, those up to 0.50 another 25, the remaining 50 are 0.
    truth = a_truth([[100 * i, 0, 100 * i + 50, 50] for i in range(4)])
    boxes = [truth["boxes"][0], [900, 900, 950, 950], truth["boxes"][1]]
    result = evaluate([(a_pred(boxes, [0.9, 0.8, 0.4]), truth)])
    assert result["detection"]["ap50"] == pytest.approx((26 * 1 + 25 * 2 / 3) / 101, abs=1e-15)
    assert result["detection"]["ap50_95"] == pytest.approx(result["detection"]["ap50"], abs=1e-15)
    assert result["detection"]["recall"] == 0.5
    assert result["detection"]["missed"] == 2
    assert result["detection"]["false_positives"] == 1
    assert result["detection"]["precision"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_slow_loops(seed):
    pairs = random_pairs(seed)
    if seed == 3:  # many ties
        for pred, _ in pairs:
            pred["scores"] = np.round(pred["scores"] * 4) / 4
    result = evaluate(pairs)["detection"]
    slow = [slow_average_precision(pairs, 0.5 + 0.05 * k) for k in range(10)]
    assert list(result["ap_by_iou"].values()) == pytest.approx(slow, abs=1e-12)
    assert result["ap50_95"] == pytest.approx(np.mean(slow), abs=1e-12)


def integer_images():
    """Boxes, scores, truths, ignore of 40 images, by integer arithmetic: the same everywhere."""
    state = 12345

    def draw(n):
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return (state >> 8) % n

    rank, made = 0, []
    for _ in range(40):
        pred, truth, ignore = [], [], []
        for cell in range(draw(7)):
            x, y = 120 * (cell % 3) + draw(20), 120 * (cell // 3) + draw(20)
            w, h = 30 + draw(50), 30 + draw(60)
            truth.append([x, y, x + w, y + h])
            ignore.append(draw(6) == 0)
            for _ in range(0 if draw(5) == 0 else 1 if ignore[-1] else 1 + draw(2)):
                dx, dy, dw, dh = (draw(17) - 8 for _ in range(4))
                pred.append([x + dx, y + dy, x + w + dx + dw, y + h + dy + dh])
        for _ in range(draw(3)):
            x, y = draw(300), draw(200)
            pred.append([x, y, x + 40, y + 50])
        scores = [(rank + i + 1) * 7919 % 10007 / 10007 for i in range(len(pred))]
        rank += len(pred)
        made.append((pred, scores, truth, ignore))
    return made


def test_average_precision_equals_pycocotools():
    # pycocotools 2.0.11, COCOeval("bbox") on integer_images(), ignored truths by an area outside
    # the range "all": precision averaged over its 101 points, at IoU .50, .55, ..., .95.
    expected = [
        0.4837166886045852,
        0.47378909334586644,
        0.41702108130997423,
        0.36608024429829605,
        0.20452879170627097,
        0.09921926082210275,
        0.039342610193549225,
        0.0022545756186789457,
        0.0,
        0.0,
    ]
    pairs = [
        (a_pred(boxes, np.array(scores, np.float64)), a_truth(truth, ignore=ignore))
        for boxes, scores, truth, ignore in integer_images()
    ]
    result = evaluate(pairs)
    assert list(result["detection"]["ap_by_iou"].values()) == pytest.approx(expected, abs=1e-12)
    assert result["detection"]["ap50_95"] == pytest.approx(0.2085952345899324, abs=1e-12)


def test_ties_do_not_depend_on_the_order_of_images():
    hit = (a_pred([[0, 0, 10, 10]], [1]), a_truth([[0, 0, 10, 10]]))
    miss = (a_pred([[50, 50, 60, 60]], [1]), a_truth([[0, 0, 10, 10]]))
    result = evaluate([hit, miss])["detection"]
    assert result == evaluate([miss, hit])["detection"]
    assert result["ap50"] == pytest.approx(51 * 0.5 / 101)  # precision 1/2 up to recall 1/2


def test_iou_means_and_counts():
    truth = a_truth([[0, 0, 10, 10], [50, 0, 60, 10], [90, 0, 99, 9]], ignore=[False, False, True])
    pred = a_pred([[0, 0, 10, 8], [90, 0, 99, 9], [50, 0, 60, 10]], [0.9, 0.8, 0.2])
    result = evaluate([(pred, truth)])
    assert result["detection"]["mean_iou_matched"] == pytest.approx(0.8)
    assert result["detection"]["mean_iou_all"] == pytest.approx(0.4)  # the other has score 0.2
    assert result["detection"]["false_positives"] == 0  # absorbed
    assert result["counts"] == {
        "images": 1,
        "images_skipped": 0,
        "truths": 2,
        "truths_with_pose": 0,
        "truths_with_heading": 0,
        "ignored": 1,
        "predictions": 3,
        "predictions_counted": 2,
    }
    lower = evaluate([(pred, truth)], score_threshold=0.2 - 1e-6)
    assert lower["detection"]["recall"] == 1.0
    assert lower["detection"]["ap50"] == result["detection"]["ap50"]  # uses all scores anyway


# --- pose ---------------------------------------------------------------------------------------


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


# --- nothing, merging, protocols ----------------------------------------------------------------

NOTHING = a_pred([], [])


@pytest.mark.parametrize("protocol", ["matched", "authors"])
def test_empty_everything(protocol):
    for pairs in ([], [(NOTHING, a_truth([]))]):
        result = evaluate(pairs, protocol=protocol)
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert result["counts"]["images"] == len(pairs)
        assert result["detection"]["ap50"] is None
        assert result["detection"]["recall"] is None
        assert result["pose"]["mae"] is None


def test_no_truths_and_no_predictions():
    result = evaluate([(a_pred([[0, 0, 9, 9]], [0.9]), a_truth([]))])
    assert result["detection"]["false_positives"] == 1
    assert result["detection"]["precision"] == 0.0
    result = evaluate([(NOTHING, a_truth([[0, 0, 9, 9]], [np.eye(3)]))])
    assert result["detection"]["ap50"] == 0.0
    assert result["detection"]["missed"] == 1
    assert result["detection"]["mean_iou_all"] == 0.0
    assert result["detection"]["mean_iou_matched"] is None
    assert result["pose"]["coverage"] == 0.0


@pytest.mark.parametrize("protocol", ["matched", "authors"])
def test_merged_states_give_exactly_the_numbers_of_one_pass(protocol):
    pairs = random_pairs(7)
    settings = Settings(protocol=protocol)
    states = [image_state(pred, truth, settings) for pred, truth in pairs]
    hosts = [merge_states(states[20:]), EMPTY, merge_states(states[:3]), merge_states(states[3:20])]
    assert summarise(merge_states(hosts), settings) == evaluate(pairs, protocol=protocol)
    assert evaluate(pairs[::-1], protocol=protocol) == evaluate(pairs, protocol=protocol)


def test_authors_protocol_skips_images_whose_counts_differ_and_pairs_whatever_the_iou():
    one = a_truth([[0, 0, 10, 10]], [canonical(0)])
    far = (a_pred([[5, 0, 15, 10]], [0.9], [canonical(20)]), one)  # IoU 1/3
    extra = (a_pred([[0, 0, 10, 10]] * 2, [0.9, 0.8], [canonical(0)] * 2), one)
    weak = (a_pred([[0, 0, 10, 10]] * 2, [0.9, 0.1], [canonical(10)] * 2), one)  # one of .3 or more
    result = evaluate([far, extra, weak], protocol="authors")
    assert result["counts"]["images"] == 2
    assert result["counts"]["images_skipped"] == 1
    assert result["detection"]["mean_iou_matched"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["pose"]["yaw"] == pytest.approx(15, abs=1e-3)
    matched = evaluate([far, extra, weak])
    assert matched["detection"]["missed"] == 1
    assert matched["detection"]["false_positives"] == 2
    assert matched["pose"]["yaw"] == pytest.approx(5, abs=1e-3)


def test_unknown_protocol():
    with pytest.raises(ValueError, match="matched"):
        evaluate([(NOTHING, a_truth([]))], protocol="best")


# --- classes -----------------------------------------------------------------------------------


def two_classes(labels):
    """An image with two heads of class 0 and one of class 1, all found, with these labels."""
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50]]
    truth = {**a_truth(boxes), "labels": np.array([0, 0, 1])}
    return [({**a_pred(boxes, [0.9, 0.8, 0.7]), "labels": np.array(labels)}, truth)]


def test_heads_of_another_class_do_not_match():
    right = evaluate(two_classes([0, 0, 1]))["detection"]
    assert (right["ap50"], right["recall"], right["false_positives"]) == (1.0, 1.0, 0)
    swapped = evaluate(two_classes([1, 1, 0]))["detection"]
    assert (swapped["ap50"], swapped["recall"], swapped["false_positives"]) == (0.0, 0.0, 3)


def test_average_precision_is_the_mean_of_the_classes():
    result = evaluate(two_classes([0, 0, 0]), class_names=("head", "helmet", "hat"))
    head, helmet, hat = result["classes"]
    assert [each["name"] for each in (head, helmet, hat)] == ["head", "helmet", "hat"]
    assert (head["ap50"], helmet["ap50"], hat["ap50"]) == (1.0, 0.0, None)
    assert [each["truths"] for each in (head, helmet, hat)] == [2, 1, 0]
    assert [each["predictions"] for each in (head, helmet, hat)] == [3, 0, 0]
    assert result["detection"]["ap50"] == 0.5
    assert "helmet" in format_classes({"network": result})
    assert format_classes({"network": evaluate(two_classes([0, 0, 1])[:0])}) == ""


def test_an_ignored_head_absorbs_its_own_class_alone():
    boxes = [[0, 0, 50, 50]]
    truth = {**a_truth(boxes, ignore=[True]), "labels": np.array([1])}
    for label, false_positives in ((1, 0), (0, 1)):
        pred = {**a_pred(boxes, [0.9]), "labels": np.array([label])}
        assert evaluate([(pred, truth)])["detection"]["false_positives"] == false_positives


# --- the constant predictor ---------------------------------------------------------------------


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


# --- reports ------------------------------------------------------------------------------------


def test_tables_show_the_numbers_and_systems():
    results = {"network": evaluate(random_pairs(1)), "constant": evaluate([(NOTHING, a_truth([]))])}
    lines = format_table(results).splitlines()
    row = next(line for line in lines if line.startswith("AP50 "))
    assert row.split() == ["AP50", f"{100 * results['network']['detection']['ap50']:.1f}%", "-"]
    assert "score >= 0.3" in lines[0]
    assert len({len(line) for line in lines if line.startswith("---")}) == 1
    bins = format_bins(results).splitlines()
    assert len(bins) == 4 * 8 + 2 * 7 + 5
    assert bins[7].startswith("150-180°")
    assert bins[-1].startswith("256- px")


def test_results_of_different_settings_are_not_put_side_by_side():
    results = {"a": evaluate([]), "b": evaluate([], score_threshold=0.1)}
    with pytest.raises(ValueError, match="settings"):
        format_table(results)
    with pytest.raises(ValueError, match="No results"):
        format_table({})


def test_report_files(tmp_path):
    results = {"network": evaluate(random_pairs(1)), "constant": evaluate([])}
    paths = write_report(Outputs("eval"), results, tmp_path / "report")
    assert sorted(p.name for p in paths) == written(tmp_path / "report")
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == results
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="JSON"):
        as_json({"network": {"ap": math.nan}})


def test_plots_draw_the_curves_of_the_results():
    result = evaluate(random_pairs(2))
    line = plot_precision_recall({"network": result}).axes[0].lines[0]
    assert line.get_ydata() == pytest.approx(result["curves"]["precision50"])
    heights = [bar.get_height() for bar in plot_pose_by_yaw({"network": result}).axes[0].patches]
    means = [each["geodesic_mean"] for each in result["yaw_bins"] if each["evaluated"]]
    assert heights == pytest.approx(means)
    curve = plot_geodesic({"network": result}).axes[0].lines[0].get_ydata()
    middle = result["pose"]["geodesic_median"]
    assert curve[math.floor(middle)] <= 0.5 <= curve[math.ceil(middle)]


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

    backwards = a_pred(boxes, [0.9] * 4, [turned[2]] * 4)  # -175
    far = evaluate([(backwards, truth)])["heading"]
    assert far["beyond_90"] == pytest.approx(1 / 3)


def test_a_summary_has_a_line_for_each_set_and_dashes_for_what_is_not_labelled():
    head = a_truth([[0, 0, 10, 10]], rotations=[np.eye(3)])
    box = a_truth([[0, 0, 10, 10]])
    found = a_pred(
        [[0, 0, 10, 10]], [0.9], [Rotation.from_euler("y", 40, degrees=True).as_matrix()]
    )
    text = format_summary({"posed": evaluate([(found, head)]), "boxes": evaluate([(found, box)])})
    titles, _, posed, boxes = (line.split() for line in text.splitlines())
    assert titles[:3] == ["images", "heads", "AP50"]
    assert posed == ["posed", "1", "1", "100.0%", "100.0%", "100.0%"] + [
        "1",
        "40.00°",
        "40.00°",
    ] * 2 + ["0.0%"]
    assert boxes[-6:] == ["-", "-", "0", "-", "-", "-"]
