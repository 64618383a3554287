"""Data sets in YOLO's txt layout (Roboflow exports, Hard Hat, your own): boxes and labels only.

    RAW/data.yaml              names: ['head', 'helmet'], or {0: head, 1: helmet};
                               kpt_shape: [17, 3] or [17, 2] where lines have keypoints;
                               or RAW/classes.txt, a name a line
    RAW/SPLIT/images/*.jpg     or RAW/images/SPLIT/*.jpg; folders in them are looked into
    RAW/SPLIT/labels/*.txt     or RAW/labels/SPLIT/*.txt
    RAW/images, RAW/labels     without splits: all is train, or shared out with --test-share; also
                               where no folder in `images` is called as a split is (train, val2017)

A label file has one box a line, class cx cy width height as fractions of the image, or one polygon
(class x1 y1 x2 y2 ...), which becomes its box; keypoints after a box are left out (without
kpt_shape those that say how well each is seen). An image without a label file, or with an empty
one, is a record without heads.
"""

import argparse
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import ALL_HEADS_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.own.groups import add_test_share_argument, splits_by_folder
from data_prep.own.labelled import (
    add_own_data_arguments,
    counted,
    find_alike,
    left_out_notes,
    map_labels,
)
from data_prep.own.yolo_labels import Keypoints, Labels, parse_labels
from data_prep.own.yolo_layout import (
    Folders,
    find_splits,
    find_whole,
    names_file,
    read_keypoints,
    read_licence,
    read_names,
)
from mtnet_jax.boxes import cxcywh_to_xyxy
from mtnet_jax.data.listing import (
    IMAGE_SUFFIXES,
    Listing,
    is_of_another_system,
    list_images,
)
from mtnet_jax.errors import MissingFile

_BESIDES = ("classes.txt", "notes.txt", "readme.txt")  # in a folder of labels, of no image


@dataclass(frozen=True, slots=True)
class Item:
    """One image and where its labels should lie."""

    image_id: str
    image: Path
    labels: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert yolo`."""
    add_own_data_arguments(parser)
    parser.add_argument(
        "--splits",
        type=arguments.names,
        default=(),
        metavar="A,B",
        help="folders to take as splits (default: all that have images/, and those in images/ "
        "where one of them is called as a split is: train, val, test, ...)",
    )
    add_test_share_argument(parser, "folders in images/", "the splits as they lie, else all train")


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        name=args.name or args.out.name,
        box_rule=args.box_rule,
        splits=args.splits,
        label_map=args.label_map,
        test_share=args.test_share,
    )


def conversion(
    raw: Path,
    *,
    name: str,
    box_rule: str = "head",
    splits: tuple[str, ...] = (),
    label_map: Mapping[str, str] | None = None,
    test_share: float | None = None,
) -> Conversion:
    """A YOLO data set as a data set to be written.

    Args:
      raw: folder with data.yaml or classes.txt and a folder for each split.
      name: name of the record set and source of its records.
      box_rule: name of the rule the boxes follow, for instance "head".
      splits: folders to take as splits; empty takes those of `yolo_layout.find_splits`.
      label_map: original label -> new label; labels that are not named are dropped. None keeps all.
      test_share: share of the folders in the images of the one split that goes into "test", the
        others are "train"; None keeps the splits.

    Returns:
      The conversion.

    Raises:
      FileNotFoundError: no names, no split, or a split without images or without label files.
      ValueError: names that cannot be read, a label map that names a label that is not there, or
        nothing that could be shared out.
    """
    named = names_file(raw)
    names, keypoints = read_names(named), read_keypoints(named)
    new_names, classes = map_labels(names, label_map, str(named))
    if test_share is None:
        folders = find_splits(raw, splits)
    else:
        split, place = find_whole(raw, splits)
        folders, splits = {split: place}, (split,)
    items, notes = {}, []
    for split in splits or folders:
        # A split that is asked for and is not there is told by its usual place.
        place = folders.get(split, Folders(raw / split / "images", raw / split / "labels"))
        items[split], of_split = _items(place, split)
        notes += of_split
        _require_labels(split, items[split])
    # Also of the splits that are left out on purpose.
    notes += _images_outside(raw, [*folders.values(), *find_splits(raw).values()])
    if test_share is not None:
        items = _shared_out(split, items[split], place.images, test_share)
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
        licence=read_licence(named),
    )
    return Conversion(description, items, read, notes)


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
    for path in counted(listing.images):
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


def _require_labels(split: str, items: list[Item]) -> None:
    """Raises MissingFile where no image of a split has a label file: all would be background."""
    if any(item.labels.is_file() for item in items):
        return
    first = items[0]
    beside = any(item.image.with_suffix(".txt").is_file() for item in items)
    raise MissingFile(
        f"None of {len(items)} images of the split {split!r} has a label file: that of "
        f"{first.image} should be {first.labels}"
        + (" (.txt files lie beside the images: move them there)" if beside else "")
        + ". An image without heads may have an empty one; --splits takes other splits alone"
    )


def _shared_out(
    split: str, items: list[Item], images: Path, test_share: float
) -> dict[str, list[Item]]:
    """The items of one split as `train` and `test`."""
    shared: dict[str, list[Item]] = {"train": [], "test": []}
    chosen = splits_by_folder([item.image for item in items], images, test_share)
    for item, name in zip(items, chosen, strict=True):
        image_id = f"{name}/{item.image_id.removeprefix(f'{split}/')}"
        shared[name].append(replace(item, image_id=image_id))
    return shared
