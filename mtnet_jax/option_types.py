"""Numbers of command line options, for `mtnet` and the converters: what argparse calls types."""

import argparse
import math


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _between(text, 0, 1)


def degrees(text: str) -> float:
    """A number from 0 to 180."""
    return _between(text, 0, 180)


def amount(text: str) -> float:
    """A number from 0, inf among them."""
    return _between(text, 0, math.inf)


def _between(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text} is not a number from {low:g} to {high:g}")
    return number
