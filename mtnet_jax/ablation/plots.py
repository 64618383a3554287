"""Plots of a comparison, drawn from the result of `report.gather` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mtnet_jax.ablation.comparing import BY_KEY
from mtnet_jax.evaluation.plots import COLOURS, INK, legend, new_plot

Result = Mapping[str, Any]
_MARKERS = "osD^vPX"


def plot_by_yaw(of_set: Result, key: str = "geodesic_mean") -> Figure:
    """A figure over |yaw| of the truth in bins of 15 degrees; bands are t intervals over seeds."""
    title = _error(key)
    figure, axes = new_plot("|Yaw| of the true pose", f"{title}, mean", size=(6.4, 4.2))
    for style, (arm, figures) in _styled(of_set["arms"]):
        bins = [b for b in figures["fine_yaw_bins"] if b[key]["value"] is not None]
        middles = [(b["low"] + b["high"]) / 2 for b in bins]
        axes.plot(middles, [b[key]["value"] for b in bins], label=arm, **style)
        banded = [(m, b[key]) for m, b in zip(middles, bins, strict=True) if b[key]["low"]]
        if banded:
            places, intervals = zip(*banded, strict=True)
            low, high = ([i[end] for i in intervals] for end in ("low", "high"))
            axes.fill_between(places, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.set(ylim=(0, None))
    axes.set_xticks(range(0, 181, 30), [f"{degrees}°" for degrees in range(0, 181, 30)])
    axes.yaxis.set_major_formatter("{x:g}°")
    legend(axes, "above")
    return figure


def plot_arms(
    of_set: Result, keys: Sequence[str] = ("geodesic_mean", "yaw", "pitch", "roll")
) -> Figure:
    """Some figures of every arm: the mean with its interval, and the seeds as dots."""
    figure, axes = new_plot("Error", "", size=(6.4, 1.2 + 0.3 * len(keys) * len(of_set["arms"])))
    names, place = [], 0.0
    for key in keys:
        for style, (arm, figures) in _styled(of_set["arms"]):
            interval = figures["overall"][key]
            known = [v for v in interval["by_seed"].values() if v is not None]
            axes.plot(known, [place] * len(known), "o", ms=3, color=style["color"], alpha=0.5)
            if interval["value"] is not None:
                axes.plot(interval["value"], place, "|", ms=11, mew=2.2, color=style["color"])
            if interval["low"] is not None:
                axes.plot([interval["low"], interval["high"]], [place] * 2, color=style["color"])
            names.append((place, f"{BY_KEY[key].title}: {arm}"))
            place += 1
        place += 0.6
    axes.set_yticks([p for p, _ in names], [name for _, name in names], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g}°")
    axes.grid(visible=False, axis="y")
    return figure


def plot_differences(of_set: Result, reference: str, key: str = "geodesic_mean") -> Figure:
    """Differences from the reference by |yaw|, with both of their intervals."""
    figure, axes = new_plot(
        f"{_error(key)} minus that of {reference}",
        "",
        size=(6.4, 1.2 + 0.2 * 7 * max(len(of_set["differences"]), 1)),
    )
    names, place = [], 0.0
    styles = {arm: style for style, (arm, _) in _styled(of_set["arms"])}
    for arm, apart in of_set["differences"].items():
        everything = [("all", apart["overall"])] if apart["overall"] else []
        for name, figures in everything + [
            (f"{b['low']}-{b['high']}°", b) for b in apart["yaw_bins"]
        ]:
            seeds, groups = (figures[key][which] for which in ("over_seeds", "over_groups"))
            if seeds["value"] is None:
                continue
            axes.plot(seeds["value"], place, "o", ms=4, color=styles[arm]["color"])
            for interval, width, offset in ((seeds, 1.2, -0.12), (groups, 3.2, 0.12)):
                if interval is not None and interval["low"] is not None:
                    ends = [interval["low"], interval["high"]]
                    line = {"color": styles[arm]["color"], "lw": width, "alpha": 0.7}
                    axes.plot(ends, [place + offset] * 2, **line)
            names.append((place, f"{arm}, {name}"))
            place += 1
        place += 0.6
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks([p for p, _ in names], [name for _, name in names], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g}°")
    axes.grid(visible=False, axis="y")
    axes.set_title(
        "thin: t over seeds; thick: bootstrap over images or persons", fontsize=8, loc="left"
    )
    return figure


def plot_curves(result: Result, name: str, key: str = "geodesic_mean") -> Figure:
    """An error of the held-out evaluations over the images seen; a thin line for each seed."""
    of = f"{_error(key)} on {name.removeprefix('eval/')}"
    figure, axes = new_plot("Training images seen", of, size=(6.4, 4.2))
    axes.yaxis.set_major_formatter("{x:g}°")
    for style, (arm, runs) in _styled(result["curves"]):
        lines = [line for line in (_curve(run, name, key) for run in runs.values()) if line]
        for line in lines:
            axes.plot(*zip(*line, strict=True), color=style["color"], lw=0.8, alpha=0.5)
        shared = [line for line in lines if [x for x, _ in line] == [x for x, _ in lines[0]]]
        if shared:
            middle = np.mean([[y for _, y in line] for line in shared], axis=0)
            axes.plot([x for x, _ in shared[0]], middle, label=arm, **style)
    axes.set(ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    legend(axes, "above")
    return figure


def _curve(run: Result, name: str, key: str) -> list[tuple[float, float]]:
    lines = run.get(name, [])
    return [(line["images"], line[key]) for line in lines if line.get(key) is not None]


def _error(key: str) -> str:
    return f"{BY_KEY[key].title.capitalize()} error"


def _styled(arms: Mapping[str, Any]) -> list[tuple[dict[str, Any], tuple[str, Any]]]:
    """Colour and marker of each arm, the same in all plots of a comparison."""
    return [
        (
            {
                "color": COLOURS[i % len(COLOURS)],
                "marker": _MARKERS[i % len(_MARKERS)],
                "ms": 4,
                "lw": 1.8,
            },
            item,
        )
        for i, item in enumerate(arms.items())
    ]
