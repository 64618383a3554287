"""The outline of an average head, for data sets that say where a face is but give no head box.

A head is a skull with hair (an ellipsoid) and a few points of the face and ears that stick out of
it. Placed by a pose and projected, it gives the box of the whole head, rule `head`: hair to chin,
both ears, nose to the back of the head.

Lengths are millimetres. Axes are the head axes of `mtnet_jax.rotations` (x the subject's left, y
down, z to the back of the head). The origin is that of the face model behind 300W-LP and AFLW2000:
between the ears, on the height of the tip of the nose. The numbers are common head measures,
rounded, and were checked by eye on contact sheets of AFLW2000 and on frames of BIWI.
"""

import numpy as np

SKULL_CENTRE = (0.0, -55.0, -10.0)
SKULL_SEMI_AXES = (82.0, 97.0, 105.0)  # with ordinary hair: 164 wide, 210 long
FACE_POINTS = (
    (0.0, 88.0, -92.0),  # chin
    (35.0, 76.0, -70.0),  # below the jaw
    (-35.0, 76.0, -70.0),
    (62.0, 45.0, -30.0),  # corners of the jaw
    (-62.0, 45.0, -30.0),
    (0.0, 6.0, -132.0),  # tip of the nose
    (88.0, -10.0, 10.0),  # ears
    (-88.0, -10.0, 10.0),
)
# The middle of head_points(), front to back and crown to chin.
MIDDLE = (0.0, -32.0, -18.0)

_SURFACE_POINTS = 1000  # extents of the surface are then short by at most 0.2 percent


def head_points() -> np.ndarray:
    """(n, 3) points whose projections span the box of a head."""
    return np.vstack([ellipsoid_points(SKULL_CENTRE, SKULL_SEMI_AXES), FACE_POINTS])


def ellipsoid_points(centre: tuple[float, ...], semi_axes: tuple[float, ...]) -> np.ndarray:
    """Points spread evenly (by a golden-angle spiral) over a sphere that is then stretched.

    Args:
      centre: x, y, z.
      semi_axes: along x, y and z; three equal ones make a sphere.

    Returns:
      (n, 3) in the unit of the arguments.
    """
    turn = np.arange(_SURFACE_POINTS) + 0.5
    z = 1 - 2 * turn / _SURFACE_POINTS
    angle = np.pi * (1 + np.sqrt(5)) * turn
    ring = np.sqrt(1 - z**2)
    unit = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    return np.asarray(centre) + unit * np.asarray(semi_axes)
