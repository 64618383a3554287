"""Pointing'04 head pose database: PersonNN/personNNSVV+TILT+PAN.jpg with a txt of the face box.

Poses. The subject turned to a mark at `pan` and, for that pan, to one at `tilt`: the head is panned
about the vertical axis and tilted about its own, already panned, ear-to-ear axis,

    R = Ry(pan) Rx(-tilt f), f = 0.55.

The subject looked at the marks, half of the way with the eyes: two face models, which agree within
5 to 7 degrees, both find the head tilted by 0.55 of the label. `--tilt-share 1` takes the labels as
published.

Where pan or tilt is 0 this is also canonical yaw and pitch. In between it is not: the canonical
order Rx(-tilt f) Ry(pan) would, at the profile, roll the head towards the camera instead of nodding
it, which the images do not show. +pan turns the face to the left of the image and +tilt looks
up, the signs of canonical yaw and pitch. The labels are true within some ten degrees.

Boxes. The txt holds centre and size of the inner face (brow to chin, about half of the head).
`head_boxes` derives from it a box of the whole head; `face_boxes` keeps it.
"""

import argparse
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import ONLY_HEAD_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.own.dialects import read_text
from mtnet_jax.boxes import cxcywh_to_xyxy
from mtnet_jax.data.listing import jpegs_in
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.rotations import axis_rotation

CITATION = """@inproceedings{gourier2004estimating,
  author    = {Gourier, Nicolas and Hall, Daniela and Crowley, James L.},
  title     = {Estimating Face Orientation from Robust Detection of Salient Facial Features},
  booktitle = {Proceedings of Pointing 2004, ICPR International Workshop on Visual Observation of
               Deictic Gestures},
  address   = {Cambridge, UK},
  year      = {2004}
}"""
LICENCE = (
    "Head Pose Image Database, Copyright 2004 INRIA Rhone-Alpes. "
    "This database can be used for any purpose, provided that the article is cited."
)
HOMEPAGE = "http://www-prima.inrialpes.fr/perso/Gourier/Faces/HPDatabase.html"
BOX_RULES = ("head", "face")
DEFAULT_TEST_PERSONS = (11, 12)
TILT_SHARE = 0.55  # of the tilt that is labelled, what the head does

# Box of the whole head from the centre of the face box; lengths in units of the face size of the
# series (see `face_sizes`). Fitted by robust least squares to the outline of the head against the
# plain background (2,232 images), the lower edge to the chins of boxes drawn by hand. Hair makes
# some persons up to 27 percent wider, others up to 17 percent narrower than the fit.
HALF_WIDTH_FRONT = 0.80  # ear to ear, with hair
HALF_WIDTH_PROFILE = 0.96  # nose to back of the head
NEARER = 0.13  # a head that looks down comes nearer to the camera, so it is wider
BACKWARD = 0.60  # at the profile the middle of the head lies this far behind the face
TOP, TOP_TILT = 1.22, 0.50  # looking up hides the top of the head, looking down shows it
BOTTOM, BOTTOM_TILT = 0.66, 0.12
# Beyond this tilt the face box is foreshortened and says little about the size of the face.
_UPRIGHT_TILT = 30

_NAME = re.compile(r"person(\d{2})(\d)(\d{2})([+-]\d+)([+-]\d+)\.jpg", re.IGNORECASE)


@dataclass(frozen=True)
class Shot:
    """One image: where it lies, what its name says, and the face box in its txt."""

    path: Path
    person: int
    series: int
    number: int
    tilt: float  # degrees, + looks up
    pan: float  # degrees, + to the left of the image
    face: tuple[float, float, float, float]  # centre x, centre y, width, height in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert pointing04`."""
    parser.add_argument(
        "--box-rule",
        choices=BOX_RULES,
        default="head",
        help="whole head, derived from face box and pose (default), or the published inner face",
    )
    parser.add_argument(
        "--test-persons",
        type=arguments.numbers,
        default=DEFAULT_TEST_PERSONS,
        metavar="N,N",
        help="persons of the split 'test', the others are 'train' (default: 11,12)",
    )
    parser.add_argument(
        "--persons",
        type=arguments.numbers,
        default=(),
        metavar="N,N",
        help="only these (default: all)",
    )
    parser.add_argument(
        "--tilt-share",
        type=float,
        default=TILT_SHARE,
        metavar="F",
        help="how much of the labelled tilt the head turned, the eyes did the rest (default: "
        "%(default)s; published results take 1)",
    )
    parser.add_argument(
        "--every",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="only every N-th image of a series (default: 1)",
    )


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        box_rule=args.box_rule,
        test_persons=args.test_persons,
        persons=args.persons,
        every=args.every,
        tilt_share=args.tilt_share,
    )


def conversion(
    raw: Path,
    *,
    box_rule: str = "head",
    test_persons: tuple[int, ...] = DEFAULT_TEST_PERSONS,
    persons: tuple[int, ...] = (),
    every: int = 1,
    tilt_share: float = TILT_SHARE,
) -> Conversion:
    """Pointing'04 as a data set to be written, split by person.

    Args:
      raw: folder that holds Person01, Person02, ...
      box_rule: "head" (whole head, derived) or "face" (inner face, as published).
      test_persons: persons of the split "test"; all others are "train".
      persons: take these only; empty takes all.
      every: take every N-th image of each series (counted from its first).
      tilt_share: see `rotation`.

    Returns:
      The conversion; a split without persons is left out.

    Raises:
      FileNotFoundError: no Person folder, or an image without its txt.
      ValueError: a name or a txt that cannot be understood, an unknown box rule, or a person of
        whom there is no image, or a share of the tilt that is not from 0 to 1.
    """
    if not 0 <= tilt_share <= 1:
        raise BadInput(f"--tilt-share {tilt_share:g}: choose a number from 0 to 1")
    if box_rule not in BOX_RULES:
        raise BadInput(f"Box rule {box_rule!r}: choose one of {', '.join(BOX_RULES)}")
    shots = read_shots(raw)
    sizes = face_sizes(shots)
    present = {shot.person for shot in shots}
    named = () if test_persons == DEFAULT_TEST_PERSONS else test_persons
    for person in (*persons, *named):
        if person not in present:
            raise BadInput(f"No images of person {person} in {raw}: there are {sorted(present)}")
    chosen = [
        shot
        for shot in shots
        if (not persons or shot.person in persons) and shot.number % every == 0
    ]
    splits = {
        "train": [shot for shot in chosen if shot.person not in test_persons],
        "test": [shot for shot in chosen if shot.person in test_persons],
    }
    read = functools.partial(_records, box_rule=box_rule, sizes=sizes, tilt_share=tilt_share)
    description = Description(
        name="pointing04",
        version="1.1.0",
        text="Pointing'04 head pose database: 93 poses of each person, twice.",
        box_rule=box_rule,
        label_names=("head",),
        homepage=HOMEPAGE,
        citation=CITATION,
        licence=LICENCE,
    )
    return Conversion(description, {name: items for name, items in splits.items() if items}, read)


def read_shots(raw: Path) -> list[Shot]:
    """All images of the Person folders, in order (the copies in Front are left out).

    Raises:
      FileNotFoundError, ValueError: see `conversion`.
    """
    folders = sorted(raw.glob("Person[0-9][0-9]"))
    paths = [path for folder in folders for path in jpegs_in(folder)]
    if not paths:
        raise MissingFile(
            f"No PersonNN/*.jpg in {raw}: --raw must hold the folders Person01, Person02, ..."
        )
    return [_shot(path) for path in paths]


def rotation(pan: float, tilt: float, tilt_share: float = TILT_SHARE) -> np.ndarray:
    """(3, 3) head-to-camera rotation of a Pointing'04 pose: Ry(pan) Rx(-tilt tilt_share).

    Args:
      pan, tilt: as labelled, degrees.
      tilt_share: how much of the tilt the head turned; the eyes did the rest.
    """
    return axis_rotation("y", pan) @ axis_rotation("x", -tilt * tilt_share)


def face_sizes(shots: list[Shot]) -> dict[tuple[int, int], float]:
    """Face size of each (person, series): the median box height, in pixels, of its upright poses.

    The boxes are drawn by hand: heights spread by 4.7 percent (standard deviation) round this
    median. The distance to the camera changes between the series, hardly within one.
    """
    heights = defaultdict(list)
    for shot in shots:
        if abs(shot.tilt) <= _UPRIGHT_TILT:
            heights[shot.person, shot.series].append(shot.face[3])
    for shot in shots:  # a series of steep poses only
        if (shot.person, shot.series) not in heights:
            heights[shot.person, shot.series].append(max(shot.face[2:]))
    return {key: float(np.median(values)) for key, values in heights.items()}


def face_box(shot: Shot) -> np.ndarray:
    """(4,) xyxy: the published box of the inner face."""
    return cxcywh_to_xyxy(np.array(shot.face))


def head_box(shot: Shot, face_size: float) -> np.ndarray:
    """Box of the whole head (hair to chin, both ears) from face box and pose.

    With the face centre (x, y), s = face_size, p = pan, t = tilt:

        centre     x + s BACKWARD sin p
        half width s (1 - NEARER sin t) sqrt((F cos p)^2 + (P sin p)^2), F = HALF_WIDTH_FRONT and
                   P = HALF_WIDTH_PROFILE
        top        y - s (TOP - TOP_TILT sin t)
        bottom     y + s (BOTTOM + BOTTOM_TILT sin t)

    Args:
      shot: the image.
      face_size: s, pixels; see `face_sizes`.

    Returns:
      (4,) xyxy in pixels, not clipped.
    """
    x, y = shot.face[:2]
    sin_pan, cos_pan = np.sin(np.deg2rad(shot.pan)), np.cos(np.deg2rad(shot.pan))
    sin_tilt = np.sin(np.deg2rad(shot.tilt))
    middle = x + face_size * BACKWARD * sin_pan
    half = np.hypot(HALF_WIDTH_FRONT * cos_pan, HALF_WIDTH_PROFILE * sin_pan)
    half *= face_size * (1 - NEARER * sin_tilt)
    top = y - face_size * (TOP - TOP_TILT * sin_tilt)
    bottom = y + face_size * (BOTTOM + BOTTOM_TILT * sin_tilt)
    return np.array([middle - half, top, middle + half, bottom])


def _records(
    shot: Shot,
    report: Report,
    *,
    box_rule: str,
    sizes: dict[tuple[int, int], float],
    tilt_share: float,
) -> Iterator[dict]:
    image = read_image(shot.path, report)
    if image is None:
        return
    encoded, size = image
    heads = HeadsOfImage(shot.path.stem, size, report)
    box = face_box(shot) if box_rule == "face" else head_box(shot, sizes[shot.person, shot.series])
    if not heads.add(box, rotation(shot.pan, shot.tilt, tilt_share)):
        report.drop_image(ONLY_HEAD_DROPPED, shot.path.stem)
        return
    yield heads.record(encoded, "pointing04")


def _shot(path: Path) -> Shot:
    match = _NAME.fullmatch(path.name)
    if not match:
        raise BadInput(
            f"{path}: the name is not personNNSVV+TILT+PAN.jpg (person, series, number, degrees)"
        )
    person, series, number = (int(text) for text in match.groups()[:3])
    tilt, pan = (float(text) for text in match.groups()[3:])
    return Shot(path, person, series, number, tilt, pan, _face(path.with_suffix(".txt")))


def _face(path: Path) -> tuple[float, float, float, float]:
    """The face box of a txt: the image's name, "Face", centre x, centre y, width, height."""
    if not path.is_file():
        raise MissingFile(f"{path} is missing: every image needs the txt with its face box")
    words = read_text(path).split()
    try:
        name, kind, *numbers = words
        x, y, width, height = (float(number) for number in numbers)
    except ValueError:
        raise BadInput(
            f"{path}: expected the image's name, 'Face' and four numbers (centre x, centre y, "
            f"width, height), found {words}"
        ) from None
    whole = np.isfinite([x, y, width, height]).all() and min(width, height) > 0
    if kind != "Face" or name.lower() != path.with_suffix(".jpg").name.lower() or not whole:
        raise BadInput(f"{path}: is not the face box of {path.stem}.jpg: {words}")
    return x, y, width, height
