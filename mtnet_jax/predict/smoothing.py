"""Rotations that tremble less: a One Euro filter on SO(3).

Casiez, Roussel, Vogel, "1 Euro Filter" (CHI 2012): a low-pass filter whose cutoff rises with speed,
so a still head stops trembling and a turning one lags little. Here the signal is a rotation: what
is filtered is the rotation vector from the smoothed pose to the new one, in the tangent space of
the smoothed pose. No angle is ever averaged, so nothing happens at the seam of +-180 degrees or at
gimbal lock.
"""

from typing import Any

import numpy as np

# Hz at rest, Hz for each degree a second, Hz of the speed's own filter: the knee of the sweep that
# `python -m benchmarks.tracking` prints.
LEAST_CUTOFF, CUTOFF_PER_SPEED, SPEED_CUTOFF = 0.5, 0.03, 1.0


class RotationFilter:
    """Smooths the rotations of one head, given one after another."""

    def __init__(
        self,
        least_cutoff: float = LEAST_CUTOFF,
        cutoff_per_speed: float = CUTOFF_PER_SPEED,
        speed_cutoff: float = SPEED_CUTOFF,
    ):
        """Takes the cutoff at rest in Hz, its rise in Hz per degree a second, and the cutoff of the
        filter of the speed in Hz."""
        self._least, self._rise, self._speed_cutoff = least_cutoff, cutoff_per_speed, speed_cutoff
        self._smoothed: Any = None  # a scipy Rotation, after the first one
        self._velocity = np.zeros(3)  # radians a second, axes of the smoothed head
        self.seconds = -np.inf  # time of the newest rotation

    def __call__(self, rotation: np.ndarray, seconds: float) -> np.ndarray:
        """The smoothed rotation at a time.

        Args:
          rotation: (3, 3).
          seconds: its time; one that is not later than that of the rotation before changes nothing.

        Returns:
          (3, 3) float64.
        """
        # A third of the start-up of predicting, and 36 MB: only for those who track.
        from scipy.spatial.transform import Rotation

        new, elapsed = Rotation.from_matrix(rotation), seconds - self.seconds
        if self._smoothed is None:
            self._smoothed = new
        elif elapsed > 0:
            step = (self._smoothed.inv() * new).as_rotvec()
            share = _share(self._speed_cutoff, elapsed)
            self._velocity += share * (step / elapsed - self._velocity)
            speed = np.rad2deg(np.linalg.norm(self._velocity))
            share = _share(self._least + self._rise * speed, elapsed)
            self._smoothed = self._smoothed * Rotation.from_rotvec(share * step)
        self.seconds = max(self.seconds, seconds)
        return self._smoothed.as_matrix()


def _share(cutoff: float, elapsed: float) -> float:
    """How far a first-order low pass of a cutoff (Hz) goes towards its input in a time."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * elapsed))
