"""Raw data in the layout of BIWI, for tests, and their conversion."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.engine.report import Report
from data_prep.sets import biwi
from mtnet_jax.data.example import check_record

SIZE = (64, 48)
CALIBRATION = """50 0 32
0 52 24
0 0 1

0.05 -0.02 0.001 -0.002

1 0 0
0 1 0
0 0 1

-24 6 -13

64 48
"""


def png(size=SIZE) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


def pose(rotation="1 0 0\n0 1 0\n0 0 1", centre="5 -10 900") -> str:
    return f"{rotation}\n\n{centre}\n\n"


def write_raw(folder: Path) -> Path:
    """Sequences 01 and 17 with a frame each, in a folder whose name has a space and accents."""
    root = folder / "têtes à voir" / "hpdb"
    for number in (1, 17):
        sequence = root / f"{number:02d}"
        sequence.mkdir(parents=True)
        (sequence / "rgb.cal").write_text(CALIBRATION)
        (sequence / "frame_00003_rgb.png").write_bytes(png())
        (sequence / "frame_00003_pose.txt").write_text(pose())
    return root.parent


def real_frame(data_dir) -> Path:
    folder = data_dir / "biwi" / "hpdb" / "12"
    if not folder.is_dir():
        pytest.skip(f"no BIWI at {folder}")
    return folder


def read(raw, **options):
    """Report and records, name of the split -> list, of a conversion of sequences 1 and 17."""
    conversion = biwi.conversion(raw, **{"sequences": (1, 17), **options})
    report = Report(conversion.description)
    records = {
        split: [record for item in items for record in conversion.read(item, report)]
        for split, items in conversion.splits.items()
    }
    for found in records.values():
        for record in found:
            check_record(record)
    return report, records


def project(points, rotation, translation, matrix, distortion=(0, 0, 0, 0)):
    """(n, 2) pixels of the textbook camera with k1, k2, p1, p2, one point at a time."""
    k1, k2, p1, p2 = distortion
    pixels = []
    for point in points:
        x, y, z = rotation @ point + translation
        x, y = x / z, y / z
        r = x * x + y * y
        radial = 1 + k1 * r + k2 * r * r
        xd = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
        yd = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
        pixels.append([matrix[0, 0] * xd + matrix[0, 2], matrix[1, 1] * yd + matrix[1, 2]])
    return np.array(pixels)
