"""Own data in COCO's json form, with optional Euler angles.

    {"images":      [{"id": 7, "file_name": "garden.jpg", "width": 640, "height": 480}],
     "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [x, y, width, height],
                      "iscrowd": 0, "euler_angles": [pitch, yaw, roll]}],
     "categories":  [{"id": 1, "name": "head"}]}

`bbox` is in pixels from the upper left corner. `euler_angles` (the order is that of DirectMHP) are
degrees in the convention that --convention names; an annotation without them is a head without a
pose. A field `heading` (degrees, the canonical yaw of a level head) serves heads of which no more
is known. `width`, `height`, `iscrowd` and `id` of an annotation may be missing; a crowd is ignored,
and so is an annotation with `ignore` 1.
"""

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.own.camera import UNKNOWN, Camera
from data_prep.own.coco_fields import entries, field, identity, numbers, read_json, size_of
from data_prep.own.dialects import file_name, flag, name_below, number
from data_prep.own.groups import add_test_share_argument, splits_by_folder
from data_prep.own.labelled import (
    LabelledHead,
    LabelledImage,
    add_camera_arguments,
    add_missing_argument,
    add_own_data_arguments,
    all_labels,
    check_angles,
    check_box,
    check_convention,
    check_heading,
    conventions_text,
    counted,
    find_image,
    map_labels,
    notes_of,
    read_labelled,
    require_images,
    require_one_name,
)
from mtnet_jax.errors import BadInput

NO_POSES = "none"

# (yaw, pitch, roll) -> why the pose is left out, or an empty text
PoseFault = Callable[[tuple[float, float, float]], str]


@dataclass(frozen=True)
class Split:
    """A json file and the folder that its file names start from."""

    annotations: Path
    images: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert coco`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Euler conventions:\n{conventions_text()}"
    parser.add_argument(
        "--split",
        dest="splits",
        type=split_option,
        action="append",
        required=True,
        metavar="NAME=JSON[:IMAGES]",
        help="a split, its json file and the folder of its images (default: that of the json "
        "file), both below --raw: train=annotations/train.json:images/train; may be repeated",
    )
    parser.add_argument(
        "--convention",
        metavar="NAME",
        help="Euler convention of euler_angles; 'none' leaves the angles out (default: the files "
        "have no angles)",
    )
    add_test_share_argument(parser, "folders of the images", "the split as it is named")
    add_own_data_arguments(parser)
    add_camera_arguments(parser)
    add_missing_argument(parser)


def split_option(text: str) -> tuple[str, str, str]:
    """Reads "train=annotations/train.json:images" -> ("train", "annotations/train.json", "images").

    Without ":images" the last part is empty.
    """
    name, equals, place = text.partition("=")
    file, _, folder = place.partition(":")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON or NAME=JSON:IMAGES")
    return arguments.split(name), file, folder


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    names = [name for name, _, _ in args.splits]
    if len(set(names)) < len(names):
        raise BadInput(f"--split names a split twice: {', '.join(names)}")
    splits = {
        name: Split(args.raw / file, args.raw / folder if folder else (args.raw / file).parent)
        for name, file, folder in args.splits
    }
    return conversion(
        splits,
        name=args.name or args.out.name,
        convention=args.convention,
        box_rule=args.box_rule,
        label_map=args.label_map,
        allow_missing=args.allow_missing,
        test_share=args.test_share,
        camera=Camera(args.fov, args.intrinsics),
    )


def conversion(
    splits: Mapping[str, Split],
    *,
    name: str,
    convention: str | None = None,
    box_rule: str = "head",
    label_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    test_share: float | None = None,
    camera: Camera = UNKNOWN,
) -> Conversion:
    """COCO json files as a data set to be written.

    Args:
      splits: name of the split -> its files.
      name: name of the record set and source of its records.
      convention: of `euler_angles`; "none" leaves them out, None says that there are none.
      box_rule: name of the rule the boxes follow, for instance "head".
      label_map: category -> new label; categories that are not named are dropped. None keeps all
        that have an annotation.
      allow_missing: leave out images that are not on disk instead of raising.
      test_share: share of the folders of the images that goes into "test", the others are "train",
        whatever the one split is called; None keeps the splits.
      camera: that the angles are relative to, see `read_labelled`.

    Returns:
      The conversion.

    Raises:
      FileNotFoundError: a json file or an image is missing.
      ValueError: a file that cannot be understood (file, place and cure are named), angles without
        a convention or a convention without angles.
    """
    if convention is not None and convention.lower() == NO_POSES:
        convention = NO_POSES
    elif convention is not None:
        convention = check_convention(convention, "--convention")
    images = {
        split: read_coco(files, split, convention=convention) for split, files in splits.items()
    }
    files = ", ".join(str(split.annotations) for split in splits.values())
    _refuse_corners([image for of_split in images.values() for image in of_split], files)
    used = all_labels(images)
    if not used:
        raise BadInput(f"{files}: no annotations, so there are no heads to learn from")
    posed = any(h.euler for split in images.values() for p in split for h in p.heads)
    if convention not in (None, NO_POSES) and not posed:
        raise BadInput(
            f"--convention {convention} is given, but no annotation has 'euler_angles' (pitch, "
            "yaw, roll): name the field so, or leave the option out"
        )
    label_names, classes = map_labels(used, label_map, f"what is annotated in {files}")
    for split, of_split in images.items():
        require_images(of_split, splits[split].images, allow_missing=allow_missing)
    if test_share is not None:
        if len(splits) > 1:
            raise BadInput("--test-share makes the splits of one --split: leave one of both out")
        (only,) = splits.values()
        images = _shared_out(images, only.images, test_share)
    description = Description(
        name=name,
        version="1.0.0",
        text=f"{name}, from COCO json files.",
        box_rule=box_rule,
        label_names=label_names,
        homepage="",
        citation="",
        licence="",
    )
    read = functools.partial(read_labelled, source=name, classes=classes, camera=camera)
    notes = notes_of(images, [split.images for split in splits.values()])
    return Conversion(description, images, read, notes)


def _refuse_corners(images: Sequence[LabelledImage], place: str) -> None:
    """Raises BadInput for boxes that are left, top, right, bottom in place of x, y, width, height.

    All of them fit their images so, and read as they should be, most reach out, a quarter of all by
    more than half of their width or height. Boxes round close heads that the border cuts reach out
    too, but nobody draws one round a head that mostly lies outside.
    """
    boxes = [(p.image_id, p.size, head.box) for p in images for head in p.heads]
    if not all(_fits_as_corners(box, size) for _, size, box in boxes):
        return
    sized = [(image_id, size, box) for image_id, size, box in boxes if size]
    found = [image_id for image_id, size, box in sized if _outside(box, size) > 0]
    beyond = sum(_outside(box, size) > 0.5 for _, size, box in sized)
    if 2 * len(found) > len(boxes) and 4 * beyond >= len(boxes):
        raise BadInput(
            f"{place}: {len(found)} of {len(boxes)} boxes, the first of {found[0]}, reach out of "
            f"their image, {beyond} by more than half, and all would fit as left, top, right, "
            "bottom: bbox is x, y, width, height; write those, or clip the boxes to the image"
        )


def _fits_as_corners(box: tuple[float, float, float, float], size: tuple[int, int] | None) -> bool:
    """Whether x, y, width, height of a box can be left, top, right, bottom, within a pixel."""
    x1, y1, x2, y2 = box
    right, bottom = size or (math.inf, math.inf)
    return -1 <= x1 <= x2 - x1 <= right + 1 and -1 <= y1 <= y2 - y1 <= bottom + 1


def _outside(box: tuple[float, float, float, float], size: tuple[int, int]) -> float:
    """The share of its width or height by which a box reaches out to the right or the bottom.

    A pixel is rounding.
    """
    x1, y1, x2, y2 = box
    across, down = x2 - size[0], y2 - size[1]
    return max(
        across / (x2 - x1) if across > 1 and x2 > x1 else 0.0,
        down / (y2 - y1) if down > 1 and y2 > y1 else 0.0,
    )


def _shared_out(
    splits: Mapping[str, Sequence[LabelledImage]], folder: Path, test_share: float
) -> dict[str, list[LabelledImage]]:
    """The images of the one split as `train` and `test`."""
    shared: dict[str, list[LabelledImage]] = {"train": [], "test": []}
    for split, images in splits.items():
        chosen = splits_by_folder([image.path for image in images], folder, test_share)
        for image, name in zip(images, chosen, strict=True):
            image_id = f"{name}/{image.image_id.removeprefix(f'{split}/')}"
            shared[name].append(replace(image, image_id=image_id))
    return shared


def read_coco(
    files: Split,
    split: str,
    *,
    convention: str | None,
    pose_fault: PoseFault | None = None,
) -> list[LabelledImage]:
    """The images of a COCO json file, in its order.

    Args:
      files: the json file and the folder of the images.
      split: name of the split; image ids are SPLIT/FILE_NAME.
      convention: see `conversion`.
      pose_fault: says why a pose cannot be trusted; the head is then kept without it and counted.
        By default angles that are no angles raise.

    Returns:
      The labelled images.

    Raises:
      FileNotFoundError: no json file.
      ValueError: names file, entry, field and cure.
    """
    path = files.annotations
    content = read_json(path)
    images, annotations, categories = (
        entries(content, key, path) for key in ("images", "annotations", "categories")
    )
    labels: dict[str, str] = {}
    for index, category in enumerate(categories):
        place = f"{path}, categories[{index}]"
        category_id, name = identity(category, "id", place), field(category, "name", str, place)
        if labels.setdefault(category_id, name) != name:
            raise BadInput(
                f"{place}: id {category_id} is {name!r} here and {labels[category_id]!r} before: "
                "give each category an id of its own"
            )
    by_image: dict[str, list[tuple[dict, str]]] = {}  # annotations, each with its place
    for index, image in enumerate(images):
        image_id = identity(image, "id", f"{path}, images[{index}]")
        if image_id in by_image:
            raise BadInput(f"{path}, images[{index}]: a second image has the id {image_id}")
        by_image[image_id] = []
    for index, annotation in enumerate(annotations):
        place = f"{path}, annotations[{index}]"
        image_id = identity(annotation, "image_id", place)
        if image_id not in by_image:
            raise BadInput(f"{place}: image_id {image_id} is not among the images")
        by_image[image_id].append((annotation, place))
    labelled: dict[str, LabelledImage] = {}
    for index, image in enumerate(counted(images)):
        place = f"{path}, images[{index}]"
        name = file_name(field(image, "file_name", str, place))
        if name in labelled:
            raise BadInput(
                f"{place}: {name} is named by another entry of images too: give it one id, and its "
                "annotations that image_id"
            )
        heads = tuple(
            _head(annotation, annotated, labels, convention, pose_fault)
            for annotation, annotated in by_image[identity(image, "id", place)]
        )
        labelled[name] = LabelledImage(
            find_image(files.images, name),
            f"{split}/{name_below(name)}",
            heads,
            size_of(image, place),
        )
    require_one_name(labelled.values(), str(path))
    return list(labelled.values())


def _head(
    annotation: dict,
    place: str,
    labels: Mapping[str, str],
    convention: str | None,
    pose_fault: PoseFault | None,
) -> LabelledHead:
    if "id" in annotation:
        place += f" (id {annotation['id']})"
    category = identity(annotation, "category_id", place)
    if category not in labels:
        raise BadInput(f"{place}: category_id {category} is not among the categories")
    x, y, width, height = numbers(annotation, "bbox", 4, "[x, y, width, height] in pixels", place)
    box = (x, y, x + width, y + height)
    check_box(box, place)
    euler, unposed = None, ""
    if annotation.get("euler_angles") not in (None, []) and convention != NO_POSES:
        if convention is None:
            raise BadInput(
                f"{place} has euler_angles, which mean nothing without their convention: give "
                f"--convention none to leave them out, or --convention with one of\n"
                f"{conventions_text()}"
            )
        pitch, yaw, roll = numbers(
            annotation, "euler_angles", 3, "[pitch, yaw, roll] in degrees", place
        )
        euler = (yaw, pitch, roll)
        if pose_fault is None:
            check_angles(euler, f"{place}, field 'euler_angles'")
        else:
            unposed = pose_fault(euler)
    posed, heading = euler is not None and not unposed, None
    if annotation.get("heading") is not None and not posed:
        value = annotation["heading"]
        heading = number(
            value, f"{place}: field 'heading' is {value!r}, expected a number of degrees"
        )
        check_heading(heading, f"{place}, field 'heading'")
    return LabelledHead(
        box,
        labels[category],
        euler=euler if posed else None,
        heading=heading,
        convention=convention or "",
        ignore=_ignored(annotation, place),
        unposed=unposed,
    )


def _ignored(annotation: dict, place: str) -> str:
    """Why a head is to be ignored; empty for an ordinary one."""
    reasons = {"iscrowd": "a crowd (iscrowd)", "ignore": "its annotation says so (ignore)"}
    flags = {name: flag(annotation.get(name), f"{place}: field {name!r}") for name in reasons}
    return next((reason for name, reason in reasons.items() if flags[name]), "")
