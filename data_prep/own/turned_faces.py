"""Photographs of a record set, their faces turned in three dimensions to where few people look.

Most faces in photographs look ahead, and what face meshes say of profiles is of little use, so
networks that learn from either read turned faces as too frontal. Here a face whose rotation is
known is turned further by a known angle (`data_prep/own/face_turning.py`), which makes a photograph
of a rotation that is known as well.

--raw DIR: a record set. Taken are its images with one head, which knows its rotation, and on which
one face of --landmarks lies; all others are counted and left out. Two in three are turned to the
side, outward, to a heading of 22 to 78 degrees but by 50 at most, with a small nod; the others up
or down by 10 to 26 degrees. The same image is always turned in the same ways, of which there are
--turns. It is scaled until the head is some 170 pixels long, and is at most 400 pixels long.

--landmarks FILE: predictions of MediaPipe's face mesh with its landmarks, for the same images
(`mtnet data images` writes them), as `benchmarks/peers.py mediapipe --landmarks` makes them: JSON
as in docs/evaluation.md, every head with "landmarks", 468 times [x, y, z] in pixels of the image,
z larger behind.
"""

import argparse
import contextlib
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.engine.conversion import Conversion
from data_prep.engine.heads import HeadsOfImage
from data_prep.engine.report import Report
from data_prep.own.crops import as_jpeg
from data_prep.own.face_turning import LANDMARKS, TurnedFace, face_in_space, turn_face
from data_prep.own.record_items import (
    RecordItem,
    add_splits,
    description_of,
    image_ids,
    record_items,
    record_of,
)
from mtnet_jax.data.images import decode_image, image_size
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import NOT_JSON, BadInput, MissingFile
from mtnet_jax.evaluation.foreign import matched_names
from mtnet_jax.option_types import positive
from mtnet_jax.places import Place, place_argument
from mtnet_jax.rotations import axis_rotation, heading_degrees

TO_THE_SIDE = 0.65  # share of the images
HEADINGS = (22.0, 78.0)  # degrees, to which these are turned
FURTHEST = 50.0  # degrees, by which
NOD = 9.0  # degrees, deviation of their turn up or down
NODS = (10.0, 26.0)  # degrees, by which the others are turned up or down
SWAY = 8.0  # degrees, deviation of their turn to the side
STEEPEST = 40.0  # degrees up or down that no face looks beyond
AHEAD = 4.0  # degrees of heading, up to which a face may be turned to either side
LEAST_FACE = 24.0  # pixels of what is written, longer side of a face that shows enough
LONGEST = 400  # pixels, of the images that are written


@dataclass(frozen=True)
class Meshes:
    """The faces that the mesh found in an image, (468, 3) each, and its size where that is said."""

    landmarks: tuple[np.ndarray, ...]
    size: tuple[int, int] | None  # width, height


@dataclass(frozen=True)
class Face:
    """A record, and what the mesh found in its image."""

    record: RecordItem
    found: Meshes


def read_turned(face: Face, report: Report, *, name: str, turns: int) -> Iterator[dict]:
    """The records of an image whose face was turned, one a turn."""
    item = face.record
    record = record_of(item, frame="ray")
    if reason := _unfit(record, face.found):
        report.note(f"images left out: {reason}", record["image_id"])
        return
    rotation = record["rotations"][0].astype(np.float64)
    pixels, (landmarks,) = decode_image(record["image"]), face.found.landmarks
    in_space = face_in_space(pixels, landmarks, rotation, record["boxes"][0])
    for image_id in names_of_turns(record["image_id"], turns):
        turn = chosen_turn(image_id, rotation)
        turned = _shrunk(turn_face(in_space, turn))
        size = (turned.image.shape[1], turned.image.shape[0])
        heads = HeadsOfImage(image_id, size, report)
        heads.add(turned.box, turn @ rotation, label=int(record["labels"][0]))
        yield heads.record(as_jpeg(turned.image), name)


def names_of_turns(image_id: str, turns: int) -> list[str]:
    """What the images are called that are made of one: the first as that one itself."""
    return [image_id, *(f"{image_id}_turn{n}" for n in range(2, turns + 1))]


def _unfit(record: dict, found: Meshes) -> str:
    """Why an image is left out; empty where it is turned."""
    size, faces = image_size(record["image"]), found.landmarks
    if found.size not in (None, size):
        return "its landmarks are of an image of another size"
    if len(record["boxes"]) != 1:
        return "not one head"
    if not record["has_pose"][0] or record["ignore"][0]:
        return "its head knows no rotation"
    if len(faces) != 1:
        return "not one face with landmarks"
    low, high = faces[0][:, :2].min(axis=0), faces[0][:, :2].max(axis=0)
    middle, box = (low + high) / 2, record["boxes"][0]
    if not ((box[:2] < middle) & (middle < box[2:])).all():
        return "its face lies beside the head"
    if max(high - low) * min(1, LONGEST / max(size)) < LEAST_FACE:
        return f"its face is smaller than {LEAST_FACE:g} pixels where the image is {LONGEST} long"
    return ""


def chosen_turn(image_id: str, rotation: np.ndarray) -> np.ndarray:
    """The turn (3, 3) in camera axes that a head makes: random, and always the same for a name.

    Args:
      image_id: of the image.
      rotation: (3, 3) of the head.
    """
    digest = hashlib.sha256(image_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    heading = float(heading_degrees(rotation))
    down = float(np.degrees(np.arcsin(np.clip(-rotation[1, 2], -1, 1))))
    side = np.sign(heading) if abs(heading) > AHEAD else rng.choice([-1.0, 1.0])
    if rng.random() < TO_THE_SIDE:
        outward = np.clip(rng.uniform(*HEADINGS) - abs(heading), 0, FURTHEST)
        nod = rng.normal(0, NOD)
    else:
        outward = rng.normal(0, SWAY)
        nod = rng.uniform(*NODS) * rng.choice([-1.0, 1.0])
    if abs(down + nod) > STEEPEST:
        nod = -np.sign(down) * abs(nod) / 2
    nodding = rotation @ axis_rotation("x", nod) @ rotation.T  # about the axis through the ears
    return axis_rotation("y", side * outward) @ nodding


def _shrunk(turned: TurnedFace) -> TurnedFace:
    """The same, at most `LONGEST` pixels long."""
    scale = LONGEST / max(turned.image.shape[:2])
    if scale >= 1:
        return turned
    image = cv2.resize(turned.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return turned._replace(image=image, box=turned.box * scale)


# --- Landmarks ------------------------------------------------------------------------------------


def read_landmarks(path: Place) -> dict[str, Meshes]:
    """Name of an image -> the faces in it.

    Raises:
      MissingFile: no such file.
      BadInput: it is no such file; the message names the image and the head.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        entries = [(str(entry["image"]), entry) for entry in content["images"]]
        names = Counter(name for name, _ in entries)
        if twice := [name for name, count in names.items() if count > 1]:
            raise BadInput(f"{path} names the image {twice[0]} twice.")
        return {name: _meshes(entry, path) for name, entry in entries}
    except FileNotFoundError as error:
        raise MissingFile(f"No landmarks at {path}.") from error
    except NOT_JSON as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise BadInput(
            f'{path} has no "images", a list of {{"image": ..., "heads": [...]}}: make it with '
            "python -m benchmarks.peers mediapipe --landmarks"
        ) from error


def _meshes(entry: Mapping, path: Place) -> Meshes:
    faces = []
    width, height = entry.get("width"), entry.get("height")
    for number, head in enumerate(entry["heads"]):
        points = np.zeros(0, np.float32)
        with contextlib.suppress(KeyError, ValueError, TypeError):
            points = np.array(head["landmarks"], np.float32)
        if points.shape != (LANDMARKS, 3) or not np.isfinite(points).all():
            raise BadInput(
                f"{path}, image {entry['image']}, head {number}: it has no landmarks, which are "
                f"{LANDMARKS} times [x, y, z] in pixels: python -m benchmarks.peers mediapipe "
                "--landmarks writes them"
            )
        faces.append(points)
    return Meshes(tuple(faces), None if width is None or height is None else (width, height))


# --- The converter --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert turned-faces`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    parser.add_argument(
        "--landmarks",
        type=place_argument,
        required=True,
        metavar="FILE",
        help="of the faces in the same images",
    )
    parser.add_argument(
        "--turns",
        type=positive,
        default=1,
        metavar="N",
        help="ways in which each face is turned, each an image (default: %(default)s)",
    )
    add_splits(parser)
    parser.add_argument("--name", help="of the record set (default: the last part of --out)")


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        args.landmarks,
        name=args.name or args.out.name,
        turns=args.turns,
        splits=args.splits,
    )


def conversion(
    raw: Path, landmarks: Place, *, name: str, turns: int = 1, splits: Sequence[str] = ()
) -> Conversion:
    """A record set with its faces turned, as a data set to be written.

    Args:
      raw: record set.
      landmarks: of the faces in its images.
      name: of the record set to be written.
      turns: images that are made of each.
      splits: of the record set that are taken; none: all.

    Raises:
      FileNotFoundError, BadInput: see `RecordSet.open` and `read_landmarks`; or the file does not
        know an image.
    """
    record_set = RecordSet.open(raw)
    found = read_landmarks(landmarks)
    faces = {}
    for split, of_split in record_items(record_set, splits).items():
        ids = image_ids(of_split, frame="ray")
        names = matched_names(ids, found)
        if missing := [image for image, own in zip(ids, names, strict=True) if own is None]:
            raise BadInput(
                f"{landmarks} says nothing of {len(missing)} of {len(ids)} images of {raw}, split "
                f"{split}, such as {missing[0]}: mtnet data images {raw}:{split} --out DIR writes "
                "those to be looked at"
            )
        faces[split] = [
            Face(item, found[own])
            for item, own in zip(of_split, names, strict=True)
            if own is not None
        ]
    description = description_of(
        record_set, name, f"Faces of {record_set.name}, turned in three dimensions."
    )
    return Conversion(description, faces, functools.partial(read_turned, name=name, turns=turns))
