"""One affine map moves image, boxes and rotations together, so they cannot disagree.

A map is a (2, 3) float64 matrix from coordinates of the source image to coordinates of the
network's input, both in pixels with 0 at the outer edge of the first pixel (see `mtnet_jax.boxes`).
Its linear part must be a scale, a turn and at most a mirroring: what keeps the shape of a head.
"""

import math

import cv2
import numpy as np

from mtnet_jax import rotations as rotation_ops

BORDER_GREY = 114  # of 255, outside the image


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The map that does `first` and then `then`."""
    both = then[:, :2] @ first
    both[:, 2] += then[:, 2]
    return both


def invert(matrix: np.ndarray) -> np.ndarray:
    """The map back."""
    (a, b, x), (c, d, y) = matrix.tolist()
    determinant = a * d - b * c
    rows = [[d, -b, b * y - d * x], [-c, a, c * x - a * y]]
    return np.array(rows) / determinant


def shift_map(dx: float, dy: float) -> np.ndarray:
    """Moves by pixels, right and down."""
    return np.array([[1.0, 0, dx], [0, 1, dy]])


def scale_map(scale: float) -> np.ndarray:
    """Scales about the origin."""
    return np.array([[scale, 0.0, 0], [0, scale, 0]])


def turn_map(degrees: float) -> np.ndarray:
    """Turns clockwise (as seen) about the origin."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0]])


def mirror_map(width: float) -> np.ndarray:
    """Flips left and right within an image of this width."""
    return np.array([[-1.0, 0, width], [0, 1, 0]])


def similarity_map(
    scale: float, degrees: float, flip: float, point: np.ndarray, to: np.ndarray
) -> np.ndarray:
    """Flips (-1 does, 1 does not), scales and turns clockwise about a point (2,), moved to `to`."""
    linear = scale * turn_map(degrees)[:, :2] * [flip, 1.0]
    return np.column_stack([linear, to - linear @ point])


def quarter_turn_map(width: float, height: float, quarters: int) -> np.ndarray:
    """Turns an image of this size clockwise by quarters of a circle, onto (0, 0) again."""
    matrix = shift_map(0, 0)
    for _ in range(quarters % 4):  # what was at the bottom is left
        matrix = compose(matrix, np.array([[0.0, -1, height], [1, 0, 0]]))
        width, height = height, width
    return matrix


def letterbox_map(width: int, height: int, size: int) -> np.ndarray:
    """Scales a whole image into a square of `size`, keeping its shape, centred."""
    scale = size / max(width, height)
    return np.array(
        [[scale, 0, (size - scale * width) / 2], [0, scale, (size - scale * height) / 2]]
    )


def map_image(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Resamples an image into a square input.

    Images that shrink by two or more are averaged down first, so nothing is lost between samples.

    Args:
      image: (H, W, 3) uint8.
      matrix: the map from image to input.
      size: side of the input.

    Returns:
      (size, size, 3) uint8; grey where the image does not reach.
    """
    shrink = int(1 / scale_of(matrix) + 1e-6)  # rounding must not make 8 a 7
    if shrink >= 2:
        height, width = image.shape[:2]
        small = (max(width // shrink, 1), max(height // shrink, 1))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([width / small[0], height / small[1], 1.0])
    place = _whole_pixels(image, matrix, size)
    if place is not None:
        # As below but for rounding, in a quarter of the time.
        left, top, right, bottom = place
        mapped = np.full((size, size, 3), BORDER_GREY, np.uint8)
        mapped[top:bottom, left:right] = cv2.resize(image, (right - left, bottom - top))
        return mapped
    # OpenCV puts 0 at the centre of the first pixel.
    centred = compose(shift_map(0.5, 0.5), matrix) - [[0, 0, 0.5], [0, 0, 0.5]]
    return cv2.warpAffine(
        image,
        centred,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BORDER_GREY,) * 3,
    )


def _whole_pixels(
    image: np.ndarray, matrix: np.ndarray, size: int
) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the image in the input, if whole pixels within it.

    None where they are not, and where the map turns, mirrors or enlarges (an enlarged image
    blends with the grey at its border).
    """
    (a, b, left), (c, d, top) = matrix.tolist()
    if b or c or not (0 < a <= 1 and 0 < d <= 1):
        return None
    height, width = image.shape[:2]
    exact = (left, top, left + a * width, top + d * height)
    whole = tuple(map(round, exact))
    inside = min(whole) >= 0 and max(whole) <= size
    near = all(abs(x - y) < 1e-6 for x, y in zip(exact, whole, strict=True))
    return whole if inside and near else None


def map_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps boxes (n, 4) xyxy; not clipped.

    A head is taken as the ellipse inscribed in its box, and the new box holds the turned ellipse:
    exact without a turn, and with one it does not grow as the box of turned corners would.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = centre @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def map_rotations(rotations: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps head-to-camera rotations (n, 3, 3): mirrored where the map mirrors, then turned (section
    1 of the conventions: R' = M R M, R' = Rz(t) R). Scale and shift change no rotation."""
    if _determinant(matrix[:, :2]) < 0:
        rotations = rotation_ops.mirror(rotations)
    return rotation_ops.turn(rotations, math.degrees(turn_of(matrix))).astype(np.float32)


def map_headings(headings: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps headings (n,), degrees: the direction a level face looks in, seen from above.

    Mirrored where the map mirrors; an in-plane rotation by t leaves cos(t) of what looks sideways,
    as the image then shows a head that also nods. Scale and shift change no heading.
    """
    sign = -1.0 if _determinant(matrix[:, :2]) < 0 else 1.0
    angle = np.deg2rad(headings)
    across = sign * np.sin(angle) * np.cos(turn_of(matrix))
    return np.rad2deg(np.arctan2(across, np.cos(angle)))


def turn_of(matrix: np.ndarray) -> float:
    """By how many radians a map turns, clockwise, after it mirrored left and right if it does."""
    (a, _), (c, _) = matrix[:, :2].tolist()
    return math.atan2(-c, -a) if _determinant(matrix[:, :2]) < 0 else math.atan2(c, a)


def scale_of(matrix: np.ndarray) -> float:
    """Pixels of the input a pixel of the image."""
    return math.sqrt(abs(_determinant(matrix[:, :2])))


def _determinant(linear: np.ndarray) -> float:
    (a, b), (c, d) = linear.tolist()
    return a * d - b * c
