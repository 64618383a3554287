"""The paper's tables, with the rows that were published and that of a run."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from mtnet_jax.columns import align
from mtnet_jax.evaluation.tables import cell
from mtnet_jax.protocols.plan import CANONICAL, CROPS, IOU, PAIRING, EvalSet

_ANGLES = ("yaw", "pitch", "roll", "mae")
_WIDTH = 110


class Measured(NamedTuple):
    """What a run reached on a test set.

    Attributes:
      test: the test set.
      results: how heads were paired, "matched" and "authors" -> result of `metrics.evaluate`.
      box_rule: of the test set's boxes.
      frame: of its rotations.
    """

    test: EvalSet
    results: Mapping[str, Mapping[str, Any]]
    box_rule: str
    frame: str


def format_table(measured: Measured) -> str:
    """The table of a test set: published rows, this run's, and what makes them comparable."""
    lines: list[list[str] | None] = [
        ["", "yaw", "pitch", "roll", "MAE", "IoU or AP, %", "found, %"],
        None,
    ]
    for row in measured.test.rows:
        angles = [_degrees(getattr(row, angle)) for angle in _ANGLES]
        found = "crops" if row.crops else "-"
        lines.append([row.method, *angles, row.detection or "-", found])
    if measured.test.rows:
        lines.append(None)
    lines += [
        [f"this run, {pairing}", *_cells(result)] for pairing, result in measured.results.items()
    ]
    counts = measured.results["matched"]["counts"]
    about = (
        f"{counts['images']} images, {counts['truths_with_pose']} heads with a pose; boxes by the "
        f"rule {measured.box_rule!r}, rotations in the frame {measured.frame!r}"
    )
    remarks = [*measured.test.remarks, CANONICAL, PAIRING, CROPS, IOU]
    text = [measured.test.title, about, "", align(lines), "", "What compares, and what does not:"]
    text += [textwrap.fill(f"- {each}", _WIDTH, subsequent_indent="  ") for each in remarks]
    sources = dict.fromkeys(f"{row.method}: {row.source}" for row in measured.test.rows)
    if sources:
        text += ["Sources:", *(f"- {source}" for source in sources)]
    return "\n".join(text)


def as_json(measured: list[Measured]) -> str:
    """The same as strict JSON."""
    content = [
        {
            "test": each.test.title,
            "box_rule": each.box_rule,
            "frame": each.frame,
            "published": [row._asdict() for row in each.test.rows],
            "results": each.results,
            "remarks": each.test.remarks,
        }
        for each in measured
    ]
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _cells(result: Mapping[str, Any]) -> list[str]:
    detection, pose = result["detection"], result["pose"]
    matched, everything = (
        cell(detection[key], "%").rstrip("%") for key in ("mean_iou_matched", "mean_iou_all")
    )
    ap50, ap = (cell(detection[key], "%").rstrip("%") for key in ("ap50", "ap50_95"))
    found, skipped = cell(pose["coverage"], "%").rstrip("%"), result["counts"]["images_skipped"]
    return [
        *(_degrees(pose[angle]) for angle in _ANGLES),
        f"IoU {matched} ({everything} of all), AP50 {ap50}, AP50:95 {ap}",
        f"{found}; {skipped} images left out" if skipped else found,
    ]


def _degrees(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
