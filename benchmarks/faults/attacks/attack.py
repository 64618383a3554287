"""What an attack is, and what attacks of several kinds are made of."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

EXECUTED = "executed"  # the file that hostile code would write


class Attack(NamedTuple):
    """A hostile file and its reader."""

    name: str
    write: Callable[[Path], Any]  # into a folder
    read: Callable[[Path], Any]  # from that folder


class Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, marker: Path):
        self._marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self._marker}",)


def deep_list(depth: int = 200_000) -> str:
    """JSON, or YAML, of lists in lists."""
    return "[" * depth + "]" * depth
