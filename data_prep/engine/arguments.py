"""Command line options, and their types, that several converters share."""

import argparse
from pathlib import Path

from data_prep.engine.description import check_split
from mtnet_jax.errors import BadInput
from mtnet_jax.option_types import add_camera as add_camera
from mtnet_jax.option_types import amount as amount
from mtnet_jax.option_types import degrees as degrees
from mtnet_jax.option_types import natural as natural
from mtnet_jax.option_types import positive as positive
from mtnet_jax.option_types import share as share
from mtnet_jax.places import Place, place_argument


def numbers(text: str) -> tuple[int, ...]:
    """Reads "11,12" -> (11, 12); one that is named twice counts once."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text} is not a row of whole numbers: 11,12")
    return tuple(dict.fromkeys(map(int, words)))


def names(text: str) -> tuple[str, ...]:
    """Reads "train,valid" -> ("train", "valid")."""
    return tuple(name for name in text.split(",") if name)


def split(text: str) -> str:
    """The name of a split."""
    try:
        check_split(text, "a split")
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def folder(text: str) -> Path:
    """The folder of an output, with a name, beside which it is written until it is whole."""
    path = Path(text)
    return path.resolve() if path.name in ("", "..") else path


def output(text: str) -> Place:
    """`folder`, or an address."""
    found = place_argument(text)
    return folder(text) if isinstance(found, Path) else found


def label_map(text: str) -> dict[str, str]:
    """Reads "head=head,helmet=head" -> {"head": "head", "helmet": "head"}."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(old and equals and new for old, equals, new in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW,OLD=NEW")
    return {old: new for old, _, new in pairs}
