"""Images with labels written by hand or by a tool: what COCO json, CSV and YOLO txt share.

A converter parses its files into `LabelledImage`s, all of them before the first image is
opened, so that a slip in a label file is told at once. `read_labelled` makes the records.
"""

import argparse
import functools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote

import numpy as np
import tqdm

from data_prep.engine import arguments
from data_prep.engine.heads import ALL_HEADS_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import PLACES_KEPT, Report
from data_prep.own.camera import UNKNOWN, Camera
from data_prep.own.dialects import file_name
from mtnet_jax.data.listing import NO_IMAGE, Listing, list_images
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.rotations import CONVENTIONS, euler_to_rotation, radians_warning

Named = TypeVar("Named")
# An image whose width and height are exchanged: a tool that does not look at the EXIF orientation.
_UNTURNED = (
    " (turned by its EXIF data? if the boxes were drawn on the image as it is without, remove the "
    "tag: exiftool -Orientation= FILE)"
)
_DRIVE = re.compile("[A-Za-z]:")  # how absolute paths of Windows begin
_PATIENCE = 3.0  # seconds of work that nobody is told of
LABEL_SUFFIXES = (".txt", ".json", ".csv", ".yaml", ".yml", ".xml", ".cache")


@dataclass(frozen=True, slots=True)
class LabelledHead:
    """A head as labelled.

    Attributes:
      box: left, top, right, bottom in pixels.
      label: its name in the label file.
      euler: yaw, pitch, roll in degrees, or None for a head without a pose.
      convention: of `euler`, a name in `rotations.CONVENTIONS`.
      heading: degrees, the canonical yaw of a level head, or None; for heads without a pose.
      ignore: why the head is neither to be found nor background; empty for an ordinary head.
      unposed: why a pose that was labelled is left out; empty unless one was.
    """

    box: tuple[float, float, float, float]
    label: str
    euler: tuple[float, float, float] | None = None
    convention: str = ""
    heading: float | None = None
    ignore: str = ""
    unposed: str = ""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and its heads.

    Attributes:
      path: of the image.
      image_id: unique in the record set.
      heads: in the order of the label file.
      size: width and height that the label file states, or None.
    """

    path: Path
    image_id: str
    heads: tuple[LabelledHead, ...]
    size: tuple[int, int] | None = None


def read_labelled(
    image: LabelledImage,
    report: Report,
    *,
    source: str,
    classes: Mapping[str, int | None],
    camera: Camera = UNKNOWN,
) -> Iterator[dict]:
    """The record of a labelled image, or none where it is missing or damaged, or all of its heads
    had to be dropped.

    Args:
      image: what to read.
      report: is told of everything that is left out.
      source: name of the data set.
      classes: label in the file -> label in the record, None to drop the head (see `map_labels`).
      camera: that the rotations are relative to; without it they count as seen along the ray too
        (see `mtnet_jax.camera`).
    """
    if not image.path.is_file():
        report.drop_image("the image is missing", str(image.path))
        return
    found = read_image(image.path, report)
    if found is None:
        return
    encoded, size = found
    if image.size not in (None, size):
        cure = _UNTURNED if image.size == size[::-1] else ""
        report.drop_image(
            f"the image has another size than its labels say{cure}",
            f"{image.path} ({size[0]}x{size[1]}, labels {image.size[0]}x{image.size[1]})",
        )
        return
    heads = HeadsOfImage(image.image_id, size, report)
    for head in image.heads:
        label = classes[head.label]
        if label is None:
            report.drop_head(f"label {head.label!r} is not in the label map", image.image_id)
            continue
        rotation = None
        if head.euler is not None:
            rotation = euler_to_rotation(np.array(head.euler), convention=head.convention)
        elif head.unposed:
            report.note(f"heads kept without their pose: {head.unposed}", image.image_id)
        heads.add(head.box, rotation, heading=head.heading, label=label, ignore=head.ignore)
    if heads.all_dropped:
        report.drop_image(ALL_HEADS_DROPPED, image.image_id)
        return
    posed = any(head.euler is not None and classes[head.label] is not None for head in image.heads)
    if posed and (said := camera.note_of(size)):
        report.note(said, image.image_id)
    yield heads.record(encoded, source, camera.of_image(size))


def counted(images: Iterable[Named], total: int | None = None) -> Iterable[Named]:
    """The same, counted on stderr where going through them takes more than some seconds."""
    return tqdm.tqdm(images, desc="list", total=total, unit=" images", delay=_PATIENCE)


def notes_of(
    splits: Mapping[str, Sequence[LabelledImage]], folders: Iterable[Path]
) -> list[tuple[str, str, int]]:
    """What a report should say of labelled images besides each of them; see `Conversion.notes`.

    Args:
      splits: of the conversion.
      folders: where images lie: those that no label file names are counted.
    """
    images = [image for split in splits.values() for image in split]
    notes = []
    warning = radians_warning(h.euler for p in images for h in p.heads if h.euler is not None)
    if warning:
        notes.append((warning, "all label files", 1))
    named = {image.path.resolve() for image in images}
    for folder in dict.fromkeys(folders):
        listing = list_images(folder)
        unnamed = [path for path in listing.images if path.resolve() not in named]
        if unnamed:
            notes.append(("images that no label file names", str(unnamed[0]), len(unnamed)))
        notes += left_out_notes(listing, folder)
    return notes


def left_out_notes(listing: Listing, folder: Path) -> list[tuple[str, str, int]]:
    """What a listing left out, as `Conversion.notes`; label files lie where they should."""
    labels = {f"{NO_IMAGE} ({suffix})" for suffix in LABEL_SUFFIXES}
    return [
        (f"files left out: {reason}", str(folder), count)
        for reason, count in listing.left_out.items()
        if reason not in labels
    ]


def find_image(folder: Path, name: str) -> Path:
    """The file of an image as a label file names it.

    Names that differ in case, or are written as in addresses (a%20b.jpg), are found too where no
    file has the very name.
    """
    names = [file_name(name), file_name(unquote(name))]
    for written in names:
        if (folder / written).is_file():
            return folder / written
    return find_alike(folder, names[0]) or find_alike(folder, names[1]) or folder / names[0]


def find_alike(folder: Path, name: str) -> Path | None:
    """The one file below a folder whose name, or that of a folder on the way, differs in case.

    Accents count as the same whether they are a sign of their own or not, as Macs write them.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        if (path / part).exists():
            path = path / part
            continue
        alike = _by_small_name(path).get(_small(part), ())
        if len(alike) != 1:
            return None
        path = alike[0]
    return path if path.is_file() else None


@functools.lru_cache(maxsize=64)
def _by_small_name(folder: Path) -> dict[str, list[Path]]:
    """Name in small letters -> what lies in a folder; empty where there is none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found.setdefault(_small(path.name), []).append(path)
    return found


def _small(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def require_one_name(images: Iterable[LabelledImage], place: str) -> None:
    """Raises BadInput where two names in a label file are of one image file, by links too.

    It would become two records, in each of which the heads of the other one are background.
    """
    first: dict[str, LabelledImage] = {}
    for image in images:
        other = first.setdefault(os.path.realpath(image.path), image)
        if other is not image:
            raise BadInput(
                f"{place}: {other.image_id!r} and {image.image_id!r} are one image, {image.path}: "
                "write its name in one way"
            )


def all_labels(splits: Mapping[str, Sequence[LabelledImage]]) -> list[str]:
    """Names of the labels that heads of any split have, sorted."""
    return sorted({h.label for split in splits.values() for p in split for h in p.heads})


def map_labels(
    names: Sequence[str], label_map: Mapping[str, str] | None, place: str
) -> tuple[tuple[str, ...], dict[str, int | None]]:
    """Label names of the record set, and what becomes of each label of the files.

    Args:
      names: labels of the files.
      label_map: label of the files -> new label; what it does not name is dropped. None keeps all.
      place: where `names` come from, for the message.

    Returns:
      The new names, and label of the files -> index into them or None.

    Raises:
      ValueError: the map names a label that is not there.
    """
    if label_map is None:
        label_map = {name: name for name in names}
    for label in label_map:
        if label not in names:
            raise BadInput(f"--label-map names {label!r}, but {place} has {', '.join(names)}")
    new = tuple(dict.fromkeys(label_map[name] for name in names if name in label_map))
    return new, {n: new.index(label_map[n]) if n in label_map else None for n in names}


def require_images(images: Sequence[LabelledImage], folder: Path, *, allow_missing: bool) -> None:
    """Raises FileNotFoundError, with the first names, where images are not on disk.

    Args:
      images: as `find_image` found them.
      folder: that their names start from.
      allow_missing: raise nothing.
    """
    missing = [image.path for image in images if not allow_missing and not image.path.is_file()]
    if not missing:
        return
    absolute = [image.path for image in images if _is_absolute(image.path, folder)]
    if absolute and set(absolute) <= set(missing):
        raise MissingFile(
            f"{len(absolute)} of {len(images)} images are named by absolute paths of another "
            f"machine, looked for at {absolute[0]}: write paths below the folder of the images "
            f"(--raw, or that of --split), {folder}"
        )
    shown = ", ".join(map(str, missing[:PLACES_KEPT])) + " ..." * (len(missing) > PLACES_KEPT)
    raise MissingFile(
        f"{len(missing)} of {len(images)} images are missing: {shown}. Copy them there, correct "
        "the folder, or leave them out (and have them counted) with --allow-missing."
    )


def _is_absolute(path: Path, folder: Path) -> bool:
    """Whether a label file names an image by an absolute path, one of Windows included, that does
    not lead into the folder of the images."""
    return not path.is_relative_to(folder) or any(map(_DRIVE.fullmatch, path.parts))


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The options --name, --box-rule and --label-map."""
    parser.add_argument(
        "--name", help="name of the record set (default: the last part of --out)", metavar="NAME"
    )
    parser.add_argument(
        "--box-rule",
        default="head",
        metavar="RULE",
        help="name of the rule the boxes follow (default: head, the whole head, hair or helmet)",
    )
    parser.add_argument(
        "--label-map",
        type=arguments.label_map,
        metavar="OLD=NEW,...",
        help="rename labels, drop those not named: head=head,helmet=head (default: keep all)",
    )


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """The options --fov and --intrinsics."""
    arguments.add_camera(
        parser,
        "angles are relative to the axes of this camera, one for all images, with --intrinsics all "
        "of one size (default: to a camera that looks at the head)",
    )


def add_missing_argument(parser: argparse.ArgumentParser) -> None:
    """The option --allow-missing."""
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out and count images that are not there (default: an error)",
    )


def check_box(box: tuple[float, float, float, float], place: str) -> None:
    """Raises ValueError for a box (xyxy) that is not finite or looks like fractions."""
    if not all(map(math.isfinite, box)):
        raise BadInput(f"{place}: the box must be finite, is {list(box)}")
    # A head of a pixel cannot be labelled; a box without area is dropped and counted later.
    if 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1:
        raise BadInput(
            f"{place}: expected pixels, the box {list(box)} looks like fractions of the image: "
            "multiply x by the width of the image and y by its height"
        )


def check_angles(angles: Sequence[float], place: str) -> None:
    """Raises ValueError for Euler angles that are not finite or beyond a whole turn."""
    if not all(math.isfinite(a) and abs(a) <= 360 for a in angles):
        raise BadInput(
            f"{place}: yaw, pitch and roll must be degrees within +-360, are {list(angles)}; leave "
            "all three out for a head without a pose"
        )


def check_heading(heading: float, place: str) -> None:
    """Raises ValueError for a heading that is not within half a turn."""
    if not abs(heading) <= 180:  # NaN too
        raise BadInput(
            f"{place}: a heading must be degrees within +-180 (0: into the camera, +90: to the "
            f"left of the image), is {heading:g}; leave it out where it is not known"
        )


def check_convention(name: str, place: str) -> str:
    """The name of an Euler convention, in small letters; ValueError, listing them, for no name."""
    name = name.lower()
    if name not in CONVENTIONS:
        fault = f"unknown Euler convention {name!r}" if name else "Euler angles without convention"
        raise BadInput(f"{place}: {fault}. Name one of\n{conventions_text()}")
    return name


def conventions_text() -> str:
    """The Euler conventions, a line each: name and formula."""
    return "\n".join(
        f"  {name:11} {convention.description.split('. ')[0]}"
        for name, convention in CONVENTIONS.items()
    )
