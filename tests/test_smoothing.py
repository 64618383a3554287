"""The One Euro filter on rotations, against truths that scipy turns."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.predict.smoothing import RotationFilter

RATE = 25.0


def smooth(rotations: Rotation, smoother: RotationFilter, times=None) -> Rotation:
    times = np.arange(len(rotations)) / RATE if times is None else times
    matrices = rotations.as_matrix()
    return Rotation.from_matrix([smoother(m, t) for m, t in zip(matrices, times, strict=True)])


def degrees(a: Rotation, b: Rotation) -> np.ndarray:
    return np.rad2deg((a.inv() * b).magnitude())


def noise(count: int, scale: float) -> Rotation:
    vectors = np.random.default_rng(0).normal(0, np.deg2rad(scale), (count, 3))
    return Rotation.from_rotvec(vectors)


def yaws(angles: np.ndarray) -> Rotation:
    return Rotation.from_euler("y", np.asarray(angles)[:, None], degrees=True)


@pytest.mark.parametrize("heading", [0, 90, 179.9, -135])
def test_a_still_head_trembles_a_quarter_as_much_anywhere(heading):
    true = yaws(np.full(200, heading))
    noisy = true * noise(200, 4)
    smoothed = smooth(noisy, RotationFilter())
    before, after = degrees(noisy[:-1], noisy[1:]), degrees(smoothed[:-1], smoothed[1:])
    assert after[25:].mean() < before[25:].mean() / 4
    assert degrees(true, smoothed)[25:].mean() < degrees(true, noisy)[25:].mean() / 2


def test_a_turn_over_the_seam_goes_the_short_way():
    true = yaws(np.linspace(150, 210, 100))  # 25 degrees a second over +-180
    smoothed = smooth(true, RotationFilter())
    assert degrees(true, smoothed).max() < 10  # through the front it would be 150 and more
    heading = np.rad2deg(np.unwrap(np.arctan2(*smoothed.as_matrix()[:, [0, 2], 2].T)))
    assert (np.diff(heading) > -1e-9).all()
    assert heading[-1] - heading[0] > 50


def test_the_same_turn_anywhere_is_smoothed_alike():
    """The filter knows no axes: turned before or after, the result is turned too."""
    path = yaws(40 * np.sin(np.arange(80) / 9)) * noise(80, 3)
    left, right = Rotation.from_rotvec([0.5, 2.0, -1.0]), Rotation.from_rotvec([-2.5, 0.3, 0.9])
    plain = smooth(path, RotationFilter())
    turned = smooth(left * path * right, RotationFilter())
    assert degrees(left * plain * right, turned).max() < 1e-6


def test_a_fast_turn_lags_less_than_with_a_fixed_cutoff():
    true = yaws(np.concatenate([np.zeros(25), np.linspace(0, 120, 25), np.full(25, 120)]))
    adaptive, fixed = smooth(true, RotationFilter()), smooth(true, RotationFilter(0.5, 0.0))
    assert degrees(true, adaptive)[25:50].mean() < degrees(true, fixed)[25:50].mean() / 2


def test_time_counts_and_not_frames():
    true = yaws(30 * np.sin(np.arange(100) / 10))
    even, uneven = np.arange(100) / RATE, np.arange(100) / RATE
    uneven[50:] += 10.0  # unseen for ten seconds: the old pose counts for nothing
    kept, forgotten = (smooth(true, RotationFilter(), times) for times in (even, uneven))
    assert degrees(true, forgotten)[50] < degrees(true, kept)[50] / 5


def test_a_time_that_stands_still_changes_nothing():
    smoother = RotationFilter()
    first = smoother(np.eye(3), 1.0)
    again = smoother(Rotation.from_rotvec([1, 0, 0]).as_matrix(), 1.0)
    assert np.array_equal(first, again)


def test_one_euro_in_one_dimension():
    """About one axis it is the filter of Casiez et al., computed here with plain numbers."""
    angles = 50 * np.sin(np.arange(60) / 8) + np.random.default_rng(1).normal(0, 2, 60)
    least, rise, speed_cutoff = 1.0, 0.02, 1.5

    def share(cutoff):
        return 1 / (1 + RATE / (2 * np.pi * cutoff))

    value, speed, expected = angles[0], 0.0, [angles[0]]
    for angle in angles[1:]:
        speed += share(speed_cutoff) * ((angle - value) * RATE - speed)
        value += share(least + rise * abs(speed)) * (angle - value)
        expected.append(value)
    smoothed = smooth(yaws(angles), RotationFilter(least, rise, speed_cutoff))
    assert degrees(yaws(np.array(expected)), smoothed).max() < 1e-6
