"""YOLO's label files: a line a head, as a box, a box with keypoints, or a polygon."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.own.dialects import number, read_text, whole
from mtnet_jax.errors import BadInput

_VISIBILITIES = (0.0, 1.0, 2.0)  # of a keypoint: unlabelled, hidden, visible


class Keypoints(NamedTuple):
    """What data.yaml says of the keypoints after each box (kpt_shape)."""

    points: int  # of a box; 0: there are none
    values: int  # of each: x, y, and how well it is seen


class Labels(NamedTuple):
    """What a label file says."""

    boxes: np.ndarray  # (n, 4) float64 cxcywh as fractions of the image
    classes: np.ndarray  # (n,) int64
    polygons: int  # of them were polygons
    keypoints: int  # of them had keypoints


def parse_labels(path: Path, class_count: int, keypoints: Keypoints | None = None) -> Labels:
    """Boxes and classes of a label file.

    Args:
      path: one box or polygon a line, numbers separated by spaces, tabs, commas or semicolons.
      class_count: classes run from 0 to class_count - 1.
      keypoints: after each box; None where data.yaml says nothing of them.

    Returns:
      The labels.

    Raises:
      BadInput: a line that cannot be understood, or a class that does not exist; names the line.
    """
    boxes, classes, shapes = [], [], []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        words = _words(line)
        if not words:
            continue
        place = f"{path}, line {line_number}: {line.strip()!r}"
        label = _class(words[0], class_count, place)
        box, shape = _box([number(word, place) for word in words[1:]], place, keypoints)
        boxes.append(box)
        classes.append(label)
        shapes.append(shape)
    return Labels(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(classes, np.int64),
        shapes.count("polygon"),
        shapes.count("keypoints"),
    )


def _words(line: str) -> list[str]:
    """The numbers of a line. A comma inside words that spaces separate is a decimal comma."""
    words = line.replace(";", " ").split()
    if len(words) == 1 or all(word.endswith(",") for word in words[:-1]):
        return line.replace(";", " ").replace(",", " ").split()
    return words


def _class(word: str, class_count: int, place: str) -> int:
    label = whole(word, f"{place}: the class, which comes first")
    if not 0 <= label < class_count:
        raise BadInput(
            f"{place}: class {label}, but data.yaml (or classes.txt) names {class_count} classes: "
            f"0 to {class_count - 1}"
        )
    return label


def _box(numbers: list[float], place: str, keypoints: Keypoints | None) -> tuple[list[float], str]:
    """The box (cxcywh) of a line without its class, and what the line was besides a box."""
    shape = _shape(numbers, place, keypoints)
    if not all(map(math.isfinite, numbers)):
        raise BadInput(f"{place}: the box must be finite")
    if max(map(abs, numbers if shape == "polygon" else numbers[:4])) > 2:
        raise BadInput(
            f"{place}: expected fractions of the image (0 to 1), these look like pixels: "
            "divide x and width by the width of the image, y and height by its height"
        )
    if shape != "polygon":
        return numbers[:4], shape
    xs, ys = numbers[::2], numbers[1::2]
    middle = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2]
    return [*middle, max(xs) - min(xs), max(ys) - min(ys)], shape


def _shape(numbers: list[float], place: str, keypoints: Keypoints | None) -> str:
    """What a line is besides a box: "keypoints", "polygon", or nothing."""
    count = len(numbers)
    if count == 4:
        return ""
    if keypoints and keypoints.points:
        expected = 4 + keypoints.points * keypoints.values
        if count == expected:
            return "keypoints"
        raise BadInput(
            f"{place}: {count + 1} numbers, expected 5 (class cx cy width height) or, after "
            f"kpt_shape: {list(keypoints)} in data.yaml, {expected + 1}"
        )
    if count == 5:
        raise BadInput(
            f"{place}: 6 numbers, expected 5 (class cx cy width height); the last one looks like a "
            "confidence, as predictions have: labels have none, so remove it (and what nobody has "
            "looked at)"
        )
    seen = keypoints is None and _has_visibilities(numbers)
    polygon = count > 4 and count % 2 == 0
    if not (seen or polygon):
        raise BadInput(
            f"{place}: {count + 1} numbers, expected 5 (class cx cy width height), or a "
            "polygon (class x1 y1 x2 y2 x3 y3 ...)"
        )
    # A 2 lies outside the image: no corner of a polygon.
    if seen and polygon and max(numbers) < 2:
        raise BadInput(
            f"{place}: can be a box with keypoints or a polygon: write into data.yaml kpt_shape: "
            f"[{(count - 4) // 3}, 3] for keypoints, kpt_shape: [0, 0] for polygons"
        )
    return "keypoints" if seen else "polygon"


def _has_visibilities(numbers: list[float]) -> bool:
    """Whether after a box stand x, y and how well it is seen, of each keypoint."""
    return (
        len(numbers) > 6
        and (len(numbers) - 4) % 3 == 0
        and all(number in _VISIBILITIES for number in numbers[6::3])
    )
