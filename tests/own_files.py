"""Images and conversions of the tests of own data."""

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.engine.builder import write_record_set
from data_prep.engine.report import Report
from mtnet_jax.data.records import RecordSet, RecordSource

WIDTH, HEIGHT = 80, 50


# The formulas of docs/conventions.md with scipy's intrinsic axes: yaw, pitch, roll -> rotation.
SCIPY = {
    "canonical": lambda y, p, r: Rotation.from_euler("XYZ", [-p, y, r], degrees=True),
    "paper": lambda y, p, r: Rotation.from_euler("XYZ", [r, p, y], degrees=True),
    "sixdrepnet": lambda y, p, r: Rotation.from_euler("ZYX", [r, y, p], degrees=True),
    "opal": lambda y, p, r: Rotation.from_euler("XYZ", [-p, -y, r], degrees=True),
}


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def convert(conversion, out: Path) -> tuple[Report, dict[str, dict]]:
    """The report, and the records of all splits by image_id, with their split."""
    report = write_record_set(conversion, out)
    records = {}
    for split in RecordSet.open(out).splits:
        source = RecordSource(out, split, decode=False)
        for i in range(len(source)):
            records[source[i]["image_id"]] = {**source[i], "split": split}
    return report, records
