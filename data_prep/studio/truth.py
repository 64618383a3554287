"""What is true of the heads in an image: rotation, box, visible share.

Box rule `head`: the bounds of the projected surface of the whole head, from the chin to the top of
hair or headgear and with both ears. Hair counts where it lies above the ear lobes and within 6 cm
of the skin: hair that hangs down, or stands off further, does not widen the box. Headgear counts in
full, a peak too. Glasses and beards do not.

Box rule `sphere18`: the bounds of the projected sphere of radius 18 cm round the point of the
head that CMU Panoptic's boxes have as their centre.

Both are clipped to the image.
"""

import cv2
import numpy as np

from data_prep.studio.scene import Camera, HeadTruth, PlacedPerson, Scene
from mtnet_jax.boxes import box_round, longer_side_xyxy
from mtnet_jax.errors import BadInput

BOX_RULES = ("head", "sphere18")
SPHERE_RADIUS = 0.18  # metres
IGNORE_BELOW = 0.3  # visible share
LEFT_OUT_BELOW = 0.03
_IGNORE_SIDE = 6.0  # pixels: smaller heads are not asked for
_IN_FRONT = 0.15  # metres: the whole head must lie further than this before the camera
_CANVAS = 64.0  # pixels: outlines are compared on canvases of at most about this size
# Points spread over a triangle, barycentric: dense enough that on a canvas of that size they leave
# holes of a pixel at most.
_SAMPLES = np.array(
    [(i / 4, j / 4, (4 - i - j) / 4) for i in range(5) for j in range(5 - i)], np.float32
)


def truth(
    scene: Scene, camera: Camera, ids: np.ndarray, *, box_rule: str = "head"
) -> tuple[list[HeadTruth], list[str]]:
    """The heads of an image.

    Args:
      scene: what was rendered.
      camera: the eye.
      ids: (H, W) of its `Rendering`.
      box_rule: one of BOX_RULES.

    Returns:
      The heads, in the order of `scene.people`, and for each person that is left out the reason.

    Raises:
      ValueError: an unknown box rule.
    """
    if box_rule not in BOX_RULES:
        raise BadInput(f"Box rule {box_rule!r}: choose one of {', '.join(BOX_RULES)}")
    limits = np.array([camera.width, camera.height] * 2, float)
    heads, left_out = [], []
    for number, placed in enumerate(scene.people):
        outline = head_points(placed, placed.person.outline, camera)
        if outline[:, 2].min() < _IN_FRONT:
            left_out.append("behind the camera")
            continue
        pixels = camera.project(outline)
        share = visible_share(pixels, placed.person.outline_triangles, ids == number + 1)
        if box_rule == "head":
            box = box_round(pixels)
        else:
            centre = head_points(placed, placed.person.sphere_centre[None], camera)[0]
            box = sphere_box(centre, SPHERE_RADIUS, camera)
        clipped = np.clip(box, 0, limits)
        if share < LEFT_OUT_BELOW or (clipped[2:] - clipped[:2]).min() < 1:
            left_out.append("hidden, or outside the image")
            continue
        small = longer_side_xyxy(box) < _IGNORE_SIDE
        heads.append(
            HeadTruth(
                person=number,
                identity=placed.person.identity,
                rotation=camera.rotation @ placed.head_rotation,
                position=camera.to_camera(placed.head_position),
                box=clipped,
                visible=share,
                ignore=bool(share < IGNORE_BELOW or small),
                landmarks=head_points(placed, placed.person.landmarks, camera),
            )
        )
    return heads, left_out


def head_points(placed: PlacedPerson, points: np.ndarray, camera: Camera) -> np.ndarray:
    """(n, 3) in camera axes, metres, of (n, 3) points of the head in head axes."""
    return camera.to_camera(placed.to_world(points))


def sphere_box(centre: np.ndarray, radius: float, camera: Camera) -> np.ndarray:
    """(4,) xyxy: bounds of the image of a sphere; `centre` (3,) in camera axes, metres."""
    x, y, z = centre
    box = []
    for lateral, focal, middle in (
        (x, camera.matrix[0, 0], camera.matrix[0, 2]),
        (y, camera.matrix[1, 1], camera.matrix[1, 2]),
    ):
        # Planes through the eye that touch the sphere: angle of its centre, and half its width.
        angle, half = np.arctan2(lateral, z), np.arcsin(min(radius / np.hypot(lateral, z), 1.0))
        box.append([middle + focal * np.tan(angle - half), middle + focal * np.tan(angle + half)])
    return np.array(box).T.ravel()


def visible_share(pixels: np.ndarray, triangles: np.ndarray, seen: np.ndarray) -> float:
    """Share of a head's outline in which its person is what is seen.

    Args:
      pixels: (n, 2) of the points of the head.
      triangles: (m, 3) that cover it.
      seen: (H, W) bool, where the image shows the person.

    Returns:
      A number from 0 to 1; what lies outside the image is not seen.
    """
    low, high = np.floor(pixels.min(axis=0)) - 1, np.ceil(pixels.max(axis=0)) + 1
    scale = min(1.0, _CANVAS / float((high - low).max()))
    width, height = np.maximum(np.ceil((high - low) * scale), 1).astype(int)
    outline = np.zeros((height, width), np.uint8)
    canvas = ((pixels - low) * scale).astype(np.float32)
    points = canvas.astype(int)
    outline[points[:, 1], points[:, 0]] = 1
    # Triangles that are larger than a pixel are sampled inside.
    x, y = (canvas[:, k][triangles] for k in range(2))
    large = (np.ptp(x, axis=1) > 1) | (np.ptp(y, axis=1) > 1)
    columns, rows = ((_SAMPLES @ corners[large].T).astype(int) for corners in (x, y))
    outline[rows, columns] = 1
    outline = cv2.morphologyEx(outline, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    x = np.floor(low[0] + (np.arange(width) + 0.5) / scale).astype(int)
    y = np.floor(low[1] + (np.arange(height) + 0.5) / scale).astype(int)
    inside_x = (x >= 0) & (x < seen.shape[1])
    inside_y = (y >= 0) & (y < seen.shape[0])
    shown = np.zeros((height, width), bool)
    shown[np.ix_(inside_y, inside_x)] = seen[np.ix_(y[inside_y], x[inside_x])]
    return float((shown & (outline > 0)).sum() / max(int(outline.sum()), 1))
