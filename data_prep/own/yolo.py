"""Data sets in YOLO's txt layout (Roboflow exports, Hard Hat, your own): boxes and labels only.

    RAW/data.yaml              names: ['head', 'helmet'], or {0: head, 1: helmet}
    RAW/SPLIT/images/*.jpg
    RAW/SPLIT/labels/*.txt     one box a line: class cx cy width height, as fractions of the picture

A picture without a label file, or with an empty one, is a record without heads.
"""

import argparse
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import HeadsOfPicture, read_picture
from data_prep.engine.report import Report
from data_prep.own.labelled import add_own_data_arguments, map_labels
from mtnet_jax.boxes import cxcywh_to_xyxy
from mtnet_jax.errors import BadInput, MissingFile

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Item:
    """One picture and where its labels should lie."""

    split: str
    picture: Path
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
      FileNotFoundError: no data.yaml, no split, or a split without pictures.
      ValueError: data.yaml has no names, or the label map names a label that is not there.
    """
    names = read_names(raw / "data.yaml")
    new_names, classes = map_labels(names, label_map, str(raw / "data.yaml"))
    items = {split: _items(raw, split) for split in splits or find_splits(raw)}
    read = functools.partial(_records, source=name, names=names, classes=classes)
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
    return Conversion(description, items, read)


def find_splits(raw: Path) -> list[str]:
    """Folders of `raw` that hold a folder `images`, train first."""
    found = sorted(path.parent.name for path in raw.glob("*/images") if path.is_dir())
    if not found:
        raise MissingFile(
            f"No SPLIT/images folder in {raw}: --raw must hold train/images, train/labels and so on"
        )
    return sorted(found, key=lambda split: split != "train")


def read_names(path: Path) -> list[str]:
    """Label names of a data.yaml, in order of their class number."""
    content = _read_yaml(path)
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise BadInput(
            f"{path} has no usable 'names': expected names: ['head', 'helmet'] "
            "or {0: head, 1: helmet}"
        )
    return [str(label) for label in names]


def parse_labels(path: Path, class_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and classes of a label file.

    Args:
      path: one box a line: class cx cy width height.
      class_count: classes run from 0 to class_count - 1.

    Returns:
      (n, 4) float64 cxcywh as fractions of the picture, and (n,) int64 classes.

    Raises:
      ValueError: a line that is not five numbers, or a class that does not exist; names the line.
    """
    boxes, classes = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        place = f"{path}, line {number}: {line.strip()!r}"
        if len(words) != 5:
            cure = "polygons are not supported" if len(words) > 5 else "the line is not complete"
            raise BadInput(
                f"{place}: {len(words)} numbers, expected 5 (class cx cy width height); {cure}"
            )
        try:
            label, *box = int(words[0]), *(float(word) for word in words[1:])
        except ValueError:
            raise BadInput(
                f"{place}: expected an integer class and four numbers (cx cy width height)"
            ) from None
        if not 0 <= label < class_count:
            raise BadInput(
                f"{place}: class {label}, but data.yaml names {class_count} classes: 0 to "
                f"{class_count - 1}"
            )
        if not all(map(math.isfinite, box)):
            raise BadInput(f"{place}: the box must be finite")
        if max(map(abs, box)) > 2:
            raise BadInput(
                f"{place}: expected fractions of the picture (0 to 1), these look like pixels: "
                "divide x and width by the width of the picture, y and height by its height"
            )
        boxes.append(box)
        classes.append(label)
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64)


def _records(
    item: Item, report: Report, *, source: str, names: list[str], classes: Mapping[str, int | None]
) -> Iterator[dict]:
    picture = read_picture(item.picture, report)
    if picture is None:
        return
    encoded, (width, height) = picture
    image_id = f"{item.split}/{item.picture.stem}"
    if item.labels.is_file():
        fractions, numbers = parse_labels(item.labels, len(names))
    else:
        report.note("pictures without a label file (kept, no heads)", image_id)
        fractions, numbers = np.zeros((0, 4)), np.zeros(0, np.int64)
    heads = HeadsOfPicture(image_id, (width, height), report)
    boxes = cxcywh_to_xyxy(fractions) * [width, height, width, height]
    for box, number in zip(boxes.tolist(), numbers.tolist(), strict=True):
        label = classes[names[number]]
        if label is None:
            report.drop_head(f"label {names[number]!r} is not in the label map", image_id)
        else:
            heads.add(box, label=label)
    yield heads.record(encoded, source)


def _items(raw: Path, split: str) -> list[Item]:
    folder = raw / split / "images"
    pictures = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise MissingFile(
            f"No pictures ({', '.join(PICTURE_SUFFIXES)}) in {folder} for split {split!r}"
        )
    labels = raw / split / "labels"
    return [Item(split, path, labels / f"{path.stem}.txt") for path in pictures]


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFile(
            f"{path} is missing: write one with a line such as names: ['head']"
        ) from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _licence(path: Path) -> str:
    """What a Roboflow export says of the licence, or nothing."""
    roboflow = _read_yaml(path).get("roboflow")
    return str(roboflow.get("license", "")) if isinstance(roboflow, dict) else ""
