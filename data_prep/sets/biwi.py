"""BIWI Kinect head poses: hpdb/NN/frame_FFFFF_rgb.png, _pose.txt, _depth.bin and hpdb/NN/rgb.cal.

Poses. pose.txt holds the rotation (head to depth camera, canonical) and a centre in millimetres in
the depth camera. The rotation is taken as it stands, as all published numbers do; `--calibrated`
turns it into the colour camera, R_cal R. The centre is no middle of the head: it lies inside the
face, 67 mm behind the tip of the nose, on its height (measured on the depth of a frame).

Boxes. The data have none. `head` projects an average head (see head_model) into the colour image,
`sphere` a sphere round the middle of the head, and a list in a file can bring any others.
"""

import argparse
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.engine import arguments, head_model
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import ONLY_HEAD_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.sets.biwi_files import (
    IMAGE_END,
    Calibration,
    read_annotation,
    read_box_list,
    read_calibration,
    read_depth,
    read_pose,
)
from mtnet_jax.boxes import box_round
from mtnet_jax.camera import intrinsics_of_matrix
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.rotations import rotation_faults

CITATION = """@article{fanelli2013random,
  author  = {Fanelli, Gabriele and Dantone, Matthias and Gall, Juergen and Fossati, Andrea and
             Van Gool, Luc},
  title   = {Random Forests for Real Time 3D Face Analysis},
  journal = {International Journal of Computer Vision},
  volume  = {101},
  number  = {3},
  pages   = {437--458},
  year    = {2013}
}"""
LICENCE = "For research purposes only (Computer Vision Laboratory, ETH Zurich)."
HOMEPAGE = "https://icu.ee.ethz.ch/research/datsets.html"

BOX_RULES = ("head", "sphere")
DEFAULT_RADIUS = 115.0  # mm
# The origin of head_model in BIWI's head frame: it brings the tips of the noses together (in the
# depth of a frame of sequence 12 and in an image of sequence 01).
MODEL_ORIGIN = (0.0, -5.0, 65.0)  # mm

SEQUENCES = tuple(range(1, 25))
# Sequences 15, 18, 21, 22 show the people of 03, 05, 02, 01.
SAME_PERSON = ((3, 15), (5, 18), (2, 21), (1, 22))
# Test sequences; the others train. The published 70/30 numbers drew 16 and 8 sequences at random
# and do not say which, so these lists are ours.
TEST_SEQUENCES = {
    "all": SEQUENCES,
    "70-30": (17, 18, 19, 20, 21, 22, 23, 24),  # 18, 21, 22 show people who are trained on
    "subject-disjoint": (1, 16, 17, 19, 20, 22, 23, 24),
}

_NEAREST = 200.0  # mm; a head nearer to the camera than that is a broken label
# Between the surface of the face and the centre behind it, seen from the camera.
_DEPTH_BEHIND_SURFACE = (0.0, 150.0)  # mm


@dataclass(frozen=True)
class Frame:
    """One image and where its labels should lie."""

    image: Path
    sequence: int
    annotation: Path  # the .bin of db_annotations, for frames without pose.txt

    @property
    def name(self) -> str:
        """For instance 01/frame_00003: the image_id, and the name in a list of boxes."""
        return f"{self.sequence:02d}/{self.image.name.removesuffix(IMAGE_END)}"

    def beside(self, end: str) -> Path:
        """The file of the same frame with another ending, "_pose.txt" for instance."""
        return self.image.with_name(self.image.name.removesuffix(IMAGE_END) + end)

    @property
    def pose(self) -> Path:
        """The file of its pose, which may not be there."""
        return self.beside("_pose.txt")

    @property
    def depth(self) -> Path:
        """The file of its depth, which may not be there."""
        return self.beside("_depth.bin")

    @property
    def depth_calibration(self) -> Path:
        """The calibration of the depth camera."""
        return self.image.with_name("depth.cal")

    def inputs(self) -> tuple[Path, ...]:
        """What is read besides image and annotation, see `engine.fingerprint`."""
        return self.pose, self.depth, self.depth_calibration


@dataclass(frozen=True)
class Options:
    """What `_records` needs besides the frame."""

    calibrations: Mapping[int, Calibration]
    outline: np.ndarray  # (n, 3) mm in head axes, from the centre in pose.txt
    boxes: Mapping[str, np.ndarray] | None
    calibrated: bool
    check_depth: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert biwi`."""
    parser.add_argument(
        "--protocol",
        choices=tuple(TEST_SEQUENCES),
        default="all",
        help="all sequences are 'test' (default), or 16 sequences 'train' and 8 'test'",
    )
    parser.add_argument(
        "--sequences",
        type=arguments.numbers,
        default=SEQUENCES,
        metavar="N,N",
        help="only these (default: all 24, which must be there)",
    )
    parser.add_argument(
        "--box-rule",
        choices=BOX_RULES,
        default="head",
        help="project an average head (default) or a sphere round the middle of the head",
    )
    parser.add_argument(
        "--radius",
        type=float,
        default=DEFAULT_RADIUS,
        metavar="MM",
        help=f"of the sphere, millimetres (default: {DEFAULT_RADIUS:g})",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="take boxes from a CSV image,x1,y1,x2,y2 instead; frames that it lacks are left out",
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="rotations in the colour camera, R_cal R (default: R as in pose.txt)",
    )
    parser.add_argument(
        "--check-depth",
        action="store_true",
        help="note frames whose head centre does not lie behind the surface in depth.bin",
    )


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        protocol=args.protocol,
        sequences=args.sequences,
        box_rule=args.box_rule,
        radius=args.radius,
        boxes=args.boxes,
        calibrated=args.calibrated,
        check_depth=args.check_depth,
    )


def conversion(
    raw: Path,
    *,
    protocol: str = "all",
    sequences: tuple[int, ...] = SEQUENCES,
    box_rule: str = "head",
    radius: float = DEFAULT_RADIUS,
    boxes: Path | None = None,
    calibrated: bool = False,
    check_depth: bool = False,
) -> Conversion:
    """BIWI as a data set to be written, split by sequence.

    Args:
      raw: folder that holds hpdb (and db_annotations), or hpdb itself.
      protocol: a name in `TEST_SEQUENCES`.
      sequences: take these; each must be there.
      box_rule: "head" or "sphere".
      radius: of the sphere, mm.
      boxes: a list of boxes (see `read_box_list`), which replaces the rule.
      calibrated: rotate the labels into the colour camera.
      check_depth: compare each head centre with depth.bin, and note those that do not fit.

    Returns:
      The conversion; a split without sequences is left out.

    Raises:
      FileNotFoundError: a sequence, its images or its calibration is missing.
      ValueError: an unknown protocol or rule, or a calibration or list that cannot be understood.
    """
    if protocol not in TEST_SEQUENCES:
        raise BadInput(f"Protocol {protocol!r}: choose one of {', '.join(TEST_SEQUENCES)}")
    if box_rule not in BOX_RULES:
        raise BadInput(f"Box rule {box_rule!r}: choose one of {', '.join(BOX_RULES)}")
    if not radius > 0:
        raise BadInput(f"--radius {radius}: must be above 0 mm")
    if not sequences:
        raise BadInput("--sequences names none: leave it out for all 24")
    root = raw / "hpdb" if (raw / "hpdb").is_dir() else raw
    frames = {number: _frames(root, number) for number in sequences}
    options = Options(
        calibrations={n: read_calibration(root / f"{n:02d}" / "rgb.cal") for n in sequences},
        outline=outline(box_rule, radius),
        boxes=None if boxes is None else read_box_list(boxes),
        calibrated=calibrated,
        check_depth=check_depth,
    )
    splits: dict[str, list[Frame]] = {"train": [], "test": []}
    for number in sequences:
        split = "test" if number in TEST_SEQUENCES[protocol] else "train"
        splits[split] += frames[number]
    rule = box_rule if box_rule == "head" else f"sphere {radius:g} mm"
    description = Description(
        name="biwi",
        version="1.0.0",
        text=f"BIWI Kinect head pose database, colour images, protocol {protocol}.",
        box_rule=rule if boxes is None else f"list {boxes.name}",
        label_names=("head",),
        homepage=HOMEPAGE,
        citation=CITATION,
        licence=LICENCE,
    )
    read = functools.partial(_records, options=options)
    known = {frame.name for of_sequence in frames.values() for frame in of_sequence}
    unknown = [name for name in options.boxes or () if name not in known]
    said = f"boxes in {boxes} of no frame that is taken"
    notes = [(said, unknown[0], len(unknown))] if unknown else []
    splits = {name: items for name, items in splits.items() if items}
    return Conversion(description, splits, read, notes)


def outline(box_rule: str, radius: float) -> np.ndarray:
    """(n, 3) points round the head, mm in head axes from the centre that pose.txt gives."""
    if box_rule == "sphere":
        points = head_model.ellipsoid_points(head_model.MIDDLE, (radius,) * 3)
    else:
        points = head_model.head_points()
    return points + MODEL_ORIGIN


def head_box(
    rotation: np.ndarray, centre: np.ndarray, calibration: Calibration, outline: np.ndarray
) -> np.ndarray:
    """The box, in the colour image, round an outline that moves with the head.

    Args:
      rotation: (3, 3) head to depth camera, as in pose.txt.
      centre: (3,) mm in the depth camera.
      calibration: of the colour camera.
      outline: (n, 3) mm in head axes from the centre.

    Returns:
      (4,) xyxy in pixels, not clipped. Pixels run from 0 at the outer edge of the first one, while
      a camera matrix counts from its middle, hence the half.
    """
    in_depth = outline @ rotation.T + centre
    vector, _ = cv2.Rodrigues(calibration.rotation)
    pixels, _ = cv2.projectPoints(
        in_depth, vector, calibration.translation, calibration.matrix, calibration.distortion
    )
    return box_round(pixels.reshape(-1, 2) + 0.5)


def surface_distance(depth: np.ndarray, centre: np.ndarray, calibration: Calibration) -> float:
    """How far the head centre lies behind the surface that the depth camera sees in front of it.

    Args:
      depth: (height, width) mm, 0 where there is none.
      centre: (3,) mm in the depth camera.
      calibration: depth.cal.

    Returns:
      Millimetres along the axis of the camera, from the median of 5x5 pixels; NaN where there is no
      depth, or the centre lies outside the image.
    """
    x, y, w = calibration.matrix @ centre
    column, row = round(x / w), round(y / w)
    around = depth[max(row - 2, 0) : max(row + 3, 0), max(column - 2, 0) : max(column + 3, 0)]
    seen = around[around > 0]
    return float(centre[2] - np.median(seen)) if len(seen) else float("nan")


def _records(frame: Frame, report: Report, *, options: Options) -> Iterator[dict]:
    # Every frame shows a head: without a label it must go, or the head would count as background.
    pose = _pose(frame, report)
    if pose is None:
        return
    rotation, centre = pose
    calibration = options.calibrations[frame.sequence]
    box: np.ndarray | None = None
    if options.boxes is None:
        box = head_box(rotation, centre, calibration, options.outline)
    else:
        box = options.boxes.get(frame.name)
    if box is None:
        report.drop_image("no box in the list", frame.name)
        return
    image = read_image(frame.image, report)
    if image is None:
        return
    encoded, size = image
    if size != calibration.size:
        report.drop_image(
            f"size is not {calibration.size[0]}x{calibration.size[1]}, as rgb.cal says", frame.name
        )
        return
    if options.check_depth:
        _check_depth(frame, centre, report)
    if options.calibrated:
        rotation = calibration.rotation @ rotation
    heads = HeadsOfImage(frame.name, size, report)
    if not heads.add(box, rotation):
        report.drop_image(ONLY_HEAD_DROPPED, frame.name)
        return
    yield heads.record(encoded, "biwi", intrinsics_of_matrix(calibration.matrix))


def _pose(frame: Frame, report: Report) -> tuple[np.ndarray, np.ndarray] | None:
    """Rotation and centre of a frame, or None after a word to the report."""
    try:
        if frame.pose.is_file():
            rotation, centre = read_pose(frame.pose)
        elif frame.annotation.is_file():
            rotation, centre = read_annotation(frame.annotation)
            report.note("poses from db_annotations, for want of a pose.txt", frame.name)
        else:
            report.drop_image("no pose.txt, nothing in db_annotations", frame.name)
            return None
    except ValueError as error:
        report.drop_image("the pose cannot be read", str(error))
        return None
    if not np.isfinite(rotation).all() or not np.isfinite(centre).all():
        report.drop_image("the pose is not finite", frame.name)
        return None
    if rotation_faults(rotation):
        report.drop_image("the rotation is not a rotation matrix", frame.name)
        return None
    if centre[2] < _NEAREST:
        report.drop_image(f"the head is nearer than {_NEAREST:g} mm", frame.name)
        return None
    return rotation, centre


def _check_depth(frame: Frame, centre: np.ndarray, report: Report) -> None:
    if not frame.depth.is_file():
        report.note("no depth.bin to check", frame.name)
        return
    try:
        depth = read_depth(frame.depth)
        calibration = read_calibration(frame.depth_calibration)
    except (OSError, ValueError) as error:
        report.note("the depth cannot be read", str(error))
        return
    low, high = _DEPTH_BEHIND_SURFACE
    if not low <= surface_distance(depth, centre, calibration) <= high:  # NaN is outside, too
        report.note(f"the head centre is not {low:g} to {high:g} mm behind the surface", frame.name)
    return None


def _frames(root: Path, number: int) -> list[Frame]:
    folder = root / f"{number:02d}"
    images = sorted(folder.glob(f"frame_*{IMAGE_END}"))
    if not images:
        raise MissingFile(
            f"No {folder}/frame_*{IMAGE_END}: --raw must hold hpdb/01 to hpdb/24; "
            "to convert a part, name it with --sequences"
        )
    annotations = root.parent / "db_annotations" / folder.name
    return [
        Frame(path, number, annotations / (path.name.removesuffix(IMAGE_END) + "_pose.bin"))
        for path in images
    ]
