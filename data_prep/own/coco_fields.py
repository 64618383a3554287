"""The fields of COCO's json files. What is not as it should be raises BadInput, with its place."""

import json
from pathlib import Path
from typing import Any

from data_prep.own.dialects import number, read_text, whole
from mtnet_jax.errors import NOT_JSON, BadInput, MissingFile


def read_json(path: Path) -> dict:
    """The object of a json file."""
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing: --split NAME=JSON:IMAGES names it") from None
    except NOT_JSON as error:
        raise BadInput(
            f"{path} is not valid JSON (was it cut short? copy or export it again): {error}"
        ) from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected an object with images, annotations and categories")
    return content


def entries(content: dict, key: str, path: Path) -> list[dict]:
    """The entries of one of the lists of a file."""
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise BadInput(
            f"{path}: {key!r} is missing or no list of objects; a COCO file has images, "
            f"annotations and categories, this one {', '.join(content) or 'nothing'}"
        )
    return found


def field(entry: dict, name: str, kind: type, place: str) -> Any:
    """A field of an entry, of the type `kind`; an empty text is none."""
    value = entry.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        fault = "is missing" if name not in entry else f"is {value!r}"
        raise BadInput(f"{place}: field {name!r} {fault}, expected {kind.__name__}")
    return value


def identity(entry: dict, name: str, place: str) -> str:
    """An id, in one way of writing: tools write 1, 1.0 and "1" for the same."""
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str) or isinstance(value, bool) or value == "":
        fault = "is missing" if name not in entry else f"is {value!r}"
        raise BadInput(f"{place}: field {name!r} {fault}, expected int or str")
    return str(value)


def numbers(entry: dict, name: str, count: int, meaning: str, place: str) -> list[float]:
    """The numbers of a list of `count`; `meaning` says what they are."""
    values = entry.get(name)
    if not isinstance(values, list) or len(values) != count:
        raise BadInput(f"{place}: field {name!r} is {values!r}, expected {meaning}")
    here = f"{place}: field {name!r} is {values!r}, expected {meaning}"
    return [number(value, here) for value in values]


def size_of(image: dict, place: str) -> tuple[int, int] | None:
    """Width and height that an entry of `images` states, or None."""
    if image.get("width") is None or image.get("height") is None:
        return None
    return (
        whole(image["width"], f"{place}: field 'width'"),
        whole(image["height"], f"{place}: field 'height'"),
    )
