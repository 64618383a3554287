"""The report of a conversion as one HTML page: no other files, no scripts.

The bars are written as SVG by hand: a page is made in milliseconds, and byte for byte the same
every time.
"""

import json
import math
from html import escape
from pathlib import Path

import numpy as np

from data_prep.engine.report import EDGES, HEADED, UNITS, Events, Report

_WIDTH, _HEIGHT = 440, 190  # of a plot, without its margins
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 40
_GRID_LINES = 4
_EXTREMES = dict.fromkeys(("yaw", "heading"), "; 0 looks into the camera, \u00b1180 away from it")
_EXPLAINED = {
    "dropped images": "left out",
    "dropped heads": "left out, their images stay",
    "ignored heads": "written, but neither to be found nor background",
    "notes": "worth knowing",
}
_COLOURS = 6  # --c0 to --c5 below: a palette that stays apart for the colour-blind

_STYLE = """
:root { --ground: #fff; --text: #1d2430; --soft: #5b6675; --line: #dfe4ea; --panel: #f6f8fa;
  --c0: #2f6db3; --c1: #e08a1e; --c2: #3a9a78; --c3: #b5508f; --c4: #7a6cc0; --c5: #8a8d91; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181e; --text: #e6e9ee; --soft: #9aa5b3;
  --line: #2c343f; --panel: #1b212a; --c0: #6aa5e6; --c1: #f0a848; --c2: #5fc09c; --c3: #d97fb8;
  --c4: #a69be6; --c5: #a5a9ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 1120px; background: var(--ground);
  color: var(--text); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em; }
h1 small { font-weight: 400; font-size: 1rem; color: var(--soft); }
h2 { margin: 2.6rem 0 .8rem; font-size: 1.2rem; }
h2 small { font-weight: 400; font-size: .9rem; color: var(--soft); }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.numbers { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1.4rem; }
.numbers div { flex: 1 1 140px; padding: .7rem 1rem; background: var(--panel);
  border: 1px solid var(--line); border-radius: 8px; color: var(--soft); font-size: .85rem; }
.numbers b { display: block; color: var(--text); font-size: 1.5rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1.2rem; }
figure { margin: 0; padding: .9rem 1rem .4rem; border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-weight: 600; } figcaption small { font-weight: 400; color: var(--soft); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg .base { stroke: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 1.2rem; margin: 0 0 .8rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .45em;
  border-radius: 2px; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .4rem .8rem .4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: .85rem; white-space: nowrap; }
.count { text-align: right; padding-right: 1.2rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0;
  font: .85em/1.5 ui-monospace, Menlo, Consolas, monospace; }
"""


def write_report(report: Report, directory: Path) -> None:
    """Writes conversion.txt, conversion.json and the page conversion.html into a directory."""
    (directory / "conversion.txt").write_text(report.text(), encoding="utf-8")
    text = json.dumps(report.as_dict(), indent=1) + "\n"
    (directory / "conversion.json").write_text(text, encoding="utf-8")
    (directory / "conversion.html").write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The whole page as HTML."""
    about = report.description
    name = escape(about.name)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name} {escape(about.version)}: conversion</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{name} <small>{escape(about.version)}</small></h1>",
        f"<p>{escape(about.text)}</p>",
        f'<p class="soft">Boxes follow the rule <b>{escape(about.box_rule)}</b>. '
        f"Labels: {escape(', '.join(about.label_names))}.</p>",
        _numbers(report),
        "<h2>Splits</h2>",
        _split_table(report),
        "<h2>Heads <small>angles of those with a pose, boxes of all</small></h2>",
        _legend(list(report.splits)),
        '<div class="plots">',
        *(_plot(name, splits) for name, splits in report.histograms().items()),
        "</div>",
        *(_event_table(title, events) for title, events in report.events().items()),
        _source(report),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _numbers(report: Report) -> str:
    def total(key: str) -> int:
        return sum(count[key] for count in report.splits.values())

    shown = {
        "images": total("images"),
        "heads": total("heads"),
        "heads with a pose": total("heads with a pose"),
        "images dropped": report.dropped_images.total,
        "heads dropped": report.dropped_heads.total,
        "heads to be ignored": total("heads to be ignored"),
    }
    cells = (f"<div><b>{number:,}</b>{name}</div>" for name, number in shown.items())
    return f'<div class="numbers">{"".join(cells)}</div>'


def _split_table(report: Report) -> str:
    headed = any(count[HEADED] for count in report.splits.values())
    keys = (
        "images",
        "images without heads",
        "heads",
        "heads with a pose",
        *([HEADED] if headed else []),
        "heads to be ignored",
    )
    labels = report.description.label_names
    head = [*keys, *(f"label {label}" for label in labels)]
    rows = [
        (escape(split), *(count[key] for key in keys), *(report.labels[split][n] for n in labels))
        for split, count in report.splits.items()
    ]
    return _table(["split", *head], rows)


def _event_table(title: str, events: Events) -> str:
    heading = f"<h2>{title.capitalize()} <small>{_EXPLAINED[title]}</small></h2>"
    if not events:
        return f'{heading}\n<p class="soft">None.</p>'
    rows = []
    for reason, places in events.items():
        count = events.counts[reason]
        shown = "<br>".join(f"<code>{escape(place)}</code>" for place in dict.fromkeys(places))
        more = '<br><span class="soft">...</span>' if count > len(places) else ""
        rows.append((escape(reason), count, shown + more))
    return f"{heading}\n{_table(['reason', 'count', 'first places'], rows)}"


def _table(head: list[str], rows: list[tuple]) -> str:
    def cell(tag: str, value: object, number: bool) -> str:
        text = f"{value:,}" if isinstance(value, int) else value
        return f'<{tag} class="count">{text}</{tag}>' if number else f"<{tag}>{text}</{tag}>"

    numeric = [isinstance(value, int) for value in rows[0]] if rows else [False] * len(head)
    lines = [[cell("th", escape(t), n) for t, n in zip(head, numeric, strict=True)]]
    lines += [[cell("td", v, n) for v, n in zip(row, numeric, strict=True)] for row in rows]
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def _legend(splits: list[str]) -> str:
    if len(splits) < 2:
        return ""
    items = (
        f'<span><i style="background:var(--c{i % _COLOURS})"></i>{escape(split)}</span>'
        for i, split in enumerate(splits)
    )
    return f'<div class="legend">{"".join(items)}</div>'


def _plot(name: str, splits: dict[str, np.ndarray]) -> str:
    """Bars of a histogram, those of the splits on top of each other."""
    edges = EDGES[name]
    unit = UNITS[name] + _EXTREMES.get(name, "")
    caption = f"<figcaption>{name.capitalize()} <small>{unit}</small></figcaption>"
    total = np.sum(list(splits.values()), axis=0, initial=0)
    if not np.any(total):
        return f'<figure>{caption}<p class="soft">None.</p></figure>'
    step = _grid_step(int(total.max()))
    top = step * math.ceil(total.max() / step)
    bin_width = _WIDTH / len(total)

    def y(count: float) -> float:
        return _TOP + _HEIGHT * (1 - count / top)

    shapes = []
    for value in range(0, top + 1, step):
        kind = "grid" if value else "base"
        shapes.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" '
            f'y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text x="{_LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,}</text>'
        )
    below = np.zeros(len(total), int)
    for i, (split, counts) in enumerate(splits.items()):
        for j in np.flatnonzero(counts).tolist():
            low, high = y(below[j]), y(below[j] + counts[j])
            shapes.append(
                f'<rect x="{_LEFT + j * bin_width + 0.75:.1f}" y="{high:.1f}" '
                f'width="{bin_width - 1.5:.1f}" height="{max(low - high, 0.5):.1f}" '
                f'fill="var(--c{i % _COLOURS})"><title>{escape(split)}, '
                f"{_bin_name(edges, j)}: {counts[j]:,}</title></rect>"
            )
        below += counts
    base = _TOP + _HEIGHT
    for position, text in _ticks(name):
        x = _LEFT + position * bin_width
        shapes.append(
            f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{text}</text>'
        )
    size = f"{_LEFT + _WIDTH + _RIGHT} {_TOP + _HEIGHT + _BOTTOM}"
    label = f"Histogram of {name}"
    svg = f'<svg viewBox="0 0 {size}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
    return f"<figure>{caption}{svg}</figure>"


def _ticks(name: str) -> list[tuple[float, str]]:
    """Places on the horizontal axis in bins from the left, and what stands there."""
    edges = EDGES[name]
    if name == "box size":
        return [(i, f"{edge:.0f}") for i, edge in enumerate(edges) if np.isfinite(edge)]
    angles = range(-180, 181, 45)
    return [((angle - edges[0]) / (edges[1] - edges[0]), f"{angle}°") for angle in angles]


def _bin_name(edges: np.ndarray, i: int) -> str:
    if np.isinf(edges[i + 1]):
        return f"from {edges[i]:g}"
    return f"{edges[i]:g} to {edges[i + 1]:g}"


def _grid_step(highest: int) -> int:
    """The step of 1, 2 or 5 times a power of ten that gives few grid lines."""
    power = 10 ** max(0, math.floor(math.log10(highest / _GRID_LINES)))
    return next(m * power for m in (1, 2, 5, 10) if m * power * _GRID_LINES >= highest)


def _source(report: Report) -> str:
    about = report.description
    lines = ["<h2>Source</h2>"]
    if about.homepage:
        link = escape(about.homepage, quote=True)
        lines.append(f'<p><a href="{link}">{link}</a></p>')
    if about.licence:
        lines.append(f"<p>{escape(about.licence)}</p>")
    if about.citation:
        lines.append(f"<pre>{escape(about.citation)}</pre>")
    return "\n".join(lines) if len(lines) > 1 else ""
