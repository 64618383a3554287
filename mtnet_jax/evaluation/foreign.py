"""Predictions of other programs, read from JSON and evaluated like our own.

    {"convention": "canonical", "frame": "camera", "images": [
      {"image": "rooms/0012.jpg", "heads": [
        {"box": [12, 30, 96, 131], "score": 0.93, "yaw": -31.0, "pitch": 4.5, "roll": 2.0}]}]}

Or the list of images alone, as `mtnet predict --json` writes it. A head has a `box` (left, top,
right, bottom in pixels of the image), a `score` (1 where it has none), and a pose: `rotation`
(three rows, head axes to camera axes) or `yaw`, `pitch`, `roll` in degrees, of the `convention`
that the file names (`mtnet_jax.rotations.CONVENTIONS`); a head without either has a box alone.
`frame` (of the file or of each head) says what rotations are relative to: `camera` (the default)
or `ray`.
`label` names the class where there are several. docs/evaluation.md has all of it.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mtnet_jax.data.listing import IMAGE_SUFFIXES
from mtnet_jax.data.records import FRAMES
from mtnet_jax.errors import NOT_JSON, BadInput, MissingFile
from mtnet_jax.places import Place, place
from mtnet_jax.rotations import (
    CONVENTIONS,
    euler_to_rotation,
    nearest_rotation,
    radians_warning,
    rotation_faults,
)

SUFFIX = ".json"
ANGLES = ("yaw", "pitch", "roll")
ROUGH = 0.05  # how far the products of a rotation's columns may be off: two digits a number
_NAMED = 5  # images in a message


@dataclass(frozen=True)
class Seen:
    """What a program found in one image.

    Attributes:
      where: the file and its name of the image, for messages.
      heads: "boxes", "scores", "labels" and "rotations", see `ForeignPredictions`.
      size: width and height of what was looked at, where the file says it.
    """

    where: str
    heads: Mapping[str, np.ndarray]
    size: tuple[Any, Any] | None = None

    def in_image(self, size: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """The heads in an image of this width and height.

        Raises:
          BadInput: the file says another size.
        """
        if self.size not in (None, size):
            raise BadInput(
                f"{self.where}: its boxes are of {self.size} pixels (width, height), and the image "
                f"has {size}: was it scaled, or turned by EXIF?"
            )
        return self.heads


@dataclass(frozen=True)
class ForeignPredictions:
    """What a program found in images.

    Attributes:
      path: the file.
      class_names: of its heads.
      frame: what its rotations are relative to, "camera" or "ray".
      labelled: whether heads name their class.
      heads: name of an image -> "boxes" (m, 4), "scores" (m,), "labels" (m,), "rotations"
        (m, 3, 3), which are NaN for a head without a pose.
      sizes: name of an image -> width and height of what was looked at, where the file says it.
      warning: where its angles look like radians; else empty.
    """

    path: Place
    class_names: tuple[str, ...]
    frame: str
    labelled: bool
    heads: Mapping[str, Mapping[str, np.ndarray]]
    sizes: Mapping[str, tuple[Any, Any]]
    warning: str

    def among(self, label_names: Sequence[str]) -> "ForeignPredictions":
        """These predictions by the classes of a record set, where it has all of their labels, also
        those that none of these heads has; else as they are."""
        names = tuple(label_names)
        if not self.labelled or not set(self.class_names) <= set(names):
            return self
        ids = np.array([names.index(label) for label in self.class_names])
        heads = {n: {**of, "labels": ids[of["labels"]]} for n, of in self.heads.items()}
        return replace(self, class_names=names, heads=heads)

    def of_images(
        self, image_ids: Sequence[str], sizes: Sequence[tuple[int, int]] = ()
    ) -> list[Mapping[str, np.ndarray]]:
        """The heads of each image of a record set.

        An image is known by its whole name, or else without the ending of the file, or else by the
        last part of that: where no other image of either side has the same.

        Args:
          image_ids: names of the images.
          sizes: width and height of each, to be compared with what the file says; none: not.

        Raises:
          BadInput: images that the file does not name, or of which it says another size.
        """
        found = self.seen(image_ids)
        if not sizes:
            return [each.heads for each in found]
        return [each.in_image(size) for each, size in zip(found, sizes, strict=True)]

    def seen(self, image_ids: Sequence[str]) -> list[Seen]:
        """What the file says of each image, for sizes that are known later; see `of_images`.

        Raises:
          BadInput: images that the file does not name.
        """
        names = matched_names(image_ids, self.heads)
        missing = [image for image, name in zip(image_ids, names, strict=True) if name is None]
        if missing:
            shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            raise BadInput(
                f"{self.path} says nothing of {len(missing)} of {len(image_ids)} images: {shown}. "
                'An image without a head needs an entry with "heads": [].'
            )
        return [
            Seen(f"{self.path}, image {name}", self.heads[name], self.sizes.get(name))
            for name in names
            if name is not None
        ]


def is_foreign(weights: Any) -> bool:
    """Whether what is evaluated is a file of predictions and no network."""
    return place(weights).suffix == SUFFIX


def read_predictions(path: Any) -> ForeignPredictions:
    """Reads predictions; the format is that of this module.

    Raises:
      MissingFile: no such file.
      BadInput: it is not of the format; the message names the image, the head and the field.
    """
    path = place(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError as error:
        raise MissingFile(f"No predictions at {path}.") from error
    except NOT_JSON as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error
    about: Mapping[str, Any] = content if isinstance(content, dict) else {}
    entries = about.get("images") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise BadInput(
            f'{path} is no list of images, nor has it one as "images" (docs/evaluation.md).'
        )
    convention = about.get("convention")
    if convention is not None and _text(convention, f"{path}: convention") not in CONVENTIONS:
        raise BadInput(f"{path}: convention {convention!r}: choose one of {sorted(CONVENTIONS)}.")
    images = [_image(entry, number, path) for number, entry in enumerate(entries)]
    frame = _frame(path, about.get("frame"), (head for _, heads in images for head in heads))
    labels = [head["label"] for _, heads in images for head in heads if "label" in head]
    class_names = tuple(sorted({_text(label, f"{path}: label") for label in labels})) or ("head",)
    found: dict[str, Mapping[str, np.ndarray]] = {}
    for name, heads in images:
        if name in found:
            raise BadInput(f"{path} names the image {name} twice.")
        found[name] = _arrays(heads, f"{path}, image {name}", convention, class_names)
    sizes = {
        entry["image"]: (entry["width"], entry["height"])
        for entry in entries
        if entry.get("width") is not None and entry.get("height") is not None
    }
    warning = radians_warning(
        tuple(float(head[angle]) for angle in ANGLES)
        for _, heads in images
        for head in heads
        if head.get("rotation") is None and any(head.get(a) is not None for a in ANGLES)
    )
    return ForeignPredictions(path, class_names, frame, bool(labels), found, sizes, warning)


def _image(entry: Any, number: int, path: Place) -> tuple[str, list[dict]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise BadInput(f'{path}: entry {number} names no "image".')
    heads = entry.get("heads")
    if not isinstance(heads, list) or not all(isinstance(head, dict) for head in heads):
        raise BadInput(f'{path}, image {entry["image"]}: "heads" is no list of heads.')
    return entry["image"], heads


def _frame(path: Place, named: Any, heads: Iterable[dict]) -> str:
    """The frame of all rotations of a file."""
    said = [head["frame"] for head in heads if "frame" in head]
    frames = {_text(frame, f"{path}: frame") for frame in (*said, named) if frame is not None}
    if len(frames) > 1 or not frames <= set(FRAMES):
        raise BadInput(
            f"{path}: frame {', '.join(sorted(map(repr, frames)))}: all rotations of a file are "
            f"relative to one of {FRAMES}."
        )
    return frames.pop() if frames else "camera"


def _text(value: Any, what: str) -> str:
    """A name; numbers are names too."""
    if not isinstance(value, str | int):
        raise BadInput(f"{what} {value!r} is no name.")
    return str(value)


def _arrays(
    heads: list[dict], where: str, convention: str | None, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    places = [f"{where}, head {number}" for number in range(len(heads))]
    boxes = [_numbers(head, "box", (4,), at) for head, at in zip(heads, places, strict=True)]
    for box, at in zip(boxes, places, strict=True):
        if not (box[2:] > box[:2]).all():
            raise BadInput(f"{at}: box {box.tolist()} is not left, top, right, bottom.")
        if box.min() >= 0 and box.max() <= 1:  # no head of a pixel is found
            raise BadInput(
                f"{at}: box {box.tolist()} looks like parts of the image: give pixels, x times "
                "its width and y times its height."
            )
    scores = [
        _numbers(head, "score", (), at) if "score" in head else np.ones(())
        for head, at in zip(heads, places, strict=True)
    ]
    for score, at in zip(scores, places, strict=True):
        if not 0 <= score <= 1:
            raise BadInput(
                f"{at}: score {score:g} is not from 0 to 1: divide percentages by 100, take the "
                "sigmoid of logits."
            )
    rotations = [_rotation(h, at, convention) for h, at in zip(heads, places, strict=True)]
    if len(class_names) > 1 and not all("label" in head for head in heads):
        raise BadInput(f"{where}: a head has no label, while heads of this file have one.")
    return {
        "boxes": np.array(boxes, np.float64).reshape(-1, 4),
        "scores": np.array(scores, np.float64).reshape(-1),
        "labels": np.array(
            [class_names.index(str(head.get("label", class_names[0]))) for head in heads], np.int64
        ),
        "rotations": np.array(rotations, np.float64).reshape(-1, 3, 3),
    }


def _rotation(head: dict, where: str, convention: str | None) -> np.ndarray:
    if head.get("rotation") is not None:
        rotation = _numbers(head, "rotation", (3, 3), where)
        if rotation_faults(rotation, ROUGH):
            mirrored = " (a mirror image: is one axis turned round?)"
            raise BadInput(
                f"{where}: rotation {rotation.tolist()} is not a rotation"
                f"{mirrored if np.linalg.det(rotation) < 0 else ''}: its rows and columns must be "
                "of length 1, at right angles, its determinant 1."
            )
        # Of few digits it is one within them, and would be left out for that.
        return nearest_rotation(rotation) if rotation_faults(rotation) else rotation
    if not any(head.get(angle) is not None for angle in ANGLES):
        return np.full((3, 3), np.nan)
    if convention is None:
        raise BadInput(
            f"{where}: it has angles and no rotation, and the file names no convention: give it "
            f'"convention", one of {sorted(CONVENTIONS)} (docs/conventions.md).'
        )
    angles = np.array([_numbers(head, angle, (), where) for angle in ANGLES])
    return euler_to_rotation(angles, convention=convention)


def _numbers(head: dict, field: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        values = np.asarray(head.get(field), np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.full(1, np.nan)
    if values.shape != shape or not np.isfinite(values).all():
        wanted = f"{math.prod(shape)} finite numbers" if shape else "a finite number"
        raise BadInput(f"{where}: {field} {head.get(field)!r} is not {wanted}.")
    return values


def _key(name: str) -> str:
    """The name of an image without the ending of its file."""
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def _last(name: str) -> str:
    return PurePosixPath(_key(name)).name


def matched_names(image_ids: Sequence[str], names: Iterable[str]) -> list[str | None]:
    """The name in the file of each image, None where there is none."""
    names, found = list(names), dict[str, str]()  # image -> name
    for of_name, of_image in ((str, str), (_key, str), (_key, _key), (_last, _last)):
        there, wanted = defaultdict(list), defaultdict(list)
        for name in names:
            there[of_name(name)].append(name)
        for image in dict.fromkeys(image_ids):
            wanted[of_image(image)].append(image)
        for key, (image, *others) in wanted.items():
            if not others and len(there[key]) == 1:
                found.setdefault(image, there[key][0])
    return [found.get(image) for image in image_ids]
