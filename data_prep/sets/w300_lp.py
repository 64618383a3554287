"""300W-LP: photos rendered at growing yaw, and their mirror images; see mat_faces.

    RAW/AFW/AFW_134212_1_0.jpg     photo 134212, face 1, rendering 0 (the photo as it is)
    RAW/AFW/AFW_134212_1_0.mat
    RAW/AFW_Flip/...               also HELEN, LFPW, IBUG; or all files in one folder

pt2d is that of rendering 0 in all renderings of a face (seen in the files), so boxes of the rule
`landmarks` slide off the face as the yaw grows. Pose_Para is right in each.
"""

import argparse
import re
import zlib
from pathlib import Path

from data_prep.engine.conversion import Conversion
from data_prep.sets import mat_faces
from mtnet_jax.data.listing import jpegs_in
from mtnet_jax.errors import BadInput, MissingFile

ABOUT = {
    "name": "300w_lp",
    "text": "300W-LP: faces of 300-W rendered across large poses, with a fitted face model.",
    "homepage": mat_faces.HOMEPAGE,
    "citation": mat_faces.CITATION,
    "licence": "For research purposes only (images of AFW, HELEN, LFPW, IBUG).",
}
SOURCES = ("AFW", "HELEN", "LFPW", "IBUG")
FOLDERS = (*SOURCES, *(f"{name}_Flip" for name in SOURCES))

# The last number is the rendering, one of one or two digits before it the face in the photo.
_RENDERING = re.compile(r"(?P<photo>.+?)(?P<face>_\d{1,2})?_(?P<rendering>\d{1,2})")

_DOUBT = "pt2d is that of the photo, not of this rendering: the box is off"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert 300w_lp`."""
    mat_faces.add_arguments(parser)
    parser.add_argument(
        "--valid-percent",
        type=int,
        default=0,
        metavar="N",
        help="this part of the photos, with all their renderings and mirror images, is the split "
        "'valid' (default: 0, all are 'train')",
    )


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(args.raw, mat_faces.options(args), valid_percent=args.valid_percent)


def conversion(
    raw: Path, options: mat_faces.Options | None = None, *, valid_percent: int = 0
) -> Conversion:
    """300W-LP as a data set to be written.

    Args:
      raw: folder that holds AFW, AFW_Flip, HELEN, ..., or one with the images themselves.
      options: boxes and filter.
      valid_percent: part of the photos in the split "valid"; the others are "train".

    Raises:
      FileNotFoundError: no images.
      ValueError: valid_percent is not 0 to 99.
    """
    if not 0 <= valid_percent < 100:
        raise BadInput(f"--valid-percent {valid_percent}: must be 0 to 99")
    folders = [raw / name for name in FOLDERS if (raw / name).is_dir()] or [raw]
    images = [path for folder in folders for path in jpegs_in(folder)]
    if not images:
        raise MissingFile(
            f"No *.jpg in {raw}, nor in its folders {', '.join(FOLDERS)}: "
            "--raw must hold the unpacked 300W_LP"
        )
    splits: dict[str, list[mat_faces.Item]] = {"train": [], "valid": []}
    for path in images:
        split = "valid" if _draw(photo(path)) < valid_percent else "train"
        splits[split].append(_item(path))
    splits = {name: items for name, items in splits.items() if items}
    return mat_faces.conversion(ABOUT, splits, options or mat_faces.Options())


def photo(path: Path) -> str:
    """The photo behind an image, the same for its faces, renderings and mirror images.

    AFW_134212_1_0 -> AFW_134212; LFPW_image_train_0001_3 -> LFPW_image_train_0001.
    """
    match = _RENDERING.fullmatch(path.stem)
    return match["photo"] if match else path.stem


def _draw(name: str) -> int:
    """A number from 0 to 99 that depends on the name alone."""
    return zlib.crc32(name.encode(errors="surrogateescape")) % 100


def _item(path: Path) -> mat_faces.Item:
    in_folder = path.parent.name in FOLDERS
    match = _RENDERING.fullmatch(path.stem)
    turned = match and int(match["rendering"]) > 0
    return mat_faces.Item(
        path,
        f"{path.parent.name}/{path.stem}" if in_folder else path.stem,
        _DOUBT if turned else "",
    )
