"""Faces labelled by a .mat beside the image: what 300W-LP and AFLW2000 share.

The labels come from fitting a face model to the image:

* Pose_Para (1, 7): pitch, yaw, roll in radians (canonical), then where the origin of the model
  stands (x, y counted from the bottom of the image, z) and the scale, in pixels per micrometre.
* pt3d_68 (3, 68): the landmarks of the model in the image, hidden ones too (AFLW2000).
* pt2d (2, 68) or (2, 21): landmarks as annotated. A missing one has -1, or -1 and NaN.

Boxes. `head` places an average head (see head_model) where Pose_Para says; `landmarks` is the
smallest box round the landmarks, widened by a margin. Places in these files are good to about a
pixel, so nothing is done about the half pixel between ways of counting them.
"""

import argparse
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.engine import head_model
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import ONLY_HEAD_DROPPED, HeadsOfImage, read_image
from data_prep.engine.report import Report
from mtnet_jax.boxes import box_round
from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import euler_to_rotation

# Of both data sets.
HOMEPAGE = "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm"
CITATION = """@inproceedings{zhu2016face,
  author    = {Zhu, Xiangyu and Lei, Zhen and Liu, Xiaoming and Shi, Hailin and Li, Stan Z.},
  title     = {Face Alignment Across Large Poses: A {3D} Solution},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages     = {146--155},
  year      = {2016}
}"""

BOX_RULES = ("head", "landmarks")
LANDMARKS = ("pt3d_68", "pt2d")  # in the order in which they are looked for
DEFAULT_MARGIN = 0.2
DEFAULT_MAX_ANGLE = 99.0
_FEWEST_LANDMARKS = 4


@dataclass(frozen=True)
class Item:
    """One image, whose labels should lie beside it.

    Attributes:
      image: the .jpg.
      image_id: unique in the record set.
      doubt: what the report should say if its box is drawn round pt2d, or "".
    """

    image: Path
    image_id: str
    doubt: str = ""

    @property
    def mat(self) -> Path:
        """The file of its labels."""
        return self.image.with_suffix(".mat")

    def inputs(self) -> tuple[Path, ...]:
        """What is read besides the image, see `engine.fingerprint`."""
        return (self.mat,)


@dataclass(frozen=True)
class Face:
    """What a .mat says.

    Attributes:
      angles: (3,) yaw, pitch, roll in degrees, as in the file (not brought into a range).
      place: (3,) x and y of the model's origin, y counted up from the bottom of the image, and
        pixels per millimetre; None where Pose_Para holds angles only.
      landmarks: name -> (n, 2) pixels, without the missing ones.
      missing: name -> number of missing landmarks.
    """

    angles: np.ndarray
    place: np.ndarray | None
    landmarks: Mapping[str, np.ndarray]
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Options:
    """What to take, and round what to draw the box.

    Attributes:
      box_rule: "head" or "landmarks".
      landmarks: "auto" (pt3d_68 where there is one), "pt3d_68" or "pt2d", for the rule landmarks.
      margin: the box of landmarks grows on each side by this part of its width or height.
      max_angle: images with an angle beyond it, in degrees, are left out.
    """

    box_rule: str = "head"
    landmarks: str = "auto"
    margin: float = DEFAULT_MARGIN
    max_angle: float = DEFAULT_MAX_ANGLE

    def __post_init__(self):
        if self.box_rule not in BOX_RULES:
            raise BadInput(f"Box rule {self.box_rule!r}: choose one of {', '.join(BOX_RULES)}")
        if self.landmarks not in ("auto", *LANDMARKS):
            raise BadInput(f"Landmarks {self.landmarks!r}: auto, {', '.join(LANDMARKS)}")
        if not 0 <= self.margin < np.inf:
            raise BadInput(f"--margin {self.margin}: must be 0 or more")
        if not self.max_angle > 0:
            raise BadInput(f"--max-angle {self.max_angle}: must be above 0 (inf keeps all)")

    @property
    def rule_name(self) -> str:
        """The name of the rule in the record set; it states the margin."""
        return "head" if self.box_rule == "head" else f"landmarks + {self.margin:.0%}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that both data sets have."""
    parser.add_argument(
        "--box-rule",
        choices=BOX_RULES,
        default="head",
        help="an average head placed by Pose_Para (default), or the landmarks with a margin",
    )
    parser.add_argument(
        "--landmarks",
        choices=("auto", *LANDMARKS),
        default="auto",
        help="landmarks of the rule 'landmarks' (default: pt3d_68 where there is one, else pt2d)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=DEFAULT_MARGIN,
        metavar="PART",
        help="what a box of landmarks gains on each side, as a part of its width or height "
        f"(default: {DEFAULT_MARGIN})",
    )
    parser.add_argument(
        "--max-angle",
        type=float,
        default=DEFAULT_MAX_ANGLE,
        metavar="DEGREES",
        help="leave out images with an angle beyond it, as the published protocols do "
        f"(default: {DEFAULT_MAX_ANGLE:g}; inf keeps all)",
    )


def options(args: argparse.Namespace) -> Options:
    """What `add_arguments` parsed."""
    return Options(args.box_rule, args.landmarks, args.margin, args.max_angle)


def conversion(
    about: Mapping[str, str],
    splits: Mapping[str, list[Item]],
    options: Options,
) -> Conversion:
    """A data set of images with a .mat beside each.

    Args:
      about: name, text, homepage, citation, licence.
      splits: name -> images.
      options: see `Options`.
    """
    description = Description(
        version="1.0.0", box_rule=options.rule_name, label_names=("head",), **about
    )
    read = functools.partial(_records, source=about["name"], options=options)
    return Conversion(description, splits, read)


def read_face(path: Path) -> Face:
    """Reads a .mat.

    Raises:
      ValueError: damaged, or without Pose_Para of three or more numbers.
    """
    import scipy.io  # here: mtnet --help should not wait for it

    try:
        content = scipy.io.loadmat(path, variable_names=("Pose_Para", *LANDMARKS))
    except Exception as error:  # a damaged file raises whatever the reader stumbles over
        raise BadInput(f"{path}: is damaged, copy it anew ({error})") from error
    if "Pose_Para" not in content:
        raise BadInput(f"{path}: has no Pose_Para, so no pose")
    pose = np.asarray(content["Pose_Para"])
    if pose.dtype.kind not in "fiu" or pose.size < 3:
        raise BadInput(f"{path}: Pose_Para is not pitch, yaw, roll (shape {pose.shape})")
    pose = pose.ravel().astype(np.float64)
    pitch, yaw, roll = np.rad2deg(pose[:3])
    place = None
    if len(pose) >= 7:
        place = np.array([pose[3], pose[4], pose[6] * 1000])  # per micrometre -> per millimetre
    found, missing = {}, {}
    for name in LANDMARKS:
        if name in content:
            points = _columns(path, name, content[name])
            present = np.isfinite(points).all(axis=1) & (points != -1).all(axis=1)
            found[name], missing[name] = points[present], int((~present).sum())
    return Face(np.array([yaw, pitch, roll]), place, found, missing)


def rotation(face: Face) -> np.ndarray:
    """(3, 3) head-to-camera rotation."""
    return euler_to_rotation(face.angles, convention="canonical")


def head_box(face: Face, height: float) -> np.ndarray:
    """The box of an average head that stands where the face model does.

    Args:
      face: with a place.
      height: of the image, from whose bottom the place counts y.

    Returns:
      (4,) xyxy in pixels, not clipped.
    """
    assert face.place is not None, "the caller has looked"
    x, up, scale = face.place
    points = head_model.head_points() @ rotation(face).T
    return box_round(points[:, :2] * scale + [x, height - up])


def landmark_box(points: np.ndarray, margin: float) -> np.ndarray:
    """(4,) xyxy round landmarks (n, 2), grown on each side by `margin` of its width and height."""
    box = box_round(points)
    grow = margin * (box[2:] - box[:2])
    return np.concatenate([box[:2] - grow, box[2:] + grow])


def _records(item: Item, report: Report, *, source: str, options: Options) -> Iterator[dict]:
    # Every image shows a face: without a label it must go, or the face would be background.
    name = item.image_id
    if not item.mat.is_file():
        report.drop_image("no .mat beside the image", name)
        return
    try:
        face = read_face(item.mat)
    except ValueError as error:
        report.drop_image("the .mat cannot be read", str(error))
        return
    if not np.isfinite(face.angles).all():
        report.drop_image("the pose is not finite", name)
        return
    if (np.abs(face.angles) > options.max_angle).any():
        report.drop_image(f"an angle is beyond {options.max_angle:g} degrees", name)
        return
    image = read_image(item.image, report)
    if image is None:
        return
    encoded, size = image
    if options.box_rule == "head":
        box = _placed_head(face, size, name, report)
    else:
        box = _round_landmarks(face, options, item, report)
    if box is None:
        return
    heads = HeadsOfImage(name, size, report)
    if not heads.add(box, rotation(face)):
        report.drop_image(ONLY_HEAD_DROPPED, name)
        return
    yield heads.record(encoded, source)


def _placed_head(face: Face, size: tuple[int, int], name: str, report: Report) -> np.ndarray | None:
    if face.place is None or not np.isfinite(face.place).all() or face.place[2] <= 0:
        report.drop_image("Pose_Para has no place and scale for the rule 'head'", name)
        return None
    return head_box(face, size[1])


def _round_landmarks(face: Face, options: Options, item: Item, report: Report) -> np.ndarray | None:
    name = item.image_id
    wanted = LANDMARKS if options.landmarks == "auto" else (options.landmarks,)
    kind = next((kind for kind in wanted if kind in face.landmarks), None)
    if kind is None:
        report.drop_image(f"no landmarks ({' or '.join(wanted)})", name)
        return None
    points = face.landmarks[kind]
    if len(points) < _FEWEST_LANDMARKS:
        report.drop_image(f"fewer than {_FEWEST_LANDMARKS} landmarks in {kind}", name)
        return None
    if face.missing[kind]:
        report.note(f"some landmarks of {kind} are missing, the box may be small", name)
    if item.doubt and kind == "pt2d":
        report.note(item.doubt, name)
    return landmark_box(points, options.margin)


def _columns(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """x and y of landmarks stored as rows: (2 or 3, n) -> (n, 2)."""
    array = np.asarray(array)
    if array.ndim != 2 or array.shape[0] not in (2, 3) or array.dtype.kind not in "fiu":
        raise BadInput(f"{path}: {name} is not (2 or 3, n) numbers, but {array.shape}")
    return array[:2].T.astype(np.float64)
