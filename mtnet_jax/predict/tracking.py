"""Heads that keep a number from frame to frame, and rotations smoothed along each of them.

The tracker is ByteTrack of the package `trackers`, an extra: boxes alone decide who is who.
"""

from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.errors import Failed
from mtnet_jax.predict.head import Head, rounded_rotation
from mtnet_jax.predict.smoothing import RotationFilter
from mtnet_jax.rotations import rotation_to_euler

LOST = 1.0  # seconds that an unseen head is waited for, under its number
# Seconds that the tracker counts between two frames at most: without a frame nobody is unseen.
_LONGEST_STEP = 0.999 * LOST
# Score from which a head may get a new number, and below which it may only carry on an old one.
START_SCORE, SURE_SCORE = 0.5, 0.5
LEAST_IOU = 0.1  # between where a head is expected and where it is found
_PACKAGE_RATE = 30.0  # frames a second in which the package counts how long it waits


class TrackedHead(NamedTuple):
    """A head of a frame.

    Attributes:
      head: as predicted.
      number: of the person, from 1 on; None before a second sight has confirmed a head, and for one
        that is too unsure for a number of its own.
      smoothed: (3, 3) the rotation smoothed along the person's earlier ones; None without a number.
    """

    head: Head
    number: int | None
    smoothed: np.ndarray | None

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) the smoothed rotation, or the raw one of a head without a number."""
        return self.head.rotation if self.smoothed is None else self.smoothed

    def to_json(self) -> dict[str, Any]:
        """What tracking adds to a head: `track`, and `smoothed` (rotation, yaw, pitch, roll)."""
        if self.smoothed is None:
            return {"track": None, "smoothed": None}
        angles = rotation_to_euler(self.smoothed, convention="canonical")
        smoothed = {
            "rotation": rounded_rotation(self.smoothed),
            **{
                n: round(float(a), 3) for n, a in zip(("yaw", "pitch", "roll"), angles, strict=True)
            },
        }
        return {"track": self.number, "smoothed": smoothed}


class HeadTracker:
    """Follows the heads of one video, frame by frame."""

    def __init__(self, rate: float):
        """Takes the frames a second of the video, the nominal ones where they vary.

        Raises:
          RuntimeError: the package trackers is missing; the message says how to install it.
        """
        self._tracker = _byte_track(rate)
        self._filters: dict[int, RotationFilter] = {}
        self._clock, self._newest = 0.0, -np.inf  # the tracker's time, and that of the video

    def __call__(self, heads: list[Head], seconds: float) -> list[TrackedHead]:
        """The heads of the next frame, in their order, with numbers and smoothed rotations."""
        numbers = self._numbers(heads, seconds)
        self._filters = {
            number: kept
            for number, kept in self._filters.items()
            if number in numbers or seconds - kept.seconds <= 2 * LOST
        }
        tracked = []
        for head, number in zip(heads, numbers, strict=True):
            smoothed = None
            if number is not None:
                smooth = self._filters.setdefault(number, RotationFilter())
                smoothed = smooth(head.rotation, seconds)
            tracked.append(TrackedHead(head, number, smoothed))
        return tracked

    def _numbers(self, heads: list[Head], seconds: float) -> list[int | None]:
        import supervision

        found = supervision.Detections(
            xyxy=np.array([h.box for h in heads], np.float32).reshape(-1, 4),
            confidence=np.array([h.score for h in heads], np.float32),
            class_id=np.zeros(len(heads), int),
            data={"index": np.arange(len(heads))},
        )
        result = self._tracker.update(found, timestamp=self._tick(seconds))
        numbers: list[int | None] = [None] * len(heads)
        # The package orders heads anew and numbers them from 0 on, -1 where there is no number.
        if len(result):
            for index, number in zip(result.data["index"], result.tracker_id, strict=True):
                numbers[index] = int(number) + 1 if number >= 0 else None
        return numbers

    def _tick(self, seconds: float) -> float:
        """The tracker's time at the next frame.

        The package ages everybody by the gap before it looks at the frame: after one longer than
        it waits it would know nobody again, who may be in two frames one after the other.
        """
        self._clock += min(seconds - self._newest, _LONGEST_STEP)
        self._newest = seconds
        return self._clock


def require_tracker() -> None:
    """Raises a RuntimeError that says how to install the package trackers where it is missing."""
    try:
        import trackers  # noqa: F401
    except ImportError as error:
        raise Failed(
            f"Tracking needs the package trackers ({error}): pip install 'mtnet-jax[track]' "
            "(in a clone: pip install -e '.[track]')."
        ) from error


def _byte_track(rate: float) -> Any:
    require_tracker()
    from trackers import ByteTrackTracker

    return ByteTrackTracker(
        lost_track_buffer=round(LOST * _PACKAGE_RATE),
        frame_rate=rate,
        track_activation_threshold=START_SCORE,
        high_conf_det_threshold=SURE_SCORE,
        minimum_iou_threshold=LEAST_IOU,
    )
