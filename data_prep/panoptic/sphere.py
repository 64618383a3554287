"""The box of a head: a sphere round it, as the camera sees it.

The visible outline of a sphere is a circle: with c its centre in camera axes, d = |c| and r its
radius, the rays that touch it do so on the circle with centre c (1 - r^2 / d^2), radius
r sqrt(1 - r^2 / d^2) and normal c / d. A lens without distortion shows it as an ellipse; with
distortion there is no closed form. So the outline is sampled densely, each point is projected with
distortion, and the box is their minimum and maximum. 360 points lie within (1 - cos 0.5 deg) / 2
of the width of the box from the exact extreme: 0.008 pixels for a box of 400.
"""

import numpy as np

from data_prep.panoptic.calibration import Camera
from mtnet_jax.boxes import box_round

_ANGLES = np.deg2rad(np.arange(360))
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def sphere_box(camera: Camera, centre: np.ndarray, radius: float) -> np.ndarray | None:
    """Box round a sphere in an image.

    Args:
      camera: whose image.
      centre: (3,) of the sphere in the dome, centimetres.
      radius: centimetres.

    Returns:
      (4,) xyxy in pixels, not clipped; None for a sphere that is not wholly before the camera.
    """
    middle = camera.to_camera(np.asarray(centre, np.float64))
    if middle[2] <= radius:
        return None
    distance = np.linalg.norm(middle)
    normal = middle / distance
    # Two axes of the circle's plane; x is never along the line of sight of what lies before.
    across = np.cross(normal, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    up = np.cross(normal, across)
    nearer = 1 - (radius / distance) ** 2
    outline = middle * nearer + radius * np.sqrt(nearer) * (_CIRCLE @ np.stack([across, up]))
    pixels = camera.project(outline)
    return box_round(pixels)
