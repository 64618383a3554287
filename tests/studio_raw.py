"""Scenes in the raw layouts of data sets, and their conversions."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.engine.report import Report
from data_prep.studio.layouts.writing import write_layout
from data_prep.studio.truth import truth
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data.example import check_record
from mtnet_jax.rotations import geodesic_degrees

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")


def written(layout, out: Path) -> Path:
    """Writes raw data in this process."""
    write_layout(layout, out, about={"layout": "a test"})
    return out


def converted(conversion) -> tuple[dict[str, list[dict]], Report]:
    """Split -> records, without writing them."""
    report = Report(conversion.description)
    records = {}
    for split, items in conversion.splits.items():
        records[split] = [record for item in items for record in conversion.read(item, report)]
        for record in records[split]:
            check_record(record)
    return records, report


def iou(a, b) -> float:
    a, b = (np.asarray(box, np.float32) for box in (a, b))
    return float(np.asarray(iou_xyxy(a, b)))


def angle(a, b) -> float:
    return float(np.asarray(geodesic_degrees(a, b)))


def everybody(scene, camera, box_rule="head") -> dict[int, object]:
    """Number of the person -> truth, as if nobody hid anybody."""
    found = {}
    for number in range(len(scene.people)):
        ids = np.full((camera.height, camera.width), number + 1)
        for head in truth(scene, camera, ids, box_rule=box_rule)[0]:
            if head.person == number:
                found[number] = head
    return found
