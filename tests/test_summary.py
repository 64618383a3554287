"""Where people look, in seconds, and the timeline of it."""

import io

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.predict.head import Head
from mtnet_jax.predict.summary import Summary, direction, table, to_json
from mtnet_jax.predict.timeline import COLOURS, plot_timeline
from mtnet_jax.predict.tracking import TrackedHead
from mtnet_jax.rotations import euler_to_rotation


def looking(number: int | None, yaw: float) -> TrackedHead:
    rotation = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    return TrackedHead(Head((0, 0, 9, 9), 1.0, rotation, yaw, 0, 0, "head"), number, rotation)


def summed(frames: list[tuple[float, list[TrackedHead]]]):
    summary = Summary()
    for seconds, heads in frames:
        summary.add(heads, seconds)
    return summary.persons()


@pytest.mark.parametrize(
    ("yaw", "pitch", "expected"),
    [
        (0, 0, "camera"),
        (15, 15, "camera"),
        (60, 0, "left"),  # + turns the face to the left of the image
        (-60, 10, "right"),
        (90, 0, "left"),
        (179, 0, "away"),
        (-135, 0, "away"),
        (0, 50, "up"),
        (10, -40, "down"),
    ],
)
def test_direction(yaw, pitch, expected):
    rotation = euler_to_rotation(np.array([yaw, pitch, 0.0]), convention="canonical")
    assert direction(rotation) == expected
    turned_in_plane = rotation @ Rotation.from_euler("z", 70, degrees=True).as_matrix()
    assert direction(turned_in_plane) == expected  # a tilt of the head changes nothing


def test_what_goes_on_is_one_interval_whatever_rounding_does():
    """0.1 + (0.3 - 0.1) is not 0.3."""
    (one,) = summed([(number / 30, [looking(1, 0)]) for number in range(300)])
    assert len(one.intervals) == 1


def test_seconds_add_up_over_uneven_frames():
    times = [0.0, 0.1, 0.5, 0.6, 1.6, 2.0]
    people = [[looking(1, 0)], [looking(1, 0)], [looking(1, 60)], [], [looking(1, 180)]]
    (one,) = summed(list(zip(times, [*people, [looking(1, 180), looking(None, 0)]], strict=True)))
    # A frame lasts until the next one, the last one as long as the one before it.
    assert one.seconds == pytest.approx(
        {"camera": 0.5, "left": 0.1, "right": 0, "up": 0, "down": 0, "away": 0.8}
    )
    assert one.to_json() == {
        "track": 1,
        "first": 0.0,
        "last": 2.4,
        "seen": 1.4,
        "seconds": {"camera": 0.5, "left": 0.1, "right": 0, "up": 0, "down": 0, "away": 0.8},
        "intervals": [[0.0, 0.5, "camera"], [0.5, 0.6, "left"], [1.6, 2.4, "away"]],
    }


def test_a_table_lists_persons_and_counts_brief_ones():
    frames = [(i / 10, [looking(2, 0), *([looking(7, 60)] if i < 3 else [])]) for i in range(20)]
    lines = table(summed(frames)).splitlines()
    assert lines[0].split() == ["person", "seen", "camera", "left", "right", "up", "down", "away"]
    assert lines[1].split()[:5] == ["2", "2.0", "s", "2.0", "s"]
    assert lines[2] == "1 seen for less than 0.5 s: not in this table"
    assert table([]) == "nobody was followed"
    assert [p["track"] for p in to_json(summed(frames))["persons"]] == [2, 7]


def test_the_timeline_shows_each_direction_for_its_time():
    frames = [(i / 10, [looking(1, 0 if i < 30 else 60)]) for i in range(40)]
    image = drawn(summed(frames))
    counts = {n: (np.abs(image - rgb(COLOURS[n])) < 12).all(axis=-1).sum() for n in COLOURS}
    patch = counts["away"]  # nobody looks there: the legend's patch alone
    assert counts["camera"] - patch == pytest.approx(3 * (counts["left"] - patch), rel=0.15)
    assert counts["left"] > 5 * patch


@pytest.mark.parametrize("count", [0, 60])
def test_the_timeline_of_nobody_and_of_many(count):
    frames = [(i / 10, [looking(n + 1, 0) for n in range(count)]) for i in range(5)]
    assert drawn(summed(frames)).shape[0] < 2000


def drawn(persons) -> np.ndarray:
    file = io.BytesIO()
    plot_timeline(persons, file)
    data = np.frombuffer(file.getvalue(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
