"""One line for each record set: what a reader looks at first when weights are measured on many."""

from collections.abc import Mapping
from typing import Any

from mtnet_jax.columns import align
from mtnet_jax.evaluation.tables import cell

# (section of a result, key, title, unit or "%")
COLUMNS = (
    ("counts", "images", "images", ""),
    ("counts", "truths", "heads", ""),
    ("detection", "ap50", "AP50", "%"),
    ("detection", "recall", "recall", "%"),
    ("detection", "precision", "precision", "%"),
    ("pose", "evaluated", "poses", ""),
    ("pose", "geodesic_mean", "geodesic", "°"),
    ("pose", "geodesic_median", "median", "°"),
    ("heading", "evaluated", "headings", ""),
    ("heading", "mean", "heading", "°"),
    ("heading", "median", "median", "°"),
    ("heading", "beyond_90", "over 90°", "%"),
)


def format_summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of sets and their most important numbers.

    Args:
      results: name of the set -> result of `metrics.evaluate`.

    Returns:
      Text of several lines, without a newline at the end; a dash where a set has no such label.
    """
    lines: list[list[str] | None] = [["", *(title for _, _, title, _ in COLUMNS)], None]
    for name, result in results.items():
        figures = [cell(result[section][key], unit) for section, key, _, unit in COLUMNS]
        lines.append([name, *figures])
    return align(lines)
