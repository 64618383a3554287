"""A comparison as text, CSV and LaTeX. What goes in is the result of `report.gather`."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtnet_jax.ablation.comparing import BY_KEY, COMMON, FIGURES, Figure
from mtnet_jax.columns import align
from mtnet_jax.evaluation.intervals import ENOUGH_GROUPS, ENOUGH_SEEDS, LEVEL
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
        blocks += [title + "\n" + "=" * len(title), _overall(of_set), _common(of_set)]
        blocks.append(_differences(of_set, result))
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
        "errors of an arm are of the heads that it found, and of other arms are of others: compare "
        "those of the heads that all found; differences are of the heads that all runs of both "
        "arms found",
        "higher, lower: both intervals of a difference leave out 0, and its p, by Holm's "
        f"correction for all arms of a figure, is below {1 - LEVEL:.2f}; for several figures and "
        "test sets nothing is corrected",
    ]
    if result["missing"]:
        others = result["others"]
        named = (
            f"{name} (trained with other options: {others[name]})" if name in others else name
            for name in result["missing"]
        )
        lines.append(f"not done: {', '.join(named)}")
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
    return _figures_of_arms("of the heads it found", of_set["arms"], FIGURES)


def _common(of_set: Result) -> str:
    """Errors that can be compared; empty where no head has one in all runs."""
    common = of_set["common"]
    if not common["heads"]:
        return ""
    title = f"of {common['heads']} heads all found"
    return _figures_of_arms(title, common["arms"], COMMON)


def _figures_of_arms(title: str, arms: Result, figures: Sequence[Figure]) -> str:
    """A line for each arm, of the figures that some arm has."""
    overall = [arm["overall"] for arm in arms.values()]
    known = [f for f in figures if any(each[f.key]["support"] for each in overall)]
    lines: list[list[str] | None] = [[title, *(figure.title for figure in known)], None]
    for arm, each in arms.items():
        lines.append([arm, *(with_interval(each["overall"][f.key], f.unit) for f in known)])
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
        [
            *(f"minus {result['reference']}", "difference", "t over seeds", "over groups"),
            *("heads", "p", ""),
        ],
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
        "-" if difference["p"] is None else f"{difference['p']:.3f}",
        verdict(difference),
    ]


def verdict(difference: Result) -> str:
    """What the two intervals of a difference say together, beside those of the other arms."""
    intervals = [i for i in (difference["over_seeds"], difference["over_groups"]) if i is not None]
    if any(interval["low"] is None for interval in intervals):
        return f"too few (at least {ENOUGH_SEEDS} seeds, {ENOUGH_GROUPS} groups)"
    signs = {(i["low"] > 0) - (i["high"] < 0) for i in intervals}
    said = {frozenset({1}): "higher", frozenset({-1}): "lower"}.get(frozenset(signs), "not clear")
    if said != "not clear" and difference["p"] >= 1 - LEVEL:
        return f"not clear ({said}, but one of several arms)"
    return said


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
        + ["p_holm", "common_mean", "common_low", "common_high"]
    )
    for place, key, figure, difference, common in _figures(result):
        numbers = [figure["value"], figure["low"], figure["high"], figure["support"]]
        by_seed = [figure["by_seed"].get(seed) for seed in seeds]
        unit = "degrees" if BY_KEY[key].unit == "°" else "ratio"
        row = [*place, key, unit, *numbers, *by_seed, *_difference_numbers(difference)]
        row += [(common or {}).get(name) for name in ("value", "low", "high")]
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def _figures(
    result: Result,
) -> Iterator[tuple[tuple[str, str, str], str, Result, Result | None, Result | None]]:
    """Place (set, arm, bin), figure, its numbers, its difference, and those of common heads."""
    compared = {figure.key for figure in COMMON}
    for name, of_set in result["sets"].items():
        for arm, figures in of_set["arms"].items():
            apart = of_set["differences"].get(arm, {"overall": {}, "yaw_bins": []})
            common = of_set["common"]["arms"][arm]
            for key, overall in figures["overall"].items():
                other = apart["overall"].get(key)
                yield (name, arm, ""), key, overall, other, common["overall"].get(key)
            for number, each in enumerate(figures["yaw_bins"]):
                bins = apart["yaw_bins"]
                place = (name, arm, f"{each['low']}-{each['high']}")
                for figure in (f for f in FIGURES if f.by_yaw):
                    key, here = figure.key, common["yaw_bins"][number]
                    other = bins[number][key] if bins else None
                    shared = here[key] if key in compared else None
                    yield place, key, each[key], other, shared


def _difference_numbers(difference: Result | None) -> list[float | None]:
    if difference is None:
        return [None] * 8
    seeds, groups = difference["over_seeds"], difference["over_groups"] or {}
    return [
        *(seeds[name] for name in ("value", "low", "high")),
        *(groups.get(name) for name in ("low", "high", "support")),
        difference["heads"],
        difference["p"],
    ]


# --- LaTeX ----------------------------------------------------------------------------------------

_IN_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def as_latex(result: Result) -> str:
    """A table for each test set in the form of the paper's Table 2, and one by |yaw|.

    Both are of the heads that all runs of all arms found, so that rows can be compared; where there
    are none, of those that each arm found, which the captions say.
    """
    tables = []
    for name, of_set in result["sets"].items():
        common = of_set["common"]
        arms, of_heads = of_set["arms"], "the heads that each arm found: none was found by all runs"
        if common["heads"]:
            arms = common["arms"]
            of_heads = f"the {common['heads']} heads that all {common['runs']} runs found"
        rows = [
            [
                _latex_text(arm),
                *(_latex_figure(a["overall"][key], BY_KEY[key].unit) for key in TABLE2),
            ]
            for arm, a in arms.items()
        ]
        head = ["Model", r"IoU (\%)", "Yaw", "Pitch", "Roll"]
        set_name = _latex_text(name)
        tables.append(
            _latex_table(
                head, rows, f"{set_name}: means over seeds, 95\\,\\% t intervals, of {of_heads}."
            )
        )
        bins = next(iter(arms.values()))["yaw_bins"]
        filled = [i for i, each in enumerate(bins) if each["truths"]]
        rows = [
            [
                _latex_text(arm),
                *(_latex_figure(a["yaw_bins"][i]["geodesic_mean"], "°") for i in filled),
            ]
            for arm, a in arms.items()
        ]
        rows.insert(0, ["heads", *(str(bins[i]["truths"]) for i in filled)])
        head = ["Model", *(f"{bins[i]['low']}--{bins[i]['high']}" for i in filled)]
        caption = f"{set_name}: geodesic error by $|$yaw$|$, degrees, of {of_heads}."
        tables.append(_latex_table(head, rows, caption))
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
