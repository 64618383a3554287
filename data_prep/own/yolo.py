"""Data sets in YOLO's txt layout (Roboflow exports, Hard Hat, your own): boxes and labels only.

    RAW/data.yaml              names: ['head', 'helmet'], or {0: head, 1: helmet};
                               kpt_shape: [17, 3] or [17, 2] where lines have keypoints
    RAW/SPLIT/images/*.jpg     or RAW/images/SPLIT/*.jpg; folders in them are looked into
    RAW/SPLIT/labels/*.txt     or RAW/labels/SPLIT/*.txt

A label file has one box a line, class cx cy width height as fractions of the image, or one polygon
(class x1 y1 x2 y2 ...), which becomes its box; keypoints after a box are left out (without
kpt_shape those that say how well each is seen). An image without a label file, or with an empty
one, is a record without heads.
"""

import argparse
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import ALL_HEADS_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.own.dialects import read_text
from data_prep.own.labelled import (
    add_own_data_arguments,
    find_alike,
    left_out_notes,
    map_labels,
)
from data_prep.own.yolo_labels import Keypoints, Labels, parse_labels
from mtnet_jax.boxes import cxcywh_to_xyxy
from mtnet_jax.data.listing import (
    IMAGE_SUFFIXES,
    Listing,
    is_of_another_system,
    list_images,
)
from mtnet_jax.errors import BadInput, MissingFile

_BESIDES = ("classes.txt", "notes.txt", "readme.txt")  # in a folder of labels, of no image


@dataclass(frozen=True)
class Item:
    """One image and where its labels should lie."""

    image_id: str
    image: Path
    labels: Path


class Folders(NamedTuple):
    """Where a split lies."""

    images: Path
    labels: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert yolo`."""
    add_own_data_arguments(parser)
    parser.add_argument(
        "--splits",
        type=arguments.names,
        default=(),
        metavar="A,B",
        help="folders to take as splits (default: all that have images/)",
    )


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        name=args.name or args.out.name,
        box_rule=args.box_rule,
        splits=args.splits,
        label_map=args.label_map,
    )


def conversion(
    raw: Path,
    *,
    name: str,
    box_rule: str = "head",
    splits: tuple[str, ...] = (),
    label_map: Mapping[str, str] | None = None,
) -> Conversion:
    """A YOLO data set as a data set to be written.

    Args:
      raw: folder with data.yaml and a folder for each split.
      name: name of the record set and source of its records.
      box_rule: name of the rule the boxes follow, for instance "head".
      splits: folders to take as splits; empty takes every folder of `raw` that has `images`.
      label_map: original label -> new label; labels that are not named are dropped. None keeps all.

    Returns:
      The conversion.

    Raises:
      FileNotFoundError: no data.yaml, no split, a split without images, or no label file at all.
      ValueError: data.yaml has no names, or the label map names a label that is not there.
    """
    names, keypoints = read_names(raw / "data.yaml"), read_keypoints(raw / "data.yaml")
    new_names, classes = map_labels(names, label_map, str(raw / "data.yaml"))
    folders = find_splits(raw)
    items, notes = {}, []
    for split in splits or folders:
        # A split that is asked for and is not there is told by its usual place.
        place = folders.get(split, Folders(raw / split / "images", raw / split / "labels"))
        items[split], of_split = _items(place, split)
        notes += of_split
    notes += _images_outside(raw, folders.values())
    _require_labels(items)
    read = functools.partial(
        _records, source=name, names=names, classes=classes, keypoints=keypoints
    )
    description = Description(
        name=name,
        version="1.0.0",
        text=f"{name}, from YOLO label files. Heads have no pose.",
        box_rule=box_rule,
        label_names=new_names,
        homepage="",
        citation="",
        licence=_licence(raw / "data.yaml"),
    )
    return Conversion(description, items, read, notes)


def find_splits(raw: Path) -> dict[str, Folders]:
    """The splits of a data set, in either layout, train first.

    Raises:
      MissingFile: there is none.
      BadInput: one split lies in both layouts.
    """
    inside = {
        path.parent.name: Folders(path, path.parent / "labels")
        for path in raw.glob("*/images")
        if path.is_dir() and not is_of_another_system(path.parent)
    }
    below = {
        path.name: Folders(path, raw / "labels" / path.name)
        for path in (raw / "images").glob("*")
        if path.is_dir() and not is_of_another_system(path)
    }
    twice = sorted(inside.keys() & below.keys())
    if twice:
        raise BadInput(
            f"{raw} has {twice[0]}/images and images/{twice[0]}: move one of them out of --raw, "
            "and its labels"
        )
    if not (inside or below):
        raise MissingFile(
            f"No SPLIT/images and no images/SPLIT folder in {raw}: --raw must hold train/images "
            "and train/labels, or images/train and labels/train, and so on"
        )
    return dict(sorted((inside | below).items(), key=lambda entry: (entry[0] != "train", entry)))


def read_names(path: Path) -> list[str]:
    """Label names of a data.yaml, in order of their class number."""
    content = _read_yaml(path)
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    scalars = isinstance(names, list) and not any(isinstance(n, list | dict) for n in names)
    if not scalars or not names:
        raise BadInput(
            f"{path} has no usable 'names': expected names: ['head', 'helmet'] "
            "or {0: head, 1: helmet}"
        )
    return [str(label) for label in names]


def read_keypoints(path: Path) -> Keypoints | None:
    """What a data.yaml says of keypoints, None where it says nothing.

    Raises:
      BadInput: a kpt_shape that is none.
    """
    shape = _read_yaml(path).get("kpt_shape")
    if shape is None:
        return None
    whole_numbers = isinstance(shape, list) and all(type(number) is int for number in shape)
    if (
        not whole_numbers
        or len(shape) != 2
        or shape[0] < 0
        or (shape[0] and shape[1] not in (2, 3))
    ):
        raise BadInput(
            f"{path}: kpt_shape is {shape!r}, expected how many keypoints a box has and how many "
            "numbers each has: [17, 3], [17, 2], or [0, 0] where boxes have none"
        )
    return Keypoints(*shape)


def _records(
    item: Item,
    report: Report,
    *,
    source: str,
    names: list[str],
    classes: Mapping[str, int | None],
    keypoints: Keypoints | None,
) -> Iterator[dict]:
    image = read_image(item.image, report)
    if image is None:
        return
    encoded, (width, height) = image
    labels = Labels(np.zeros((0, 4)), np.zeros(0, np.int64), 0, 0)
    if item.labels.is_file():
        labels = parse_labels(item.labels, len(names), keypoints)
    else:
        report.note("images without a label file (kept, no heads)", item.image_id)
    for count, what in (
        (labels.polygons, "polygons that became their boxes"),
        (labels.keypoints, "boxes whose keypoints are left out"),
    ):
        for _ in range(count):
            report.note(what, item.image_id)
    heads = HeadsOfImage(item.image_id, (width, height), report)
    boxes = cxcywh_to_xyxy(labels.boxes) * [width, height, width, height]
    for box, class_number in zip(boxes.tolist(), labels.classes.tolist(), strict=True):
        label = classes[names[class_number]]
        if label is None:
            report.drop_head(
                f"label {names[class_number]!r} is not in the label map", item.image_id
            )
        else:
            heads.add(box, label=label)
    if heads.all_dropped:
        report.drop_image(ALL_HEADS_DROPPED, item.image_id)
        return
    yield heads.record(encoded, source)


def _items(folders: Folders, split: str) -> tuple[list[Item], list[tuple[str, str, int]]]:
    """The images of a split, and what the report should say of its folders."""
    listing = list_images(folders.images) if folders.images.is_dir() else Listing()
    if not listing.images:
        raise MissingFile(
            f"No images ({', '.join(IMAGE_SUFFIXES)}) in {folders.images} for split {split!r}"
            + (f"; {listing}" if listing.left_out else "")
        )
    stems = Counter(path.with_suffix("") for path in listing.images)
    exact = {
        (folders.labels / path.relative_to(folders.images)).with_suffix(".txt")
        for path in listing.images
    }
    items = []
    for path in listing.images:
        inside = path.relative_to(folders.images)
        # Of two images that differ in their format alone each keeps it in its name.
        name = inside if stems[path.with_suffix("")] > 1 else inside.with_suffix("")
        labels = (folders.labels / inside).with_suffix(".txt")
        if not labels.is_file():
            alike = find_alike(folders.labels, inside.with_suffix(".txt").as_posix())
            labels = labels if alike is None or alike in exact else alike
        items.append(Item(f"{split}/{name.as_posix()}", path, labels))
    wanted = {item.labels for item in items}
    lost = [
        path
        for path in sorted(folders.labels.rglob("*"))
        if path.suffix.lower() == ".txt"
        and path not in wanted
        and path.name.lower() not in _BESIDES
        and not is_of_another_system(path)
    ]
    notes = left_out_notes(listing, folders.images)
    if lost:
        notes.append(("label files without an image", str(lost[0]), len(lost)))
    return items, notes


def _images_outside(raw: Path, folders: Iterable[Folders]) -> list[tuple[str, str, int]]:
    """What the report should say of images that lie in the folder of no split."""
    images = [folder.images for folder in folders]
    outside = [
        path
        for path in list_images(raw).images
        if not any(path.is_relative_to(folder) for folder in images)
    ]
    if outside:  # those that a split links to are in it
        inside = {path.resolve() for folder in images for path in list_images(folder).images}
        outside = [path for path in outside if path.resolve() not in inside]
    if not outside:
        return []
    return [("images that lie in the folder of no split", str(outside[0]), len(outside))]


def _require_labels(splits: Mapping[str, list[Item]]) -> None:
    """Raises MissingFile where no image of any split has a label file."""
    items = [item for of_split in splits.values() for item in of_split]
    if not any(item.labels.is_file() for item in items):
        raise MissingFile(
            f"None of {len(items)} images has a label file: that of {items[0].image} should be "
            f"{items[0].labels}"
        )


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(read_text(path))
    except FileNotFoundError:
        raise MissingFile(
            f"{path} is missing: write one with a line such as names: ['head']"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _licence(path: Path) -> str:
    """What a Roboflow export says of the licence, or nothing."""
    roboflow = _read_yaml(path).get("roboflow")
    return str(roboflow.get("license", "")) if isinstance(roboflow, dict) else ""
