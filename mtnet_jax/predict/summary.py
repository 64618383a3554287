"""For how long each person of a video looks into the camera, left, right, up, down, away."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.columns import align
from mtnet_jax.predict.tracking import TrackedHead

DIRECTIONS = ("camera", "left", "right", "up", "down", "away")
CAMERA_WITHIN = 25.0  # degrees between the face normal and the line to the camera
AWAY_BEYOND = 120.0  # a profile, 90 degrees, is surely left or right
_BRIEF = 0.5  # seconds: persons seen for less are counted in the table, not listed


class Interval(NamedTuple):
    """A time in which a person looks one way."""

    start: float  # seconds
    end: float
    direction: str


@dataclass
class Person:
    """A numbered head: when it was seen, and where it looked."""

    number: int
    intervals: list[Interval] = field(default_factory=list)

    def add(self, new: Interval) -> None:
        """Adds what comes next; a direction that goes on makes one interval longer."""
        last = self.intervals[-1] if self.intervals else None
        if last and last.end == new.start and last.direction == new.direction:
            self.intervals[-1] = Interval(last.start, new.end, new.direction)
        else:
            self.intervals.append(new)

    @property
    def seconds(self) -> dict[str, float]:
        """Direction -> seconds."""
        return {
            direction: sum(i.end - i.start for i in self.intervals if i.direction == direction)
            for direction in DIRECTIONS
        }

    @property
    def seen(self) -> float:
        """Seconds in which the person was found."""
        return sum(self.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "track": self.number,
            "first": round(self.intervals[0].start, 4),
            "last": round(self.intervals[-1].end, 4),
            "seen": round(self.seen, 4),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "intervals": [
                [round(i.start, 4), round(i.end, 4), i.direction] for i in self.intervals
            ],
        }


class Summary:
    """Gathers the directions of everybody, frame by frame.

    A frame lasts until the next one, the last one as long as the one before it.
    """

    def __init__(self):
        self._persons: dict[int, Person] = {}
        self._open: list[tuple[int, str]] = []  # of the newest frame: number, direction
        self._since: float | None = None
        self._duration = 0.0

    def add(self, heads: Iterable[TrackedHead], seconds: float) -> None:
        """Takes the heads of the next frame and its time."""
        if self._since is not None:
            end = max(seconds, self._since)
            self._duration = end - self._since
            self._close(end)
        self._since = seconds
        self._open = [(h.number, direction(h.rotation)) for h in heads if h.number is not None]

    def persons(self) -> list[Person]:
        """Everybody, by number, after the last frame."""
        self._close((self._since or 0.0) + self._duration)
        return [self._persons[number] for number in sorted(self._persons)]

    def _close(self, end: float) -> None:
        """Ends the newest frame. What goes on must begin at this very number."""
        since = self._since or 0.0  # None before the first frame, when nothing is open
        for number, towards in self._open:
            person = self._persons.setdefault(number, Person(number))
            person.add(Interval(since, end, towards))
        self._open = []


def direction(rotation: np.ndarray) -> str:
    """Where a face looks, as the image shows it; one of `DIRECTIONS`.

    Args:
      rotation: (3, 3) head axes to those of its frame. Relative to the ray through the head (frame
        `ray`) "camera" is the lens; in the frame `camera` it is the direction of the optical axis.
    """
    x, y, z = -np.asarray(rotation)[:, 2]  # out of the face
    off = np.rad2deg(np.arctan2(np.hypot(x, y), -z))  # z points into the scene
    if off <= CAMERA_WITHIN:
        return "camera"
    if off > AWAY_BEYOND:
        return "away"
    if abs(x) >= abs(y):
        return "left" if x < 0 else "right"
    return "up" if y < 0 else "down"


def table(persons: list[Person]) -> str:
    """Seconds of each person, a line a person, for the terminal."""
    listed = [p for p in persons if p.seen >= _BRIEF]
    rows: list[tuple[str, ...]] = [("person", "seen", *DIRECTIONS)]
    for person in listed:
        values = (person.seen, *person.seconds.values())
        rows.append((str(person.number), *(f"{value:.1f} s" for value in values)))
    lines = [align(rows, left=())] if listed else []
    if brief := len(persons) - len(listed):
        lines.append(f"{brief} seen for less than {_BRIEF} s: not in this table")
    return "\n".join(lines) or "nobody was followed"


def to_json(persons: list[Person]) -> dict[str, Any]:
    """The summary as a file has it, with what its words mean."""
    return {
        "camera_within_degrees": CAMERA_WITHIN,
        "away_beyond_degrees": AWAY_BEYOND,
        "persons": [person.to_json() for person in persons],
    }


def span(persons: list[Person]) -> tuple[float, float]:
    """First and last second in which somebody is seen; (0, 0): nobody is."""
    times = [t for p in persons for t in itertools.chain.from_iterable(i[:2] for i in p.intervals)]
    return (min(times), max(times)) if times else (0.0, 0.0)
