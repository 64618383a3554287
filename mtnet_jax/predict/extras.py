"""What `mtnet predict` can write of each image beside its overlay: crops of heads, text files."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtnet_jax.outputs import Outputs
from mtnet_jax.predict.files import write_image
from mtnet_jax.predict.head import Head

CROPS, TEXTS = "crops", "labels"  # folders beside the overlays
_CROP = re.compile(r"(?P<name>.*)_[1-9][0-9]*", re.DOTALL)


def crop_of(overlay: Path, number: int) -> Path:
    """Where the crop of a head goes, counted from 1."""
    return overlay.parent / CROPS / f"{overlay.stem}_{number}.png"


def text_of(overlay: Path) -> Path:
    """Where the text file of an image goes."""
    return overlay.parent / TEXTS / f"{overlay.stem}.txt"


def check_crops(outputs: Outputs, overlays: Mapping[Path, Path]) -> None:
    """Raises unless crops of any number of heads may be written: before the work.

    Args:
      outputs: of the command.
      overlays: image -> its overlay, all in one folder.

    Raises:
      FileInTheWay, BadInput, Unavailable: see `Outputs.check`.
    """
    standing = defaultdict(list)  # name of the image -> its crops of an earlier run
    for folder in {crop_of(overlay, 1).parent for overlay in overlays.values()}:
        for file in folder.glob("*.png"):
            if crop := _CROP.fullmatch(file.stem):
                standing[crop["name"]].append(file)
    for path, overlay in overlays.items():
        for crop_file in (crop_of(overlay, 1), *standing[overlay.stem]):
            outputs.check(crop_file, str(path.resolve()))


def write_crops(
    outputs: Outputs, overlay: Path, image: np.ndarray, heads: list[Head], of: str
) -> None:
    """Writes each head of an image as crops/NAME_1.png, ... by falling score."""
    for number, head in enumerate(heads, start=1):
        left, top = np.floor(head.box[:2]).astype(int)
        right, bottom = np.ceil(head.box[2:]).astype(int)
        write_image(outputs, crop_of(overlay, number), image[top:bottom, left:right], of)


def write_text(
    outputs: Outputs,
    overlay: Path,
    image: np.ndarray,
    heads: list[Head],
    class_names: tuple[str, ...],
    of: str,
) -> None:
    """Writes labels/NAME.txt as YOLO does, a line a head: class, centre x and y, width, height (all
    as shares of the image), score; then yaw, pitch, roll in degrees."""
    size = np.tile(np.array(image.shape[1::-1], float), 2)
    lines = []
    for head in heads:
        left, top, right, bottom = np.array(head.box) / size
        box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        numbers = " ".join(f"{value:.6f}" for value in (*box, head.score))
        angles = " ".join(f"{value:.2f}" for value in (head.yaw, head.pitch, head.roll))
        lines.append(f"{class_names.index(head.label)} {numbers} {angles}\n")
    outputs.write(text_of(overlay), "".join(lines), of)
