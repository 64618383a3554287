"""Average precision, counts and IoU: against loops, by hand, and against numbers of pycocotools."""

import numpy as np
import pytest

from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.report import format_classes
from tests.evaluations import a_pred, a_truth, random_pairs, slow_match


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


# --- classes -------------------------------------------------------------------------------------


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
