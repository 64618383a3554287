"""Numbers and smoothed rotations along a video, with boxes and poses that are made up."""

import builtins

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("trackers", reason="tracking is an extra: pip install -e '.[track]'")

from mtnet_jax.predict.head import Head
from mtnet_jax.predict.tracking import LOST, HeadTracker

RATE = 25.0


def head(x: float, y: float = 50, size: float = 40, score: float = 0.9, yaw: float = 0) -> Head:
    box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    rotation = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    return Head(box, score, rotation, yaw, 0.0, 0.0, "head")


def followed(frames: list[list[Head]], times=None) -> list[list[int | None]]:
    times = np.arange(len(frames)) / RATE if times is None else times
    tracker = HeadTracker(RATE)
    return [
        [h.number for h in tracker(heads, float(t))] for heads, t in zip(frames, times, strict=True)
    ]


def test_heads_keep_their_numbers_when_scores_change_their_order():
    frames = [[head(50 + i), head(200 - i)][:: (-1) ** i] for i in range(60)]
    numbers = [pair[:: (-1) ** i] for i, pair in enumerate(followed(frames))]
    assert len({tuple(pair) for pair in numbers[2:]}) == 1
    assert sorted(numbers[-1]) == [1, 2]


def test_two_who_pass_each_other_in_depth_keep_their_numbers():
    frames = [[head(40 + 4 * i, size=60), head(240 - 4 * i, y=55, size=34)] for i in range(50)]
    numbers = followed(frames)
    assert numbers[-1] == numbers[5]
    assert None not in numbers[5]


def test_a_gap_is_bridged_and_a_long_one_is_not():
    still = [[head(50)]] * 20
    short, long = round(0.8 * LOST * RATE), round(1.5 * LOST * RATE)
    numbers = followed([*still, *[[]] * short, *still, *[[]] * long, *still])
    seen = [n[0] for n in numbers if n and n[0] is not None]
    assert seen[0] == seen[38]
    assert seen[-1] != seen[0]


def test_the_gap_counts_in_seconds_where_frames_are_uneven():
    for gone, number in ((0.8 * LOST, 1), (1.5 * LOST, 2)):
        # Three frames without the head, whatever the time between them.
        times = [*np.arange(10) / RATE, *(9 / RATE + gone * np.array([0.3, 0.5, 0.9]))]
        times = [*times, *(9 / RATE + gone + np.arange(10) / RATE)]
        numbers = followed([*[[head(50)]] * 10, [], [], [], *[[head(50)]] * 10], times)
        assert numbers[9] == [1]
        assert numbers[-1] == [number]


@pytest.mark.parametrize("gap", [0.5 * LOST, LOST, 1.1 * LOST, 2 * LOST, 30 * LOST])
def test_frames_far_apart_are_one_after_the_other(gap):
    frames = [[head(50 + i), head(200 - i)] for i in range(10)]
    numbers = followed(frames, gap * np.arange(10))
    assert numbers == [[None, None], *[numbers[1]] * 9]
    assert sorted(numbers[1]) == [1, 2]


def test_nobody_is_unseen_in_a_pause_without_frames():
    still = 0.2 * np.random.default_rng(0).random(20).cumsum()  # as some recorders write a rest
    times = np.concatenate([still, still[-1] + 3 * LOST + np.arange(20) / RATE])
    assert followed([[head(50)]] * 40, times) == [[None], *[[1]] * 39]


def test_unsure_heads_carry_numbers_on_but_start_none():
    unsure = [[head(50 + i, score=0.35), head(200, score=0.35)] for i in range(20)]
    numbers = followed([*[[head(45 + i)] for i in range(5)], *unsure])
    assert {tuple(pair) for pair in numbers[6:]} == {(1, None)}


def test_a_flash_gets_no_number():
    frames = [[head(50)] for _ in range(10)]
    frames[5] = [head(50), head(200)]
    assert followed(frames)[5] == [1, None]


def test_frames_without_heads_and_before_the_first():
    assert followed([[], [], [head(50)], [head(50)], []]) == [[], [], [None], [1], []]


def test_rotations_are_smoothed_along_a_person_and_raw_ones_stay():
    noise = np.random.default_rng(0).normal(0, 5, 60)
    frames = [
        [head(200, yaw=100), head(50, yaw=float(n))][:: (-1) ** i] for i, n in enumerate(noise)
    ]
    tracker = HeadTracker(RATE)
    for i, heads in enumerate(frames):
        tracked = tracker(heads, i / RATE)
        assert [t.head for t in tracked] == heads
    far, near = tracked[:: (-1) ** 59]
    assert np.abs(far.smoothed - far.head.rotation).max() < 1e-6  # not mixed with the other person
    assert far.to_json()["track"] == far.number
    assert far.to_json()["smoothed"]["yaw"] == pytest.approx(100)
    yaw = near.to_json()["smoothed"]["yaw"]
    assert abs(yaw) < 3
    assert yaw != pytest.approx(near.head.yaw, abs=0.01)


def test_a_head_without_a_number_has_its_raw_rotation():
    (first,) = HeadTracker(RATE)([head(50, yaw=30)], 0.0)
    assert first.to_json() == {"track": None, "smoothed": None}
    assert np.array_equal(first.rotation, first.head.rotation)


def test_a_missing_package_is_named_with_the_cure(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "trackers":
            raise ImportError("No module named 'trackers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RuntimeError, match=r"pip install -e '\.\[track\]'"):
        HeadTracker(RATE)
