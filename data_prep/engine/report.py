"""What a conversion did: images, heads kept, dropped and ignored with reasons, histograms.

A report holds counts and the first few places of each event, never a list of all of them, so it
stays small for any number of images. Reports of parts of a conversion merge into one.
"""

from collections import Counter, defaultdict

import numpy as np

from data_prep.engine.description import Description
from mtnet_jax.rotations import rotation_to_euler

# Edges of the histograms; angles in degrees (canonical), box size = sqrt(width * height) in pixels.
# Angle bins are centred on multiples of 15 degrees so that labels on such a grid, those of
# Pointing'04, do not fall on an edge.
ANGLE_EDGES = np.arange(-187.5, 188, 15)
SIZE_EDGES = np.array([0, 8, 16, 32, 64, 128, 256, 512, 1024, np.inf])
EDGES = {
    **dict.fromkeys(("yaw", "pitch", "roll", "heading"), ANGLE_EDGES),
    "box size": SIZE_EDGES,
}
UNITS = {
    "yaw": "degrees, canonical",
    "pitch": "degrees, canonical",
    "roll": "degrees, canonical",
    "heading": "degrees, of heads with a heading alone",
    "box size": "pixels, sqrt(width height)",
}
HEADED = "heads with a heading alone"  # a count of a split
PLACES_KEPT = 5  # of each event
REASONS_KEPT = 100  # different reasons of each kind: some hold numbers, which differ every time
OTHER_REASONS = "other reasons"
_BUFFERED = 1024  # records counted at once
_BAR = 40


class Events(dict[str, list[str]]):
    """Reason -> the first few places where it happened; `counts` says how often it did."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How often anything happened."""
        return self.counts.total()

    def add(self, reason: str, *places: str, count: int = 1) -> None:
        """Counts `count` events of one reason, of which `places` are the first few."""
        reason = _written(reason)
        if reason not in self and len(self) >= REASONS_KEPT:
            reason = OTHER_REASONS
        self.counts[reason] += count
        kept = self.setdefault(reason, [])
        kept.extend(map(_written, places[: PLACES_KEPT - len(kept)]))

    def merge(self, other: "Events") -> None:
        """Adds the events of another part."""
        for reason, places in other.items():
            self.add(reason, *places, count=other.counts[reason])

    def as_dict(self) -> dict:
        """Reason -> count and first places, ready for JSON."""
        return {
            reason: {"count": self.counts[reason], "first": places}
            for reason, places in self.items()
        }

    def __reduce__(self):
        # dict's own way would lose `counts`.
        return (_events, (dict(self), self.counts))


def _written(text: str) -> str:
    """A text that can be written: halves of characters, as in names that are no UTF-8, escaped."""
    return text.encode(errors="backslashreplace").decode()


def _events(places: dict[str, list[str]], counts: Counter) -> Events:
    events = Events()
    events.update(places)
    events.counts = counts
    return events


class Report:
    """Collects what happened during a conversion, for people (text, page) and programs (JSON)."""

    def __init__(self, description: Description):
        self.description = description
        self.splits: dict[str, Counter] = defaultdict(Counter)
        self.labels: dict[str, Counter] = defaultdict(Counter)
        self.dropped_images = Events()
        self.dropped_heads = Events()
        self.ignored_heads = Events()
        self.notes = Events()
        self._histograms: dict[str, dict[str, np.ndarray]] = {}  # split -> name -> counts
        # split -> records not yet in the histograms: rotations, boxes, headings of unposed heads
        self._buffer: dict[str, list[tuple[np.ndarray, ...]]] = defaultdict(list)

    def keep(self, split: str, record: dict) -> None:
        """Counts a record that is written."""
        count, boxes = self.splits[split], record["boxes"]
        count["images"] += 1
        count["images without heads"] += not len(boxes)
        count["heads"] += len(boxes)
        count["heads with a pose"] += int(np.count_nonzero(record["has_pose"]))
        headed = record["has_heading"] & ~record["has_pose"]
        count[HEADED] += int(np.count_nonzero(headed))
        count["heads to be ignored"] += int(np.count_nonzero(record["ignore"]))
        names = self.description.label_names
        self.labels[split].update(names[label] for label in record["labels"].tolist())
        rotations, headings = record["rotations"][record["has_pose"]], record["headings"][headed]
        self._buffer[split].append((rotations, boxes, headings))
        if len(self._buffer[split]) >= _BUFFERED:
            self._count_buffered(split)

    def drop_image(self, reason: str, place: str) -> None:
        """Counts an image that is left out; `place` says which."""
        self.dropped_images.add(reason, place)

    def drop_head(self, reason: str, place: str) -> None:
        """Counts a head that is left out; `place` says where it stood."""
        self.dropped_heads.add(reason, place)

    def ignore_head(self, reason: str, place: str) -> None:
        """Counts a head that is written to be ignored; `place` says where it stands."""
        self.ignored_heads.add(reason, place)

    def note(self, event: str, place: str) -> None:
        """Counts anything else worth knowing: a missing label file, a box that was clipped."""
        self.notes.add(event, place)

    def merge(self, other: "Report") -> None:
        """Adds the report of another part of the same conversion, one that came later."""
        for split, count in other.splits.items():
            self.splits[split].update(count)
            self.labels[split].update(other.labels[split])
            mine = self._counts(split)
            for name, counts in other._counts(split).items():
                mine[name] += counts
        for title, events in self.events().items():
            events.merge(other.events()[title])

    def events(self) -> dict[str, Events]:
        """Title -> events, in the order in which they are told."""
        return {
            "dropped images": self.dropped_images,
            "dropped heads": self.dropped_heads,
            "ignored heads": self.ignored_heads,
            "notes": self.notes,
        }

    def histograms(self) -> dict[str, dict[str, np.ndarray]]:
        """Name -> split -> counts for yaw, pitch, roll (heads with a pose), heading and box size.

        The edges of the bins are those of `EDGES`. Few sets have headings: without any their
        histogram is left out.
        """
        headed = any(count[HEADED] for count in self.splits.values())
        return {
            name: {split: self._counts(split)[name] for split in self.splits}
            for name in EDGES
            if headed or name != "heading"
        }

    def as_dict(self) -> dict:
        """Everything, ready for JSON (the last edge of box size is null: no limit)."""
        histograms = {
            name: {
                "edges": [None if np.isinf(edge) else float(edge) for edge in EDGES[name]],
                "counts": _sum(splits, name).tolist(),
                "splits": {split: counts.tolist() for split, counts in splits.items()},
            }
            for name, splits in self.histograms().items()
        }
        return {
            "name": self.description.name,
            "version": self.description.version,
            "box_rule": self.description.box_rule,
            "label_names": list(self.description.label_names),
            "splits": {
                split: {**count, "labels": dict(sorted(self.labels[split].items()))}
                for split, count in self.splits.items()
            },
            **{title: events.as_dict() for title, events in self.events().items()},
            "histograms": histograms,
        }

    def text(self) -> str:
        """The report as lines of text."""
        about = self.description
        lines = [f"{about.name} {about.version}, box rule {about.box_rule!r}"]
        for split, count in self.splits.items():
            labels = ", ".join(f"{n} {name}" for name, n in sorted(self.labels[split].items()))
            alone = count[HEADED]
            lines.append(
                f"  {split}: {count['images']} images "
                f"({count['images without heads']} without heads), "
                f"{count['heads']} heads ({labels or 'none'}), "
                f"{count['heads with a pose']} with a pose, "
                + (f"{alone} with a heading alone, " if alone else "")
                + f"{count['heads to be ignored']} to be ignored"
            )
        for title, events in self.events().items():
            lines.append(f"{title}: {events.total}")
            for event, places in events.items():
                more = " ..." if events.counts[event] > len(places) else ""
                lines.append(f"  {events.counts[event]} {event}: {', '.join(places)}{more}")
        for name, splits in self.histograms().items():
            lines += _histogram_lines(name, _sum(splits, name))
        return "\n".join(lines) + "\n"

    def __getstate__(self) -> dict:
        for split in self._buffer:
            self._count_buffered(split)
        return self.__dict__

    def _counts(self, split: str) -> dict[str, np.ndarray]:
        self._count_buffered(split)
        return self._histograms[split]

    def _count_buffered(self, split: str) -> None:
        """Moves the records that wait into the histograms, many at once, which is much faster."""
        counts = self._histograms.setdefault(
            split, {name: np.zeros(len(edges) - 1, np.int64) for name, edges in EDGES.items()}
        )
        waiting, self._buffer[split] = self._buffer[split], []
        if not waiting:
            return
        rotations, boxes, headings = map(np.concatenate, zip(*waiting, strict=True))
        angles = rotation_to_euler(rotations, convention="canonical").reshape(-1, 3)
        sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        for name, values in zip(EDGES, (*angles.T, headings, sizes), strict=True):
            counts[name] += np.histogram(values, EDGES[name])[0]


def _sum(splits: dict[str, np.ndarray], name: str) -> np.ndarray:
    return np.sum(list(splits.values()), axis=0, initial=0) + np.zeros(
        len(EDGES[name]) - 1, np.int64
    )


def _histogram_lines(name: str, counts: np.ndarray) -> list[str]:
    edges, used = EDGES[name], np.flatnonzero(counts)
    if not len(used):
        return [f"{name}: none"]
    lines = [f"{name} ({UNITS[name]})"]
    for i in range(used[0], used[-1] + 1):
        bar = "#" * int(np.ceil(_BAR * counts[i] / counts.max()))
        lines.append(f"  {edges[i]:7.1f} to {edges[i + 1]:7.1f}  {counts[i]:7d}  {bar}")
    return lines
