"""Rotations relative to the camera's axes, and relative to the ray through a head.

A head off the middle of a wide image is seen from another side than the camera's optical axis says.
Frame `camera`: R takes head axes to camera axes. Frame `ray`: R_ray = Q R, the rotation as a camera
sees it that was turned, by the smallest rotation Q, to look at the centre of the head's box. What a
crop of the head shows is R_ray: cropping, shifting and scaling leave it alone, and they lose what R
would need. docs/conventions.md has the image.

Intrinsics are fx, fy, cx, cy in pixels, 0 at the outer edge of the first pixel (as in boxes);
zeros stand for a camera that is not known.
"""

from collections.abc import Sequence

import numpy as np

from mtnet_jax.errors import BadInput


def rays(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) in camera axes, from the eye through points (..., 2) in pixels."""
    focal, middle = np.asarray(intrinsics)[:2], np.asarray(intrinsics)[2:]
    lateral = (np.asarray(points, np.float64) - middle) / focal
    ray = np.concatenate([lateral, np.ones_like(lateral[..., :1])], axis=-1)
    return ray / np.linalg.norm(ray, axis=-1, keepdims=True)


def turns_to_axis(ray: np.ndarray) -> np.ndarray:
    """Q (..., 3, 3): the smallest rotation that turns a unit ray (..., 3), z > -1, onto +z."""
    x, y, z = ray[..., 0], ray[..., 1], ray[..., 2]
    # Rodrigues about ray x (0, 0, 1) = (y, -x, 0), of sine |(x, y)| and cosine z.
    k = 1 / (1 + z)
    rows = [[1 - k * x * x, -k * x * y, -x], [-k * x * y, 1 - k * y * y, -y], [x, y, z]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def camera_to_ray(rotations: np.ndarray, boxes: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """R_ray (n, 3, 3) of rotations in camera axes (n, 3, 3), boxes (n, 4) xyxy pixels."""
    return _turns(boxes, intrinsics) @ rotations


def ray_to_camera(rotations: np.ndarray, boxes: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Rotations in camera axes (n, 3, 3) of R_ray (n, 3, 3), boxes (n, 4) xyxy pixels."""
    return np.swapaxes(_turns(boxes, intrinsics), -1, -2) @ rotations


def intrinsics_of_matrix(matrix: np.ndarray) -> np.ndarray:
    """fx, fy, cx, cy of a calibration's camera matrix (3, 3), which calls the centre of the first
    pixel 0, as most do; skew and distortion are left out."""
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5])


def check_intrinsics(intrinsics: Sequence[float]) -> None:
    """Raises BadInput unless they are fx, fy, cx, cy, finite, focal lengths positive."""
    try:
        values = np.asarray(intrinsics, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (4,) or not np.isfinite(values).all() or not (values[:2] > 0).all():
        raise BadInput(
            f"Intrinsics {intrinsics}: they must be fx, fy, cx, cy, four numbers of pixels, the "
            "focal lengths fx and fy positive."
        )


def intrinsics_of_view(degrees: float, width: float, height: float) -> np.ndarray:
    """fx, fy, cx, cy of a camera whose longer side spans `degrees`, its axis in the middle.

    Raises:
      ValueError: not an angle between 0 and 180 degrees.
    """
    if not 0 < degrees < 180:
        raise BadInput(f"A field of view of {degrees} degrees: it must be between 0 and 180.")
    focal = max(width, height) / 2 / np.tan(np.deg2rad(degrees) / 2)
    return np.array([focal, focal, width / 2, height / 2])


def _turns(boxes: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return turns_to_axis(rays((boxes[:, :2] + boxes[:, 2:]) / 2, intrinsics))
