"""CMU-HPE and AGORA-HPE as DirectMHP publishes them: COCO json files with Euler angles.

    RAW/annotations/coco_style_sampled_train.json, coco_style_sampled_val.json    CMU-HPE
    RAW/annotations/coco_style_train.json, coco_style_validation.json             AGORA-HPE
    RAW/images/train/*.jpg, RAW/images/val/*.jpg (AGORA: validation)

Its scripts (https://github.com/hnuzhy/DirectMHP, exps/CMU and exps/AGORA) write both from the raw
data. The angles are canonical by definition: `euler_angles` are pitch, yaw, roll in degrees, of the
rotation that takes head axes to the axes of the camera.
"""

import argparse
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from data_prep.engine.conversion import Conversion, Description
from data_prep.own import coco
from data_prep.own.camera import UNKNOWN, Camera
from data_prep.own.labelled import (
    add_camera_arguments,
    add_missing_argument,
    all_labels,
    map_labels,
    read_labelled,
    require_images,
)
from mtnet_jax.errors import BadInput, MissingFile

BOX_RULE = "sphere18"
_LIMITS = (180, 90, 90)  # of |yaw|, |pitch|, |roll| in what DirectMHP writes
_NO_CAMERA = (
    "WARNING: rotations are relative to the axes of the camera, which is not given: give --fov or "
    '--intrinsics, or train with config.frame = "camera"'
)
_PAPER = (
    "Zhou, Jiang, Lu: Directly predicting the head poses of many persons, DirectMHP, "
    "arXiv:2302.01110"
)


@dataclass(frozen=True)
class Source:
    """One of the two data sets: its name, its files by split, what to cite."""

    name: str
    splits: dict[str, tuple[str, str]]  # split -> json file, folder of the images
    homepage: str
    citation: str


SOURCES = (
    Source(
        "cmu_hpe",
        {
            "train": ("annotations/coco_style_sampled_train.json", "images/train"),
            "val": ("annotations/coco_style_sampled_val.json", "images/val"),
        },
        "http://domedb.perception.cs.cmu.edu/",
        "Joo et al.: Panoptic Studio, ICCV 2015. " + _PAPER,
    ),
    Source(
        "agora_hpe",
        {
            "train": ("annotations/coco_style_train.json", "images/train"),
            "validation": ("annotations/coco_style_validation.json", "images/validation"),
        },
        "https://agora.is.tue.mpg.de/",
        "Patel et al.: AGORA, CVPR 2021. " + _PAPER,
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert directmhp`."""
    add_camera_arguments(parser)
    add_missing_argument(parser)


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    camera = Camera(args.fov, args.intrinsics)
    return conversion(args.raw, allow_missing=args.allow_missing, camera=camera)


def conversion(raw: Path, *, allow_missing: bool = False, camera: Camera = UNKNOWN) -> Conversion:
    """CMU-HPE or AGORA-HPE, whichever `raw` holds, as a data set to be written.

    The boxes hold the projection of a sphere of 18 cm round the head, clipped to the image (rule
    `sphere18`). A head whose angles are not finite or beyond yaw +-180, pitch +-90, roll +-90 is
    kept without its pose, and counted.

    Args:
      raw: folder with `annotations` and `images`; see the module. One split alone will do.
      allow_missing: leave out images that are not on disk instead of raising.
      camera: that took the images; without it the report warns of what the rotations then mean.

    Returns:
      The conversion.

    Raises:
      FileNotFoundError: no json file of either data set, or images are missing.
      ValueError: files of both data sets, or a file that cannot be understood.
    """
    source, splits = _find_source(raw)
    images = {
        split: coco.read_coco(files, split, convention="canonical", pose_fault=_pose_fault)
        for split, files in splits.items()
    }
    for split, of_split in images.items():
        require_images(of_split, splits[split].images, allow_missing=allow_missing)
    # The one category is called "person"; what is boxed and posed is the head.
    labels = all_labels(images)
    label_names, classes = map_labels(labels, dict.fromkeys(labels, "head"), str(raw))
    description = Description(
        name=source.name,
        version="1.0.0",
        text=f"{source.name}: heads of many persons, all 360 degrees, from DirectMHP's json files.",
        box_rule=BOX_RULE,
        label_names=label_names,
        homepage=source.homepage,
        citation=source.citation,
        licence="Images: research only, by registration with their publishers. Labels: CC BY-NC.",
    )
    read = functools.partial(read_labelled, source=source.name, classes=classes, camera=camera)
    notes = [(_NO_CAMERA, str(raw), 1)] if camera == UNKNOWN else []
    return Conversion(description, images, read, notes)


def _find_source(raw: Path) -> tuple[Source, dict[str, coco.Split]]:
    found = []
    for source in SOURCES:
        splits = {
            split: coco.Split(raw / file, raw / folder)
            for split, (file, folder) in source.splits.items()
            if (raw / file).is_file()
        }
        if splits:
            found.append((source, splits))
    if len(found) != 1:
        files = "; ".join(
            f"{source.name}: {', '.join(file for file, _ in source.splits.values())}"
            for source in SOURCES
        )
        if found:
            raise BadInput(f"{raw} holds files of both data sets, give one at a time: {files}")
        raise MissingFile(
            f"No json file of DirectMHP in {raw}. Expected {files}. Files of other names: "
            "mtnet data convert coco --convention canonical"
        )
    return found[0]


def _pose_fault(angles: tuple[float, float, float]) -> str:
    if not all(map(math.isfinite, angles)):
        return "the angles are not finite"
    if any(abs(angle) > limit for angle, limit in zip(angles, _LIMITS, strict=True)):
        return "the angles are beyond yaw +-180, pitch +-90, roll +-90"
    return ""
