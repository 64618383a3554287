"""What `mtnet predict --track` adds to a video: numbers, smoothed rotations, summary, timeline."""

import json
from pathlib import Path
from typing import Any

from mtnet_jax.outputs import Outputs
from mtnet_jax.predict import summary
from mtnet_jax.predict.head import Head, as_arrays
from mtnet_jax.predict.summary import Person, Summary
from mtnet_jax.predict.tracking import HeadTracker


class Following:
    """Follows the people of one video, frame by frame."""

    def __init__(self, rate: float):
        """Takes the frames a second of the video; see `HeadTracker`."""
        self._tracker = HeadTracker(rate)
        self._summary = Summary()

    def take(self, heads: list[Head], entry: dict[str, Any]) -> tuple[dict[str, Any], dict]:
        """The next frame.

        Args:
          heads: of the frame.
          entry: their JSON object, with "seconds" and "heads".

        Returns:
          The object with `track` and `smoothed` in each head, and the arrays to draw: smoothed
          rotations, names like "#3".
        """
        tracked = self._tracker(heads, entry["seconds"])
        self._summary.add(tracked, entry["seconds"])
        both = zip(entry["heads"], tracked, strict=True)
        entry = {**entry, "heads": [{**raw, **head.to_json()} for raw, head in both]}
        arrays: dict[str, Any] = as_arrays(heads)
        if tracked:
            arrays["rotations"] = [head.rotation for head in tracked]
        arrays["names"] = [f"#{h.number}" if h.number is not None else "" for h in tracked]
        return entry, arrays

    def persons(self) -> list[Person]:
        """Everybody who got a number, after the last frame."""
        return self._summary.persons()


def summary_files(place: Path) -> tuple[Path, Path]:
    """NAME.summary.json and NAME.timeline.png, for a folder and NAME (an ending is left off)."""
    return place.with_suffix(".summary.json"), place.with_suffix(".timeline.png")


def write_summary(outputs: Outputs, persons: list[Person], place: Path, of: str) -> None:
    """Writes NAME.summary.json and NAME.timeline.png.

    Args:
      outputs: of the command.
      persons: who was followed.
      place: see `summary_files`.
      of: the video, as `outputs` names the input.
    """
    from mtnet_jax.predict.timeline import plot_timeline  # loads matplotlib

    text = json.dumps(summary.to_json(persons), indent=1)
    numbers, timeline = summary_files(place)
    outputs.write(numbers, text + "\n", of)
    with outputs.writing(timeline, of) as file:
        plot_timeline(persons, file)
