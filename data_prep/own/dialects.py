"""How labelling tools write the same things: encodings, paths, numbers, flags.

Every format of own data reads through here, so what is understood in one is understood in all.
"""

import codecs
import math
from pathlib import Path, PurePosixPath
from typing import Any

from mtnet_jax.errors import BadInput

FLAGS = {
    **dict.fromkeys(("", "0", "0.0", "false", "no", "f", "n"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes", "t", "y"), True),
}
EMPTY = ("", "nan")  # how tables write an empty cell, also among words
NOT_AVAILABLE = ("NA", "N/A")  # how R writes one, in capitals: a name is written otherwise
NOTHING = (*EMPTY, "na", "n/a", "null", "none")  # and among numbers
CONFIDENCES = ("confidence", "conf", "score", "scores", "probability")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """The text of a label file: UTF-8, with a mark at its beginning or without, or marked UTF-16.

    Raises:
      BadInput: another encoding, by name and place.
      OSError: it cannot be read.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(
            f"{path}, line {line}: byte {error.start} is not {error.encoding}: save the file as "
            "UTF-8"
        ) from None
    before, zero, _ = text.partition("\0")
    if zero:
        line = before.count("\n") + 1
        raise BadInput(
            f"{path}, line {line}: holds zero bytes, as UTF-16 without a mark and damaged files "
            "do: save the file as UTF-8"
        )
    return text


def file_name(text: str) -> str:
    """A path as labelled, with slashes: backslashes are those of Windows, ./ says nothing."""
    return str(PurePosixPath(text.strip().replace("\\", "/")))


def name_below(name: str) -> str:
    """What an image_id says of a path as labelled: a place below a folder, wherever it leads."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def number(value: Any, place: str) -> float:
    """A number: 46, 46.0, "46".

    Raises:
      BadInput: it is none; a decimal comma is named as such.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            if value.count(",") == 1 and _is_number(value.replace(",", ".")):
                raise BadInput(
                    f"{place}: {value!r} has a decimal comma: write decimal points"
                ) from None
    raise BadInput(f"{place}: {value!r} is no number")


def whole(value: Any, place: str) -> int:
    """A whole number: 1, 1.0, "1", "1.0".

    Raises:
      BadInput: it is none.
    """
    found = number(value, place)
    if not (math.isfinite(found) and found == int(found)):
        raise BadInput(f"{place}: {value!r} is no whole number")
    return int(found)


def flag(value: Any, place: str) -> bool:
    """Yes or no: 0, 1, 0.0, True, false, yes, or nothing, which is no.

    Raises:
      BadInput: something else.
    """
    text = str("" if value is None else value).strip().lower()
    if text not in FLAGS:
        raise BadInput(f"{place}: {value!r}, expected 0, 1, true, false or nothing")
    return FLAGS[text]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
