"""Evaluation results as text tables, JSON and plots. A result is what `metrics.evaluate` returns.

Everything takes several results by name, {"network": ..., "constant": ...}, and puts them side by
side.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtnet_jax.columns import align
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.plots import plot_by_yaw, plot_geodesic, plot_precision_recall
from mtnet_jax.evaluation.tables import Results, bin_name, cell
from mtnet_jax.outputs import Outputs

# (section, key, printed name, unit or "%"); None is an empty line.
_ROWS = (
    ("counts", "images", "images", ""),
    ("counts", "images_skipped", "  skipped by the protocol", ""),
    ("counts", "truths", "truths", ""),
    ("counts", "truths_with_pose", "  with a pose", ""),
    ("counts", "truths_with_heading", "  with a pose or a heading", ""),
    ("counts", "ignored", "  ignored, besides", ""),
    ("counts", "predictions", "predictions", ""),
    ("counts", "predictions_counted", "  of score >= {score_threshold:g}", ""),
    None,
    ("detection", "ap50", "AP50", "%"),
    ("detection", "ap50_95", "AP50:95", "%"),
    ("detection", "recall", "recall", "%"),
    ("detection", "precision", "precision", "%"),
    ("detection", "matched", "matched", ""),
    ("detection", "missed", "missed", ""),
    ("detection", "false_positives", "false positives", ""),
    ("detection", "mean_iou_matched", "mean IoU, matched", "%"),
    ("detection", "mean_iou_all", "mean IoU, missed = 0", "%"),
    None,
    ("pose", "evaluated", "poses evaluated", ""),
    ("pose", "invalid_rotations", "  left out: no rotation", ""),
    ("pose", "coverage", "  of all truths with a pose", "%"),
    ("pose", "yaw", "MAE yaw", "°"),
    ("pose", "pitch", "MAE pitch", "°"),
    ("pose", "roll", "MAE roll", "°"),
    ("pose", "mae", "MAE", "°"),
    ("pose", "maev_left", "MAEV left", "°"),
    ("pose", "maev_bottom", "MAEV bottom", "°"),
    ("pose", "maev_front", "MAEV front", "°"),
    ("pose", "maev", "MAEV", "°"),
    ("pose", "geodesic_mean", "geodesic, mean", "°"),
    ("pose", "geodesic_median", "geodesic, median", "°"),
    None,
    ("heading", "evaluated", "headings evaluated", ""),
    ("heading", "mean", "heading, mean", "°"),
    ("heading", "median", "heading, median", "°"),
    ("heading", "beyond_90", "  more than 90° off", "%"),
)
_YAW_COLUMNS = (
    ("recall", "recall", "%"),
    ("mean_iou_matched", "IoU", "%"),
    ("evaluated", "poses", ""),
    ("yaw", "yaw", "°"),
    ("pitch", "pitch", "°"),
    ("roll", "roll", "°"),
    ("mae", "MAE", "°"),
    ("maev", "MAEV", "°"),
    ("geodesic_mean", "geodesic", "°"),
    ("geodesic_median", "median", "°"),
)
_SIZE_COLUMNS = (
    ("recall", "recall", "%"),
    ("mean_iou_matched", "IoU", "%"),
    ("evaluated", "poses", ""),
    ("mae", "MAE", "°"),
    ("geodesic_mean", "geodesic", "°"),
    ("geodesic_median", "median", "°"),
    ("heading_mean", "heading", "°"),
)
_CLASS_COLUMNS = (
    ("predictions", "found", ""),
    ("ap50", "AP50", "%"),
    ("ap50_95", "AP50:95", "%"),
    ("recall", "recall", "%"),
    ("mean_iou_matched", "IoU", "%"),
)
_HEADING_COLUMNS = (
    ("evaluated", "found", ""),
    ("mean", "mean", "°"),
    ("median", "median", "°"),
    ("beyond_90", "over 90°", "%"),
    ("outward", "outward", "°"),
)

REPORT_FILES = (
    *("evaluation.txt", "evaluation.json"),
    *("precision_recall.png", "pose_by_yaw.png", "geodesic.png"),
)


def format_table(results: Results) -> str:
    """All numbers, a line each, a column for every result.

    Args:
      results: name -> result; all made with the same settings.

    Returns:
      Text of several lines, without a newline at the end.

    Raises:
      ValueError: no results, or settings that differ.
    """
    settings = _common_settings(results)
    head = ["", *results]
    lines = [head, None]
    for row in _ROWS:
        if row is None:
            lines.append(None)
            continue
        section, key, name, unit = row
        cells = [cell(result[section][key], unit) for result in results.values()]
        lines.append([name.format(**settings), *cells])
    return _settings_line(settings) + "\n\n" + align(lines)


def format_bins(results: Results) -> str:
    """The tables by |yaw|, by |heading| and by size of the truth, a block for every result.

    Args:
      results: name -> result; all made with the same settings.

    Returns:
      Text of several lines, without a newline at the end.

    Raises:
      ValueError: no results, or settings that differ.
    """
    _common_settings(results)
    tables = (
        ("|yaw|", "yaw_bins", "°", _YAW_COLUMNS),
        ("|heading|", "heading_bins", "°", _HEADING_COLUMNS),
        ("side of the box", "size_bins", " px", _SIZE_COLUMNS),
    )
    return "\n\n".join(
        _block(f"{name}: {title}", [(bin_name(b) + unit, b) for b in result[key]], columns)
        for title, key, unit, columns in tables
        for name, result in results.items()
    )


def format_classes(results: Results) -> str:
    """A line for each class of each result; nothing where all is of one class."""
    return "\n\n".join(
        _block(f"{name}: class", [(c["name"], c) for c in result["classes"]], _CLASS_COLUMNS)
        for name, result in results.items()
        if len(result["classes"]) > 1
    )


def as_json(results: Results) -> str:
    """The results as strict JSON (a NaN would be an error, undefined numbers are null)."""
    return json.dumps(results, indent=1, allow_nan=False) + "\n"


def write_report(
    outputs: Outputs, results: Results, folder: Path, *, title: str = "", of: str = ""
) -> list[Path]:
    """Write tables, JSON and plots of the results.

    Args:
      outputs: of the command.
      results: name -> result; all made with the same settings.
      folder: made if it does not exist. Gets evaluation.txt, evaluation.json,
        precision_recall.png, pose_by_yaw.png and geodesic.png.
      title: first line of evaluation.txt: on what, and by which rule its boxes are.
      of: the records, as `outputs` names the input.

    Returns:
      The paths written.

    Raises:
      ValueError: no results, or settings that differ.
    """
    parts = [title, format_table(results), format_classes(results), format_bins(results)]
    text = "\n\n".join(filter(None, parts))
    paths = [folder / name for name in REPORT_FILES]
    outputs.write(paths[0], text + "\n", of)
    outputs.write(paths[1], as_json(results), of)
    plots = (plot_precision_recall, plot_by_yaw, plot_geodesic)
    for path, plot in zip(paths[2:], plots, strict=True):
        with outputs.writing(path, of) as file:
            plot(results).savefig(file, format="png", dpi=160)
    return paths


def _common_settings(results: Results) -> Mapping[str, Any]:
    settings = [result["settings"] for result in results.values()]
    if not settings:
        raise BadInput("No results to print.")
    if any(each != settings[0] for each in settings):
        raise BadInput(f"Results of different settings do not compare: {settings}.")
    return settings[0]


def _settings_line(settings: Mapping[str, Any]) -> str:
    line = f"protocol {settings['protocol']}, score >= {settings['score_threshold']:g}"
    if settings["protocol"] == "matched":
        line += f", IoU >= {settings['iou_threshold']:g}"
    line += " (the AP figures use all scores and their own IoUs)"
    return line if "weights" not in settings else f"{line}\n{_measured_line(settings)}"


def _measured_line(settings: Mapping[str, Any]) -> str:
    """What made the predictions."""
    parts = [f"weights {settings['weights']}"]
    if settings.get("step") is not None:
        parts.append(f"step {settings['step']}")
    if "size" in settings:
        parts.append(f"input {settings['size']} pixels")
        parts.append("second looks" if settings["second_look"] else "one look")
    return ", ".join(parts)


def _block(
    title: str, rows: list[tuple[str, Mapping[str, Any]]], columns: tuple[tuple[str, str, str], ...]
) -> str:
    """A table of rows (name, figures) with the columns (key, title, unit)."""
    lines: list[list[str] | None] = [[title, "truths", *(name for _, name, _ in columns)], None]
    for name, figures in rows:
        cells = [cell(figures[key], unit) for key, _, unit in columns]
        lines.append([name, cell(figures["truths"], ""), *cells])
    return align(lines)
