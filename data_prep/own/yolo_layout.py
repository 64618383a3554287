"""How a YOLO data set is laid out: where its splits lie, and what says the names of its classes."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from data_prep.own.dialects import read_text
from data_prep.own.yolo_labels import Keypoints
from mtnet_jax.data.listing import is_of_another_system, list_images
from mtnet_jax.errors import BadInput, MissingFile

# Names of classes: what trains has the first, labelling tools write the others.
_NAMES = ("data.yaml", "classes.txt", "labels/classes.txt")
# How a folder of a split begins: train, val2017, test_day.
_SPLIT = re.compile(
    "(train|training|val|valid|validation|dev|eval|evaluation|test|testing)(?![a-z])", re.IGNORECASE
)


class Folders(NamedTuple):
    """Where a split lies."""

    images: Path
    labels: Path


def find_splits(raw: Path, chosen: tuple[str, ...] = ()) -> dict[str, Folders]:
    """The splits of a data set, in either layout, train first.

    All of `images` is train where no folder in it is called as splits are: such folders are persons
    or cameras, and images may lie beside them.

    Args:
      raw: folder of the data set.
      chosen: folders that the user names as splits, which they then are whatever they are called.

    Raises:
      MissingFile: there is none.
      BadInput: one split lies in both layouts.
    """
    inside = {
        path.parent.name: Folders(path, path.parent / "labels")
        for path in raw.glob("*/images")
        if path.is_dir() and not is_of_another_system(path.parent)
    }
    below = {
        path.name: Folders(path, raw / "labels" / path.name)
        for path in (raw / "images").glob("*")
        if path.is_dir() and not is_of_another_system(path)
    }
    twice = sorted(inside.keys() & below.keys())
    if twice:
        raise BadInput(
            f"{raw} has {twice[0]}/images and images/{twice[0]}: move one of them out of --raw, "
            "and its labels"
        )
    divided = inside or any(_SPLIT.match(name) or name in chosen for name in below)
    if not divided and (below or list_images(raw / "images").images):
        return {"train": Folders(raw / "images", raw / "labels")}
    if not divided:
        raise MissingFile(
            f"No SPLIT/images and no images/SPLIT folder in {raw}: --raw must hold train/images "
            "and train/labels, or images/train and labels/train, and so on, or images and labels"
        )
    return dict(sorted((inside | below).items(), key=lambda entry: (entry[0] != "train", entry)))


def find_whole(raw: Path, chosen: tuple[str, ...]) -> tuple[str, Folders]:
    """What is to be shared out between `train` and `test`: the one split that there is, or chosen.

    Raises:
      MissingFile, BadInput: see `find_splits`; or there are several splits.
    """
    folders = find_splits(raw, chosen)
    names = chosen or tuple(folders)
    if len(names) == 1 and names[0] in folders:
        return names[0], folders[names[0]]
    raise BadInput(
        f"{raw} has the splits {', '.join(folders)}: leave --test-share out, or name one of them "
        "with --splits"
    )


def names_file(raw: Path) -> Path:
    """The file that says the names of the classes: data.yaml, else classes.txt."""
    return next((raw / name for name in _NAMES if (raw / name).is_file()), raw / _NAMES[0])


def read_names(path: Path) -> list[str]:
    """Label names of a data.yaml or a classes.txt, in order of their class number."""
    if _is_list(path):
        listed = [line.strip() for line in read_text(path).strip().splitlines()]
        if not listed or not all(listed):
            raise BadInput(f"{path} has no usable names: expected one a line, class 0 first")
        return listed
    content = _read_yaml(path)
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    scalars = isinstance(names, list) and not any(isinstance(n, list | dict) for n in names)
    if not scalars or not names:
        raise BadInput(
            f"{path} has no usable 'names': expected names: ['head', 'helmet'] "
            "or {0: head, 1: helmet}"
        )
    return [str(label) for label in names]


def read_keypoints(path: Path) -> Keypoints | None:
    """What a data.yaml says of keypoints, None where it says nothing.

    Raises:
      BadInput: a kpt_shape that is none.
    """
    shape = _read_yaml(path).get("kpt_shape")
    if shape is None:
        return None
    whole_numbers = isinstance(shape, list) and all(type(number) is int for number in shape)
    if (
        not whole_numbers
        or len(shape) != 2
        or shape[0] < 0
        or (shape[0] and shape[1] not in (2, 3))
    ):
        raise BadInput(
            f"{path}: kpt_shape is {shape!r}, expected how many keypoints a box has and how many "
            "numbers each has: [17, 3], [17, 2], or [0, 0] where boxes have none"
        )
    return Keypoints(*shape)


def _is_list(path: Path) -> bool:
    """Whether a file is a classes.txt: names alone."""
    return path.suffix == ".txt"


def _read_yaml(path: Path) -> dict:
    if _is_list(path):
        return {}
    try:
        content = yaml.safe_load(read_text(path))
    except FileNotFoundError:
        raise MissingFile(
            f"{path} is missing: write one with a line such as names: ['head'], or {_NAMES[1]} "
            "with a name a line"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def read_licence(path: Path) -> str:
    """What a Roboflow export says of the licence, or nothing."""
    roboflow = _read_yaml(path).get("roboflow")
    return str(roboflow.get("license", "")) if isinstance(roboflow, dict) else ""
