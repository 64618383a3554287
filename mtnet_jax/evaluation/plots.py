"""Plots of evaluation results, drawn from the results alone: a stored JSON file redoes them."""

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtnet_jax.evaluation.tables import Results, bin_name, cell

# Okabe and Ito's colours, which stay apart for the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, _GRID = "#222222", "#DDDDDD"


def plot_precision_recall(results: Results) -> Figure:
    """Interpolated precision over recall at IoU .5; the area is AP50."""
    figure, axes = new_plot("Recall at IoU 0.5", "Precision")
    for colour, (name, result) in _coloured(results):
        precision = result["curves"]["precision50"]
        if precision is not None:
            label = f"{name}, AP50 {cell(result['detection']['ap50'], '%')}"
            recall = result["curves"]["recall"]
            axes.step(recall, precision, where="pre", color=colour, lw=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, "lower left")
    return figure


def plot_by_yaw(results: Results) -> Figure:
    """`plot_pose_by_yaw`, or `plot_heading` where no result has a pose."""
    posed = any(result["pose"]["evaluated"] for result in results.values())
    return plot_pose_by_yaw(results) if posed else plot_heading(results)


def plot_pose_by_yaw(results: Results) -> Figure:
    """Mean geodesic error by bins of |yaw|, with the number of poses behind every bar."""
    figure, axes = new_plot("|Yaw| of the true pose", "Mean geodesic error")
    _bars(axes, results, "pose", "yaw_bins", "geodesic_mean")
    return figure


def plot_heading(results: Results) -> Figure:
    """Mean error of the heading by bins of |heading|, with the number of heads behind every bar."""
    figure, axes = new_plot("|Heading| of the true head", "Mean error of the heading")
    _bars(axes, results, "heading", "heading_bins", "mean")
    return figure


def _bars(axes: Any, results: Results, section: str, bins: str, key: str) -> None:
    """A bar for each bin of each result."""
    width = 0.8 / max(len(results), 1)
    names = []
    for index, (colour, (name, result)) in enumerate(_coloured(results)):
        names = [bin_name(each) + "°" for each in result[bins]]
        filled = [(i, b) for i, b in enumerate(result[bins]) if b[key] is not None]
        if not filled:
            continue
        bars = axes.bar(
            [i + (index + 0.5) * width - 0.4 for i, _ in filled],
            [b[key] for _, b in filled],
            width * 0.92,
            color=colour,
            label=f"{name} (n = {result[section]['evaluated']})",
        )
        counts = [f"{b['evaluated']}" for _, b in filled]
        axes.bar_label(bars, counts, padding=2, fontsize=7, color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_formatter("{x:g}°")
    axes.grid(visible=False, axis="x")
    legend(axes, "above")


def plot_geodesic(results: Results) -> Figure:
    """Fraction of evaluated poses with a geodesic error of at most x degrees."""
    figure, axes = new_plot("Geodesic error at most", "Fraction of evaluated poses")
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
    legend(axes, "lower right")
    return figure


def new_plot(
    x_label: str, y_label: str, *, size: tuple[float, float] = (5.2, 3.6)
) -> tuple[Figure, Any]:
    """An empty plot in the style of all of them: figure and axes; inches wide and high."""
    # A Figure of its own, without pyplot: no global state, no display, nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    return figure, axes


def _coloured(results: Results) -> list[tuple[str, tuple[str, Mapping[str, Any]]]]:
    return [(COLOURS[i % len(COLOURS)], item) for i, item in enumerate(results.items())]


def legend(axes: Any, location: str) -> None:
    """Says what is what, inside (a place of matplotlib) or "above"; or that there is nothing."""
    labels = axes.get_legend_handles_labels()[1]
    if labels and location == "above":
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": min(len(labels), 2)}
        axes.legend(frameon=False, fontsize=9, borderaxespad=0.2, **place)
    elif labels:
        axes.legend(loc=location, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes)
