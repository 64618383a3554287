"""Small conversions that tests of the builder, the report and converters share."""

from pathlib import Path

import cv2
import numpy as np

from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.report import Report


def jpeg(height=40, width=60, seed=0) -> bytes:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", rgb)[1].tobytes()


def about(**changes) -> Description:
    return Description(
        **{
            "name": "tiny",
            "version": "1.2.3",
            "text": "A tiny set.",
            "box_rule": "head",
            "label_names": ("head",),
            "homepage": "https://example.org",
            "citation": "@misc{tiny}",
            "licence": "CC0",
            **changes,
        }
    )


def tiny_record(number: int) -> dict:
    count = number % 3
    boxes = np.tile(np.array([[1, 2, 30, 30]], np.float32), (count, 1))
    return {
        "image": jpeg(seed=number),
        "image_id": f"image {number}",
        "source": "tiny",
        "boxes": boxes,
        "rotations": np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        "has_pose": np.zeros(count, bool),
        "ignore": np.zeros(count, bool),
        "labels": np.zeros(count, np.int32),
        "headings": np.zeros(count, np.float32),
        "has_heading": np.zeros(count, bool),
        "intrinsics": np.zeros(4, np.float32),
    }


def read_tiny(number: int, report: Report):
    yield tiny_record(number)


def read_but(number, report, *, bad: int, message: str, seed: int = 0):
    if number == bad and message:
        raise ValueError(f"image {number}: {message}")
    yield {**tiny_record(number), "source": f"seed {seed}"}


def tiny(splits=None, read=read_tiny) -> Conversion:
    return Conversion(about(), splits or {"train": range(6), "test": range(6, 9)}, read)


def parts(folder: Path) -> list[Path]:
    """What is done of a conversion into FOLDER/out."""
    return sorted(folder.glob(".out.parts/*.pickle"))


def assert_same_files(expected: Path, found: Path) -> None:
    """Compares two folders byte for byte."""
    names = sorted(path.name for path in expected.iterdir())
    assert names == sorted(path.name for path in found.iterdir())
    for name in names:
        assert (expected / name).read_bytes() == (found / name).read_bytes(), name
