"""What a conversion did: pictures, heads kept, dropped and ignored with reasons, histograms."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtnet_jax.rotations import rotation_to_euler

if TYPE_CHECKING:
    from data_prep.conversion import Description

# Edges of the histograms; angles in degrees (canonical), box size = sqrt(width * height) in pixels.
# Angle bins are centred on multiples of 15 degrees so that labels on such a grid, those of
# Pointing'04, do not fall on an edge.
ANGLE_EDGES = np.arange(-187.5, 188, 15)
SIZE_EDGES = np.array([0, 8, 16, 32, 64, 128, 256, 512, 1024, np.inf])
PLACES_KEPT = 5
_BAR = 40


class Report:
    """Collects what happened during a conversion, for people (text) and programs (JSON)."""

    def __init__(self, description: "Description"):
        self.description = description
        self.splits: dict[str, Counter] = defaultdict(Counter)
        self.labels: dict[str, Counter] = defaultdict(Counter)
        self.dropped_pictures: dict[str, list[str]] = defaultdict(list)
        self.dropped_heads: dict[str, list[str]] = defaultdict(list)
        self.ignored_heads: dict[str, list[str]] = defaultdict(list)
        self.notes: dict[str, list[str]] = defaultdict(list)
        self._angles: list[np.ndarray] = []  # (n, 3) yaw, pitch, roll
        self._sizes: list[np.ndarray] = []  # (n,)

    def keep(self, split: str, record: dict) -> None:
        """Counts a record that is written."""
        count, boxes = self.splits[split], record["boxes"]
        count["pictures"] += 1
        count["pictures without heads"] += not len(boxes)
        count["heads"] += len(boxes)
        count["heads with a pose"] += int(record["has_pose"].sum())
        count["heads to be ignored"] += int(record["ignore"].sum())
        names = self.description.label_names
        self.labels[split].update(names[label] for label in record["labels"])
        posed = record["rotations"][record["has_pose"]]
        self._angles.append(rotation_to_euler(posed, convention="canonical").reshape(-1, 3))
        self._sizes.append(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))

    def drop_picture(self, reason: str, place: str) -> None:
        """Counts a picture that is left out; `place` says which."""
        self.dropped_pictures[reason].append(place)

    def drop_head(self, reason: str, place: str) -> None:
        """Counts a head that is left out; `place` says where it stood."""
        self.dropped_heads[reason].append(place)

    def ignore_head(self, reason: str, place: str) -> None:
        """Counts a head that is written to be ignored; `place` says where it stands."""
        self.ignored_heads[reason].append(place)

    def note(self, event: str, place: str) -> None:
        """Counts anything else worth knowing: a missing label file, a box that was clipped."""
        self.notes[event].append(place)

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Name -> (edges, counts) for yaw, pitch, roll (heads with a pose) and box size."""
        angles = np.concatenate([np.zeros((0, 3)), *self._angles])
        sizes = np.concatenate([np.zeros(0), *self._sizes])
        result = {
            name: (ANGLE_EDGES, np.histogram(angles[:, i], ANGLE_EDGES)[0])
            for i, name in enumerate(("yaw", "pitch", "roll"))
        }
        result["box size"] = (SIZE_EDGES, np.histogram(sizes, SIZE_EDGES)[0])
        return result

    def as_dict(self) -> dict:
        """Everything, ready for JSON (the last edge of box size is null: no limit)."""
        histograms = {
            name: {
                "edges": [None if np.isinf(edge) else float(edge) for edge in edges],
                "counts": counts.tolist(),
            }
            for name, (edges, counts) in self.histograms().items()
        }
        return {
            "name": self.description.name,
            "version": self.description.version,
            "box_rule": self.description.box_rule,
            "label_names": list(self.description.label_names),
            "splits": {
                split: {**count, "labels": dict(self.labels[split])}
                for split, count in self.splits.items()
            },
            **{title: _summary(events) for title, events in self._events().items()},
            "histograms": histograms,
        }

    def text(self) -> str:
        """The report as lines of text."""
        about = self.description
        lines = [f"{about.name} {about.version}, box rule {about.box_rule!r}"]
        for split, count in self.splits.items():
            labels = ", ".join(f"{n} {name}" for name, n in sorted(self.labels[split].items()))
            lines.append(
                f"  {split}: {count['pictures']} pictures "
                f"({count['pictures without heads']} without heads), "
                f"{count['heads']} heads ({labels or 'none'}), "
                f"{count['heads with a pose']} with a pose, "
                f"{count['heads to be ignored']} to be ignored"
            )
        for title, events in self._events().items():
            lines.append(f"{title}: {sum(map(len, events.values()))}")
            for event, places in events.items():
                more = " ..." if len(places) > PLACES_KEPT else ""
                lines.append(f"  {len(places)} {event}: {', '.join(places[:PLACES_KEPT])}{more}")
        for name, (edges, counts) in self.histograms().items():
            lines += _histogram_lines(name, edges, counts)
        return "\n".join(lines) + "\n"

    def _events(self) -> dict[str, dict[str, list[str]]]:
        return {
            "dropped pictures": self.dropped_pictures,
            "dropped heads": self.dropped_heads,
            "ignored heads": self.ignored_heads,
            "notes": self.notes,
        }

    def write(self, directory: Path) -> None:
        """Writes conversion.txt and conversion.json into a directory."""
        (directory / "conversion.txt").write_text(self.text(), encoding="utf-8")
        text = json.dumps(self.as_dict(), indent=1) + "\n"
        (directory / "conversion.json").write_text(text, encoding="utf-8")


def _summary(events: dict[str, list[str]]) -> dict:
    return {
        event: {"count": len(places), "first": places[:PLACES_KEPT]}
        for event, places in events.items()
    }


def _histogram_lines(name: str, edges: np.ndarray, counts: np.ndarray) -> list[str]:
    used = np.flatnonzero(counts)
    if not len(used):
        return [f"{name}: none"]
    unit = "pixels, sqrt(width height)" if name == "box size" else "degrees, canonical"
    lines = [f"{name} ({unit})"]
    for i in range(used[0], used[-1] + 1):
        bar = "#" * int(np.ceil(_BAR * counts[i] / counts.max()))
        lines.append(f"  {edges[i]:7.1f} to {edges[i + 1]:7.1f}  {counts[i]:7d}  {bar}")
    return lines
