"""Crops round the heads of a record set, one a record: small images for small experiments.

Every head that is large enough and not ignored becomes a square image of its own, the head at a
random size and place in it (the same ones whenever it is converted). Other heads in view are marked
to be ignored, so that each head counts once. Rotations are relative to the ray through the head,
which is what a crop shows; intrinsics are left out, so they count as they are in both frames.
The image_id is that of the whole image, `#`, and the number of the head there.
"""

import argparse
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion
from data_prep.engine.heads import HeadsOfImage
from data_prep.engine.report import Report
from data_prep.own.record_items import (
    RecordItem,
    add_splits,
    description_of,
    record_items,
    record_of,
)
from mtnet_jax.boxes import longer_side_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.data.fitting import fit_heads
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.records import RecordSet

_JPEG_QUALITY = 95


class CropOptions(NamedTuple):
    """How heads are cut out."""

    size: int = 96  # pixels, side of a crop
    head_min: float = 0.4  # longer side of the head, in parts of the side of the crop,
    head_max: float = 0.8  # log-uniform between the two
    shift: float = 0.1  # of the head's centre from that of the crop, in parts of its side
    smallest: float = 16.0  # pixels, longer side of a head that is worth a crop
    posed: bool = False  # leaves out heads without a pose


def read_crops(
    item: RecordItem, report: Report, *, name: str, options: CropOptions
) -> Iterator[dict]:
    """A record for each head of a record."""
    record = record_of(item, frame="ray")
    image = None
    for head, box in enumerate(record["boxes"]):
        reason = _unfit(record, head, options)
        if reason:
            report.note(f"heads without a crop: {reason}", record["image_id"])
            continue
        image = decode_image(record["image"]) if image is None else image
        crop_id = f"{record['image_id']}#{head}"
        matrix = _crop_map(crop_id, box, options)
        pixels = geometry.map_image(image, matrix, options.size)
        heads = HeadsOfImage(crop_id, (options.size, options.size), report)
        # The head comes last, so that its number is known: heads out of view are taken away.
        order = [*(i for i in range(len(record["boxes"])) if i != head), head]
        fitted = fit_heads(_reordered(record, order), matrix, options.size)
        own = len(fitted["boxes"]) - 1
        for i in range(own + 1):
            heads.add(
                fitted["boxes"][i],
                fitted["rotations"][i] if fitted["has_pose"][i] else None,
                heading=float(fitted["headings"][i]) if fitted["has_heading"][i] else None,
                label=int(fitted["labels"][i]),
                ignore="" if i == own else "another head has this crop",
            )
        yield heads.record(as_jpeg(pixels), name)


def _unfit(record: dict, head: int, options: CropOptions) -> str:
    """Why a head gets no crop; empty where it gets one."""
    box = record["boxes"][head]
    if record["ignore"][head]:
        return "ignored"
    if longer_side_xyxy(box) < options.smallest:
        return f"smaller than {options.smallest:g} pixels"
    if options.posed and not record["has_pose"][head]:
        return "without a pose"
    return ""


def _crop_map(crop_id: str, box: np.ndarray, options: CropOptions) -> np.ndarray:
    """The map (2, 3) from the image to the crop; random, and always the same for a name."""
    digest = hashlib.sha256(crop_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    part = np.exp(rng.uniform(np.log(options.head_min), np.log(options.head_max)))
    scale = part * options.size / float(longer_side_xyxy(box))
    middle = options.size * (0.5 + rng.uniform(-options.shift, options.shift, 2))
    return geometry.similarity_map(scale, 0.0, 1.0, (box[:2] + box[2:]) / 2, middle)


def _reordered(record: dict, order: list[int]) -> dict:
    per_head = ("boxes", "rotations", "has_pose", "ignore", "labels", "headings", "has_heading")
    return {**record, **{name: record[name][order] for name in per_head}}


def as_jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
    assert done
    return encoded.tobytes()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert crops`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    defaults = CropOptions()
    parser.add_argument(
        "--size", type=arguments.positive, default=defaults.size, metavar="PIXELS", help="of a crop"
    )
    parser.add_argument(
        "--smallest",
        type=arguments.amount,
        default=defaults.smallest,
        metavar="PIXELS",
        help="longer side of the smallest head that gets a crop (default: %(default)g)",
    )
    parser.add_argument("--posed", action="store_true", help="leave out heads without a pose")
    add_splits(parser)
    parser.add_argument("--name", help="of the record set (default: the last part of --out)")


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    options = CropOptions(size=args.size, smallest=args.smallest, posed=args.posed)
    name = args.name or args.out.name
    return conversion(args.raw, name=name, options=options, splits=args.splits)


def conversion(
    raw: Path, *, name: str, options: CropOptions, splits: Sequence[str] = ()
) -> Conversion:
    """The crops of a record set, as a data set to be written.

    Args:
      raw: record set.
      name: of the record set to be written.
      options: how heads are cut out.
      splits: of the record set that are taken; none: all.

    Raises:
      FileNotFoundError, ValueError: see `RecordSet.open` and `record_items`.
    """
    record_set = RecordSet.open(raw)
    description = description_of(record_set, name, f"Crops round the heads of {record_set.name}.")
    read = functools.partial(read_crops, name=name, options=options)
    return Conversion(description, record_items(record_set, splits), read)
