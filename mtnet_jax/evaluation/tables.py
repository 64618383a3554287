"""Parts of tables: numbers as text, columns of equal width."""

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]  # name -> result of `metrics.evaluate`


def bin_name(each: Mapping[str, Any]) -> str:
    """low-high of a bin; low- of one without an end."""
    return f"{each['low']}-{each['high']}" if each["high"] is not None else f"{each['low']}-"


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
