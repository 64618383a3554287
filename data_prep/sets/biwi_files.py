"""The files of BIWI Kinect: poses, annotations, calibrations, depth, and lists of boxes."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.own.dialects import file_name, read_text
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.rotations import euler_to_rotation, rotation_faults

IMAGE_END = "_rgb.png"  # of the names of colour images


@dataclass(frozen=True)
class Calibration:
    """rgb.cal or depth.cal: a camera, and how the depth camera sees it.

    Attributes:
      matrix: (3, 3) camera matrix, pixels.
      distortion: (4,) k1, k2, p1, p2.
      rotation: (3, 3) depth to this camera, x_camera = rotation x_depth + translation.
      translation: (3,) mm.
      size: width and height of its images.
    """

    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    size: tuple[int, int]


def read_pose(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pose.txt: three rows of the rotation, an empty line, the centre.

    Returns:
      (3, 3) head-to-camera rotation, canonical, unchecked; (3,) centre, mm in the depth camera.

    Raises:
      ValueError: not twelve numbers.
    """
    numbers = _numbers(path, 12, "three rows of a rotation and a centre")
    return numbers[:9].reshape(3, 3), numbers[9:]


def read_annotation(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A .bin of db_annotations: six float32, centre in mm, then turns about x, y, z in degrees.

    The turns are plain ones, R = Rx(first) Ry(second) Rz(third): the second is canonical yaw, the
    first minus the pitch. The signs of these two were checked on images; the sign of the third
    and the order of the three could not be, they are those of pose.txt.

    Returns:
      As `read_pose`.

    Raises:
      ValueError: not 24 bytes.
    """
    content = path.read_bytes()
    if len(content) != 24:
        raise BadInput(f"{path}: {len(content)} bytes, expected 24 (six float32)")
    numbers = np.frombuffer(content, "<f4").astype(np.float64)
    about_x, about_y, about_z = numbers[3:]
    angles = np.array([about_y, -about_x, about_z])  # yaw, pitch, roll
    return euler_to_rotation(angles, convention="canonical"), numbers[:3]


def read_calibration(path: Path) -> Calibration:
    """An rgb.cal or depth.cal: camera matrix, distortion, rotation, translation, image size.

    Raises:
      FileNotFoundError: there is none.
      ValueError: not 27 numbers, or the rotation is none.
    """
    if not path.is_file():
        raise MissingFile(
            f"{path} is missing: every sequence needs its calibration to project the head"
        )
    numbers = _numbers(
        path, 27, "camera matrix (9), distortion (4), rotation (9), translation (3), size (2)"
    )
    matrix, distortion, rotation, translation, size = np.split(numbers, [9, 13, 22, 25])
    if not np.isfinite(numbers).all() or rotation_faults(rotation.reshape(3, 3)):
        raise BadInput(f"{path}: numbers 14 to 22 are not a rotation matrix, or not finite")
    return Calibration(
        matrix.reshape(3, 3),
        distortion,
        rotation.reshape(3, 3),
        translation,
        (int(size[0]), int(size[1])),
    )


def read_depth(path: Path) -> np.ndarray:
    """A depth.bin: int32 width and height, then runs of (int32 empty, int32 full, full x int16).

    Returns:
      (height, width) int16, millimetres along the axis of the depth camera; 0 where there is none.

    Raises:
      ValueError: the runs do not fill the image, or the file is longer or shorter than they say.
    """
    content = path.read_bytes()
    if len(content) < 8:
        raise BadInput(f"{path}: {len(content)} bytes, expected a header of 8: copy it anew")
    width, height = (int(number) for number in np.frombuffer(content, "<i4", 2))
    if not 0 < width * height <= 1 << 26 or width < 0:
        raise BadInput(f"{path}: claims {width}x{height} pixels, is no depth.bin")
    depth = np.zeros(width * height, np.int16)
    pixel, byte = 0, 8
    while pixel < depth.size:
        if byte + 8 > len(content):
            raise BadInput(f"{path}: ends at pixel {pixel} of {depth.size}: copy it anew")
        empty, full = (int(number) for number in np.frombuffer(content, "<i4", 2, byte))
        start, byte = pixel + empty, byte + 8
        pixel = start + full
        if min(empty, full) < 0 or pixel > depth.size or byte + 2 * full > len(content):
            raise BadInput(f"{path}: a run at byte {byte - 8} leaves the image or the file")
        if not empty and not full:
            raise BadInput(f"{path}: an empty run at byte {byte - 8}")
        depth[start:pixel] = np.frombuffer(content, "<i2", full, byte)
        byte += 2 * full
    if byte != len(content):
        raise BadInput(f"{path}: {len(content) - byte} bytes follow the last run")
    return depth.reshape(height, width)


def read_box_list(path: Path) -> dict[str, np.ndarray]:
    """A list of boxes: CSV with the header image,x1,y1,x2,y2 (pixels), a line a frame.

    `image` is NN/frame_FFFFF, with or without _rgb.png.

    Returns:
      Name of the frame, as in `Frame.name` -> (4,) xyxy.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a column is missing, a line has no four numbers, or a frame comes twice.
    """
    if not path.is_file():
        raise MissingFile(f"{path} is missing: --boxes names the list of boxes")
    boxes: dict[str, np.ndarray] = {}
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    wanted = ("image", "x1", "y1", "x2", "y2")
    if missing := [name for name in wanted if name not in (rows.fieldnames or ())]:
        raise BadInput(
            f"{path}: no column {', '.join(missing)}; the first line must be {','.join(wanted)}"
        )
    for row in rows:
        place = f"{path}, line {rows.line_num}"
        try:
            box = np.array([float(row[name]) for name in wanted[1:]])
        except (TypeError, ValueError):
            box = np.array([np.nan])
        if None in row or not np.isfinite(box).all():
            raise BadInput(f"{place}: expected four numbers x1,y1,x2,y2")
        name = file_name(row["image"]).removesuffix(IMAGE_END)
        if name in boxes:
            raise BadInput(f"{place}: a second box of {name}; each frame shows one head")
        boxes[name] = box
    return boxes


def _numbers(path: Path, count: int, what: str) -> np.ndarray:
    """The numbers of a text file, which must be `count`."""
    try:
        numbers = [float(word) for word in read_text(path).split()]
    except ValueError:
        raise BadInput(f"{path}: expected numbers only: {what}") from None
    if len(numbers) != count:
        raise BadInput(f"{path}: {len(numbers)} numbers, expected {count}: {what}")
    return np.array(numbers)
