"""Evaluation results as text tables, JSON and plots. A result is what `metrics.evaluate` returns.

Everything takes several results by name, {"network": ..., "constant": ...}, and puts them side by
side. All plots are drawn from the results alone, so a stored JSON file is enough to redo them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtnet_jax.errors import BadInput
from mtnet_jax.outputs import Outputs

Results = Mapping[str, Mapping[str, Any]]

# (section, key, printed name, unit or "%"); None is an empty line.
_ROWS = (
    ("counts", "pictures", "pictures", ""),
    ("counts", "pictures_skipped", "  skipped by the protocol", ""),
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
_BIN_COLUMNS = (
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
)

REPORT_FILES = (
    *("evaluation.txt", "evaluation.json"),
    *("precision_recall.png", "pose_by_yaw.png", "geodesic.png"),
)

# Okabe and Ito's colours, which stay apart for the colour-blind.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _GRID = "#222222", "#DDDDDD"


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


def format_yaw_bins(results: Results) -> str:
    """The tables by bins of |yaw| and of |heading| of the truth, two blocks for every result.

    Args:
      results: name -> result; all made with the same settings.

    Returns:
      Text of several lines, without a newline at the end.

    Raises:
      ValueError: no results, or settings that differ.
    """
    _common_settings(results)
    blocks = []
    for name, result in results.items():
        head = [f"{name}: |yaw|", "truths", *(title for _, title, _ in _BIN_COLUMNS)]
        lines = [head, None]
        for each in result["yaw_bins"]:
            cells = [cell(each[key], unit) for key, _, unit in _BIN_COLUMNS]
            lines.append([_bin_name(each) + "°", cell(each["truths"], ""), *cells])
        blocks.append(align(lines))
    for name, result in results.items():
        head = [f"{name}: |heading|", "truths", *(title for _, title, _ in _HEADING_COLUMNS)]
        lines = [head, None]
        for each in result["heading_bins"]:
            cells = [cell(each[key], unit) for key, _, unit in _HEADING_COLUMNS]
            lines.append([_bin_name(each) + "°", cell(each["truths"], ""), *cells])
        blocks.append(align(lines))
    return "\n\n".join(blocks)


def format_classes(results: Results) -> str:
    """A line for each class of each result; nothing where all is of one class."""
    blocks = []
    for name, result in results.items():
        head = [f"{name}: class", "truths", *(title for _, title, _ in _CLASS_COLUMNS)]
        lines: list[list[str] | None] = [head, None]
        for each in result["classes"]:
            cells = [cell(each[key], unit) for key, _, unit in _CLASS_COLUMNS]
            lines.append([each["name"], cell(each["truths"], ""), *cells])
        if len(result["classes"]) > 1:
            blocks.append(align(lines))
    return "\n\n".join(blocks)


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
    parts = [title, format_table(results), format_classes(results), format_yaw_bins(results)]
    text = "\n\n".join(filter(None, parts))
    paths = [folder / name for name in REPORT_FILES]
    outputs.write(paths[0], text + "\n", of)
    outputs.write(paths[1], as_json(results), of)
    plots = (plot_precision_recall, plot_pose_by_yaw, plot_geodesic)
    for path, plot in zip(paths[2:], plots, strict=True):
        with outputs.writing(path, of) as file:
            plot(results).savefig(file, format="png", dpi=160)
    return paths


def plot_precision_recall(results: Results) -> Figure:
    """Interpolated precision over recall at IoU .5; the area is AP50."""
    figure, axes = _new_plot("Recall at IoU 0.5", "Precision")
    for colour, (name, result) in _coloured(results):
        precision = result["curves"]["precision50"]
        if precision is not None:
            label = f"{name}, AP50 {cell(result['detection']['ap50'], '%')}"
            recall = result["curves"]["recall"]
            axes.step(recall, precision, where="pre", color=colour, lw=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes, "lower left")
    return figure


def plot_pose_by_yaw(results: Results) -> Figure:
    """Mean geodesic error by bins of |yaw|, with the number of poses behind every bar."""
    figure, axes = _new_plot("|Yaw| of the true pose", "Mean geodesic error")
    width = 0.8 / max(len(results), 1)
    names = []
    for index, (colour, (name, result)) in enumerate(_coloured(results)):
        bins = result["yaw_bins"]
        names = [_bin_name(each) + "°" for each in bins]
        filled = [(i, b) for i, b in enumerate(bins) if b["geodesic_mean"] is not None]
        if not filled:
            continue
        bars = axes.bar(
            [i + (index + 0.5) * width - 0.4 for i, _ in filled],
            [b["geodesic_mean"] for _, b in filled],
            width * 0.92,
            color=colour,
            label=f"{name} (n = {result['pose']['evaluated']})",
        )
        counts = [f"{b['evaluated']}" for _, b in filled]
        axes.bar_label(bars, counts, padding=2, fontsize=7, color=_INK)
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_formatter("{x:g}°")
    axes.grid(visible=False, axis="x")
    _legend(axes, "above")
    return figure


def plot_geodesic(results: Results) -> Figure:
    """Fraction of evaluated poses with a geodesic error of at most x degrees."""
    figure, axes = _new_plot("Geodesic error at most", "Fraction of evaluated poses")
    furthest = 30
    for colour, (name, result) in _coloured(results):
        fraction = result["curves"]["geodesic_fraction"]
        if fraction is None:
            continue
        degrees = result["curves"]["geodesic_degrees"]
        median = cell(result["pose"]["geodesic_median"], "°")
        label = f"{name}, median {median}"
        axes.plot(degrees, fraction, color=colour, lw=2, label=label)
        reached = next(d for d, f in zip(degrees, fraction, strict=True) if f >= 0.995)
        furthest = max(furthest, reached)
    axes.set(xlim=(0, min(180, furthest * 1.05)), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter("{x:g}°")
    _legend(axes, "lower right")
    return figure


def _new_plot(x_label: str, y_label: str) -> tuple[Figure, Any]:
    # A Figure of its own, without pyplot: no global state, no display, nothing to close.
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    return figure, axes


def _coloured(results: Results) -> list[tuple[str, tuple[str, Mapping[str, Any]]]]:
    return [(_COLOURS[i % len(_COLOURS)], item) for i, item in enumerate(results.items())]


def _legend(axes: Any, location: str) -> None:
    labels = axes.get_legend_handles_labels()[1]
    if labels and location == "above":
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": min(len(labels), 2)}
        axes.legend(frameon=False, fontsize=9, borderaxespad=0.2, **place)
    elif labels:
        axes.legend(loc=location, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes)


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
    return line + " (the AP figures use all scores and their own IoUs)"


def _bin_name(each: Mapping[str, Any]) -> str:
    return f"{each['low']}-{each['high']}"


def cell(value: float | None, unit: str) -> str:
    """Counts as they are, ratios in percent, angles with two digits, undefined as a dash."""
    if value is None:
        return "-"
    if unit == "%":
        return f"{100 * value:.1f}%"
    return f"{value:.2f}°" if unit == "°" else str(value)


def align(lines: list[list[str] | None]) -> str:
    """Columns of equal width, the first to the left, the others to the right; None is a rule."""
    cells = [line for line in lines if line is not None]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def text(line: list[str]) -> str:
        first, *others = line
        columns = [first.ljust(widths[0])]
        columns += [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        return "  ".join(columns).rstrip()

    return "\n".join(rule if line is None else text(line) for line in lines)
