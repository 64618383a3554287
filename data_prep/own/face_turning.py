"""A photographed face, turned in three dimensions: the image as it would show the turned head.

A face mesh gives landmarks with their depths, an average skull stands for the rest of the head
(`data_prep/engine/head_model.py`). So every pixel near the head is a point in space; the points of
the head turn about the middle between the ears, those round it less and less, and are drawn again,
the nearest last. Zhu et al. 2016 (arXiv:1511.07212, "face profiling") made 300W-LP in this way,
with a face model fitted to each photograph. What the photograph does not show, the side of a head
that looks into the camera, is drawn out of its rim: up to some 50 degrees that looks like a head.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import Delaunay

from data_prep.engine.head_model import FACE_POINTS, SKULL_CENTRE, SKULL_SEMI_AXES

LANDMARKS = 468  # of MediaPipe's face mesh; below are numbers of some of them
NOSE_TIP, RIGHT_EAR, LEFT_EAR = 1, 234, 454
# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
BETWEEN_EARS = 150.0  # mm, of an average face
MODEL_NOSE_TIP = np.array(FACE_POINTS[5])  # mm
# What the depths of the mesh are multiplied by: its face is a little flat. With 1.0 it reads faces
# turned by 20 degrees to the side as turned by 17.5, with 1.15 by 19.3; of true turns up to 45 it
# reads 0.91 (docs/results.md).
DEPTH = 1.05

HEAD = 170.0  # pixels, longer side of the head that is drawn
MOST_ENLARGED, MOST_REDUCED = 3.0, 0.5
REACH = 2.1  # how far round the head pixels may move, in parts of half its box
STILL_HEAD = 1.08  # up to here they move as the head does, in the same measure
FALL = 0.9  # and from there on less and less, over this much more
SAMPLES = 2  # points along a pixel that are drawn
BEHIND = 60.0  # mm that the surroundings lie behind the head, so that it hides them
BLEND = 25.0  # mm from the face over which the skull takes over
SMOOTH = 2.0  # mm, blur of the depths
OUTLINE = (0.85, 1.05)  # from the middle of the skull to its outline: where its back begins
BACK = 50.0  # mm behind its middle that the back is drawn


class TurnedFace(NamedTuple):
    """A head that was turned.

    Attributes:
      image: (H, W, 3) uint8 RGB, scaled until the head is about `HEAD` pixels long.
      box: (4,) xyxy of the head in its pixels, clipped to it.
      unseen: share of the pixels near the head that no point was drawn on, and that were filled in.
    """

    image: np.ndarray
    box: np.ndarray
    unseen: float


class FaceInSpace(NamedTuple):
    """A face, each pixel near it a point in space: once for all the ways in which it is turned.

    Attributes:
      image: (H, W, 3) uint8 RGB, scaled until the head is about `HEAD` pixels long.
      part: the rows and columns of it near the head.
      at: (h, w, 3) of these, in pixels: x and y from their corner, z larger behind.
      from_middle: (h, w) distance of each from the middle of the box, which lies at 1.
      origin: (3,) of the head, where it turns.
      millimetre: in pixels.
    """

    image: np.ndarray
    part: tuple[slice, slice]
    at: np.ndarray
    from_middle: np.ndarray
    origin: np.ndarray
    millimetre: float


def face_in_space(
    image: np.ndarray, landmarks: np.ndarray, rotation: np.ndarray, box: np.ndarray
) -> FaceInSpace:
    """Where the pixels of a face are in space.

    Args:
      image: (H, W, 3) uint8 RGB.
      landmarks: (468, 3) of MediaPipe's face mesh: x and y in pixels of the image, z in the same
        unit, larger behind.
      rotation: (3, 3) of the head, head to camera.
      box: (4,) xyxy of the head.
    """
    box = np.asarray(box, np.float64)
    scale = float(np.clip(HEAD / max(box[2:] - box[:2]), MOST_REDUCED, MOST_ENLARGED))
    image = _scaled(image, scale)
    box = np.clip(box * scale, 0, [image.shape[1], image.shape[0]] * 2)
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    left, top = np.maximum(middle - REACH * half, 0).astype(int)
    right, bottom = np.minimum(middle + REACH * half, image.shape[1::-1]).astype(int)
    points = landmarks.astype(np.float64) * scale - [left, top, 0]
    points[:, 2] = points[NOSE_TIP, 2] + DEPTH * (points[:, 2] - points[NOSE_TIP, 2])

    # In pixels.
    millimetre = float(np.linalg.norm(points[LEFT_EAR] - points[RIGHT_EAR])) / BETWEEN_EARS
    origin = points[NOSE_TIP] - millimetre * rotation @ MODEL_NOSE_TIP
    y, x = np.mgrid[: bottom - top, : right - left].astype(np.float64)
    depth = _depths(x, y, points, rotation, origin, millimetre)
    from_middle = np.hypot((x + left - middle[0]) / half[0], (y + top - middle[1]) / half[1])
    part = (slice(top, bottom), slice(left, right))
    at = np.stack([x, y, depth], axis=-1)
    return FaceInSpace(image, part, at, from_middle, origin, millimetre)


def turn_face(face: FaceInSpace, turn: np.ndarray) -> TurnedFace:
    """Turns the head of a face.

    Args:
      face: as `face_in_space` gives it.
      turn: (3, 3) in camera axes; the head's rotation is then `turn @ rotation`.
    """
    share = _share_of_turn(face.from_middle)
    # Not as a product of matrices: BLAS's threads would wait for each other in several processes,
    # which took 13 times as long.
    way = np.einsum("ij,yxj->yxi", turn - np.eye(3), face.at - face.origin)
    moved = face.at + share[..., None] * way
    in_head = face.from_middle <= 1
    box = np.concatenate([moved[in_head, :2].min(axis=0), moved[in_head, :2].max(axis=0)])
    moved[..., 2] += (1 - share) * BEHIND * face.millimetre
    drawn, unseen = _drawn(face.image[face.part], moved)
    image = face.image.copy()
    image[face.part] = drawn
    rows, columns = face.part
    height, width = image.shape[:2]
    box = np.clip(box + [columns.start, rows.start] * 2, 0, [width, height] * 2)
    return TurnedFace(image, box, unseen)


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)


def _depths(
    x: np.ndarray,
    y: np.ndarray,
    points: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    millimetre: float,
) -> np.ndarray:
    """The depth of each pixel (x, y), in pixels: of the face's mesh, and round it of the skull."""
    skull = _skull_depths(x, y, rotation, origin, millimetre)
    oval = np.zeros(x.shape, np.uint8)
    cv2.fillPoly(oval, [np.round(points[list(FACE_OVAL), :2]).astype(np.int32)], 1)
    mesh = mesh_depths(x, y, points)
    in_face = np.isfinite(mesh) & (oval > 0)
    distance, nearest = cv2.distanceTransformWithLabels(
        (~in_face).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(nearest.max() + 1, np.int64)
    number[nearest[in_face]] = np.flatnonzero(in_face)
    rim = mesh.ravel()[number[nearest]]
    blend = np.clip(distance / (BLEND * millimetre), 0, 1)
    # No skull stands out of the face: hair does, and is drawn as if it did not.
    outside = (1 - blend) * rim + blend * np.maximum(skull, rim - 10 * millimetre)
    depth = np.where(in_face, mesh, outside).astype(np.float32)
    return cv2.GaussianBlur(depth, (0, 0), max(SMOOTH * millimetre, 0.8)).astype(np.float64)


def mesh_depths(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The depth of each pixel (x, y) between points (N, 3), linear in triangles; nan elsewhere.

    Triangles are drawn, since to look for that of each pixel (as scipy's LinearNDInterpolator does)
    takes up to a second where some are thin.
    """
    triangles = points[Delaunay(points[:, :2]).simplices]
    corners = np.concatenate([triangles[..., :2], np.ones_like(triangles[..., :1])], axis=-1)
    triangles, corners = (each[np.linalg.det(corners) != 0] for each in (triangles, corners))
    number = np.full(x.shape, -1, np.int32)
    for i, corner in enumerate(np.round(triangles[..., :2]).astype(np.int32)):
        cv2.fillConvexPoly(number, corner, i)
    planes = np.linalg.solve(corners, triangles[..., 2:])[..., 0]  # depth = plane . (x, y, 1)
    slope_x, slope_y, constant = planes[number].transpose(2, 0, 1)
    low, high = triangles[..., 2].min(axis=1)[number], triangles[..., 2].max(axis=1)[number]
    depth = np.clip(slope_x * x + slope_y * y + constant, low, high)
    return np.where(number >= 0, depth, np.nan)


def _skull_depths(
    x: np.ndarray, y: np.ndarray, rotation: np.ndarray, origin: np.ndarray, millimetre: float
) -> np.ndarray:
    """The depth of the front of an average skull, and round it of what lies behind its outline.

    The hair at the outline stands for the back of the head, which it must cover where the head
    turns to the side: else heads would become narrow.
    """
    axes = np.array(SKULL_SEMI_AXES) * millimetre
    form = rotation @ np.diag(axes**-2.0) @ rotation.T  # d form d = 1 on the skull
    centre = origin + millimetre * rotation @ np.array(SKULL_CENTRE)
    dx, dy = x - centre[0], y - centre[1]
    half_linear = form[0, 2] * dx + form[1, 2] * dy
    constant = form[0, 0] * dx**2 + 2 * form[0, 1] * dx * dy + form[1, 1] * dy**2 - 1
    under_root = half_linear**2 - form[2, 2] * constant
    outline = -half_linear / form[2, 2]
    front = outline - np.sqrt(np.maximum(under_root, 0)) / form[2, 2]
    # Far from the head the plane of its outline would run away.
    back = np.minimum(outline, 0.6 * axes[0]) + BACK * millimetre
    from_centre = np.sqrt(np.maximum(1 - under_root / form[2, 2], 0))  # 1 on the outline
    share = _smooth_step((from_centre - OUTLINE[0]) / (OUTLINE[1] - OUTLINE[0]))
    return centre[2] + (1 - share) * front + share * back


def _share_of_turn(from_middle: np.ndarray) -> np.ndarray:
    """How much of the turn each pixel makes: all of it in the head, none far from it."""
    return 1 - _smooth_step((from_middle - STILL_HEAD) / FALL)


def _smooth_step(t: np.ndarray) -> np.ndarray:
    """From 0 to 1 between 0 and 1, level at both ends."""
    t = np.clip(t, 0, 1)
    return t**2 * (3 - 2 * t)


def _drawn(part: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixels drawn where they moved to, the nearest last; and the share that nothing is drawn on.

    Args:
      part: (H, W, 3) uint8.
      moved: (H, W, 3) new x, y and depth of each pixel.
    """
    height, width = part.shape[:2]
    fine = (width * SAMPLES, height * SAMPLES)
    places = cv2.resize(moved.astype(np.float32), fine, interpolation=cv2.INTER_LINEAR)
    colours = cv2.resize(part, fine, interpolation=cv2.INTER_LINEAR)
    column, row = (np.round(places[..., i]).astype(np.int64) for i in (0, 1))
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest_last = _nearest_last(places[..., 2][within])
    pixel = (row * width + column)[within][nearest_last]
    image = np.zeros((height * width, 3), np.uint8)
    image[pixel] = colours[within][nearest_last]
    hole = np.ones(height * width, np.uint8)
    hole[pixel] = 0
    image, hole = image.reshape(height, width, 3), hole.reshape(height, width)
    if hole.any():
        image = cv2.inpaint(image, hole, 3, cv2.INPAINT_TELEA)
    return image, float(hole.mean())


def _nearest_last(depths: np.ndarray) -> np.ndarray:
    """The order of depths, larger ones first, to 65,536 steps: numbers of 16 bits sort fast."""
    low, high = depths.min(), depths.max()
    steps = (high - depths) * (65_535 / max(high - low, 1e-6))
    return np.argsort(steps.astype(np.uint16), kind="stable")
