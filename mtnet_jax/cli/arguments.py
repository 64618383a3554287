"""Types of command line options that several commands share."""

import argparse
import re
from pathlib import Path

from mtnet_jax.option_types import add_camera as add_camera
from mtnet_jax.option_types import natural as natural
from mtnet_jax.option_types import positive as positive
from mtnet_jax.option_types import share as share
from mtnet_jax.places import is_address
from mtnet_jax.run_metrics import BEST, LAST


def path_here(text: str) -> Path:
    """A file or folder of this machine; an address would be taken for a folder called "gs:"."""
    if is_address(text) and not text.startswith("file://"):
        raise argparse.ArgumentTypeError(
            f"{text} is an address: give a path of this machine (a disk, or a network file system "
            "that is mounted), and copy from or to the address"
        )
    return Path(text.removeprefix("file://"))


def port(text: str) -> int:
    """A port of TCP."""
    number = int(text)
    if not 1 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not a port, from 1 to 65535")
    return number


def tile(text: str) -> int | str | None:
    """Pixels of the side of a tile, "auto" or "none"."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    from mtnet_jax.predict.tiles import LEAST

    if not text.isdecimal() or int(text) < LEAST:
        raise argparse.ArgumentTypeError(
            f"{text} is neither a side in pixels, auto, nor none; a side is at least {LEAST}"
        )
    return int(text)


def file_or_standard_output(text: str) -> Path:
    """A file; "-" for standard output, by whatever name it has one."""
    # Written as a file, the name itself would be replaced, for the whole machine.
    standard = text in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
    return Path("-") if standard else path_here(text)


def step(text: str) -> int | str:
    """A checkpoint: the number of its step, "last" or "best"."""
    if text in (LAST, BEST):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not the number of a step, {LAST} or {BEST}")
    return int(text)


def add_step(parser: argparse.ArgumentParser) -> None:
    """Adds --step."""
    parser.add_argument(
        "--step",
        type=step,
        default=LAST,
        metavar="N|best|last",
        help="which checkpoint of a work directory (default: the last; the best is that of "
        "config.best_metric)",
    )


def add_one_look(parser: argparse.ArgumentParser) -> None:
    """Adds --one-look; `second_look` is None without it: as the weights were trained for."""
    parser.add_argument(
        "--one-look",
        dest="second_look",
        action="store_const",
        const=False,
        help="no second looks at large and small heads: about half the time, worse boxes and poses "
        "of these",
    )


def pattern(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text} is no regular expression: {error}") from error
    return text
