"""A comparison as text, CSV and LaTeX. What goes in is the result of `report.gather`."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtnet_jax.ablation.comparing import BY_KEY, FIGURES
from mtnet_jax.columns import align
from mtnet_jax.evaluation.intervals import ENOUGH_GROUPS, ENOUGH_SEEDS
from mtnet_jax.evaluation.tables import cell

Result = Mapping[str, Any]
BY_YAW = ("geodesic_mean", "yaw", "pitch", "roll")  # of the tables by |yaw| in the text
COMPARED = ("geodesic_mean", "maev", "mae", "ap50", "mean_iou_matched", "recall")
TABLE2 = ("mean_iou_matched", "yaw", "pitch", "roll")  # columns of the paper's Table 2


def as_text(result: Result) -> str:
    """All tables, one block after another."""
    blocks = [_head(result), _cost(result)]
    for name, of_set in result["sets"].items():
        title = f"{name}: {of_set['images']} images, {of_set['groups']} groups for the bootstrap"
        blocks += [title + "\n" + "=" * len(title), _overall(of_set), _differences(of_set, result)]
        blocks += [_by_yaw(of_set, key) for key in BY_YAW]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _head(result: Result) -> str:
    settings = result["settings"]
    lines = [
        f"{result['name']}: {len(result['arms'])} arms, seeds {result['seeds']}",
        f"protocol {settings['protocol']}, score >= {settings['score_threshold']:g}, IoU >= "
        f"{settings['iou_threshold']:g} (AP uses all scores)",
        "mean +- half of Student's t 95 % interval over seeds; (n) follows a mean of fewer than "
        f"{ENOUGH_SEEDS} seeds, which has none, (n of m) one that other seeds have no number of",
        "errors of an arm are of the heads that it found; differences of those that all runs of "
        "both arms found",
    ]
    if result["missing"]:
        lines.append(f"not done: {', '.join(result['missing'])}")
    return "\n".join(lines)


def _cost(result: Result) -> str:
    lines: list[list[str] | None] = [
        ["arm", "runs", "parameters", "MFLOP/image", "images seen", "s/1000 images"],
        None,
    ]
    for arm, cost in result["costs"].items():
        flop, seconds = cost["flop_of_image"], cost["seconds_of_1000_images"]
        lines.append(
            [
                arm,
                str(cost["runs"]),
                f"{cost['parameters']:,}",
                "-" if flop is None else f"{flop / 1e6:.1f}",
                f"{cost['images']:,}",
                "-" if seconds is None else f"{seconds:.2f}",
            ]
        )
    return align(lines)


def _overall(of_set: Result) -> str:
    overall = [arm["overall"] for arm in of_set["arms"].values()]
    known = [f for f in FIGURES if any(each[f.key]["support"] for each in overall)]
    lines: list[list[str] | None] = [["", *(figure.title for figure in known)], None]
    for arm, figures in of_set["arms"].items():
        cells = [with_interval(figures["overall"][f.key], f.unit) for f in known]
        lines.append([arm, *cells])
    return align(lines)


def _by_yaw(of_set: Result, key: str) -> str:
    figure = BY_KEY[key]
    bins = next(iter(of_set["arms"].values()))["yaw_bins"]
    if not any(each["truths"] for each in bins):
        return ""
    lines: list[list[str] | None] = [
        [f"{figure.title} by |yaw|", *(f"{b['low']}-{b['high']}°" for b in bins)],
        ["heads", *(str(b["truths"]) for b in bins)],
        None,
    ]
    for arm, figures in of_set["arms"].items():
        cells = [with_interval(each[key], figure.unit) for each in figures["yaw_bins"]]
        lines.append([arm, *cells])
    return align(lines)


def _differences(of_set: Result, result: Result) -> str:
    if not of_set["differences"]:
        return ""
    lines: list[list[str] | None] = [
        [f"minus {result['reference']}", "difference", "t over seeds", "over groups", "heads", ""],
        None,
    ]
    for arm, differences in of_set["differences"].items():
        for key in COMPARED if differences["overall"] else ():
            difference = differences["overall"][key]
            if difference["over_seeds"]["value"] is None:
                continue
            lines.append([f"{arm}: {BY_KEY[key].title}", *_difference_cells(difference, key)])
    return align(lines)


def _difference_cells(difference: Result, key: str) -> list[str]:
    unit, seeds, groups = BY_KEY[key].unit, difference["over_seeds"], difference["over_groups"]
    few = _few(seeds["support"], difference["seeds"])
    return [
        cell(seeds["value"], unit) + (f" ({few})" if few else ""),
        limits(seeds, unit, "seed"),
        limits(groups, unit, "group") if groups else "-",
        "-" if difference["heads"] is None else str(difference["heads"]),
        verdict(difference),
    ]


def verdict(difference: Result) -> str:
    """What the two intervals of a difference say together."""
    intervals = [i for i in (difference["over_seeds"], difference["over_groups"]) if i is not None]
    if any(interval["low"] is None for interval in intervals):
        return f"too few (at least {ENOUGH_SEEDS} seeds, {ENOUGH_GROUPS} groups)"
    signs = {(i["low"] > 0) - (i["high"] < 0) for i in intervals}
    return {frozenset({1}): "higher", frozenset({-1}): "lower"}.get(frozenset(signs), "not clear")


def limits(interval: Result, unit: str, support: str) -> str:
    """[low, high], or of how many seeds or groups there are none."""
    if interval["low"] is None:
        return f"none: {interval['support']} {support}{'s' * (interval['support'] != 1)}"
    return f"[{cell(interval['low'], unit)}, {cell(interval['high'], unit)}]"


def with_interval(figure: Result, unit: str) -> str:
    """The mean with half of its interval, and of how many seeds it is where these are too few."""
    few = _few(figure["support"], len(figure["by_seed"]))
    half = "" if figure["low"] is None else f" +-{cell((figure['high'] - figure['low']) / 2, unit)}"
    return cell(figure["value"], unit) + half + (f" ({few})" if few else "")


def _few(support: int, seeds: int) -> str:
    """How many seeds a mean is of: where others have no number, or fewer than an interval needs."""
    if support < seeds:
        return f"{support} of {seeds}"
    return str(support) if 0 < support < ENOUGH_SEEDS else ""


# --- CSV ------------------------------------------------------------------------------------------


def as_csv(result: Result) -> str:
    """A line for each figure of each arm, test set and bin of |yaw|; ratios from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seeds = [str(seed) for seed in result["seeds"]]
    writer.writerow(
        ["set", "arm", "abs_yaw", "figure", "unit", "mean", "low", "high", "seeds"]
        + [f"seed_{seed}" for seed in seeds]
        + ["difference", "t_low", "t_high", "bootstrap_low", "bootstrap_high", "groups", "heads"]
    )
    for place, key, figure, difference in _figures(result):
        numbers = [figure["value"], figure["low"], figure["high"], figure["support"]]
        by_seed = [figure["by_seed"].get(seed) for seed in seeds]
        unit = "degrees" if BY_KEY[key].unit == "°" else "ratio"
        row = [*place, key, unit, *numbers, *by_seed, *_difference_numbers(difference)]
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def _figures(result: Result) -> Iterator[tuple[tuple[str, str, str], str, Result, Result | None]]:
    for name, of_set in result["sets"].items():
        for arm, figures in of_set["arms"].items():
            apart = of_set["differences"].get(arm, {"overall": {}, "yaw_bins": []})
            for figure in FIGURES:
                overall = figures["overall"][figure.key]
                yield (name, arm, ""), figure.key, overall, apart["overall"].get(figure.key)
            for number, each in enumerate(figures["yaw_bins"]):
                bins = apart["yaw_bins"]
                place = (name, arm, f"{each['low']}-{each['high']}")
                for figure in (f for f in FIGURES if f.by_yaw):
                    other = bins[number][figure.key] if bins else None
                    yield place, figure.key, each[figure.key], other


def _difference_numbers(difference: Result | None) -> list[float | None]:
    if difference is None:
        return [None] * 7
    seeds, groups = difference["over_seeds"], difference["over_groups"] or {}
    return [
        *(seeds[name] for name in ("value", "low", "high")),
        *(groups.get(name) for name in ("low", "high", "support")),
        difference["heads"],
    ]


# --- LaTeX ----------------------------------------------------------------------------------------

_IN_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def as_latex(result: Result) -> str:
    """A table for each test set in the form of the paper's Table 2, and one by |yaw|."""
    tables = []
    for name, of_set in result["sets"].items():
        rows = [
            [
                _latex_text(arm),
                *(_latex_figure(a["overall"][key], BY_KEY[key].unit) for key in TABLE2),
            ]
            for arm, a in of_set["arms"].items()
        ]
        head = ["Model", r"IoU (\%)", "Yaw", "Pitch", "Roll"]
        set_name = _latex_text(name)
        tables.append(
            _latex_table(head, rows, f"{set_name}: means over seeds, 95\\,\\% t intervals.")
        )
        bins = next(iter(of_set["arms"].values()))["yaw_bins"]
        filled = [i for i, each in enumerate(bins) if each["truths"]]
        rows = [
            [
                _latex_text(arm),
                *(_latex_figure(a["yaw_bins"][i]["geodesic_mean"], "°") for i in filled),
            ]
            for arm, a in of_set["arms"].items()
        ]
        head = ["Model", *(f"{bins[i]['low']}--{bins[i]['high']}" for i in filled)]
        tables.append(
            _latex_table(head, rows, f"{set_name}: geodesic error by $|$yaw$|$, degrees.")
        )
    return "\n".join(tables)


def _latex_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    lines = [" & ".join(row) + r" \\" for row in (head, *rows)]
    return "\n".join(
        [
            r"\begin{table}\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_text(text: str) -> str:
    """A name of the user's as LaTeX prints it."""
    return "".join(_IN_LATEX.get(character, character) for character in text)


def _latex_figure(figure: Result, unit: str) -> str:
    factor, digits = (100, 1) if unit == "%" else (1, 2)
    if figure["value"] is None:
        return "--"
    mean = f"{factor * figure['value']:.{digits}f}"
    if figure["low"] is not None:
        mean += rf" $\pm$ {factor * (figure['high'] - figure['low']) / 2:.{digits}f}"
    few = _few(figure["support"], len(figure["by_seed"]))
    return f"{mean} ({few} seeds)" if few else mean
