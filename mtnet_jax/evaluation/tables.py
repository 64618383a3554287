"""Parts of tables: names and numbers as text."""

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
