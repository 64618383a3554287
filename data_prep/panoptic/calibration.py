"""HD cameras of the dome: from a point in centimetres to a pixel, with lens distortion.

x_camera = R X + t, in centimetres; x' = x / z, y' = y / z; with r2 = x'^2 + y'^2,

    x'' = x' (1 + k1 r2 + k2 r2^2 + k3 r2^3) + 2 p1 x' y' + p2 (r2 + 2 x'^2)
    y'' = y' (1 + k1 r2 + k2 r2^2 + k3 r2^3) + 2 p2 x' y' + p1 (r2 + 2 y'^2)

and K takes (x'', y'', 1) to pixels: the model of OpenCV. OpenCV counts from the middle of the first
pixel, boxes in this project from its outer edge, so half a pixel is added.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import rotation_faults

_HD_PANEL = 0
_HALF_PIXEL = 0.5
# Beyond this undistorted radius (x^2 + y^2)^(1/2) a ray is 84 degrees off the axis: no lens of the
# dome sees it, whatever its polynomial says there.
_LARGEST_RADIUS = 10.0


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera of a sequence.

    Attributes:
      name: "00_07", for messages.
      size: width and height in pixels.
      matrix: (3, 3) K.
      distortion: (5,) k1, k2, p1, p2, k3.
      rotation: (3, 3) dome to camera axes.
      translation: (3,) centimetres.
      radius_limit: the radius up to which the distortion keeps the order of points; beyond, the
        polynomial folds back and would put what nobody sees into the image.
    """

    name: str
    size: tuple[int, int]
    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    radius_limit: float

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the dome in camera axes; both in centimetres."""
        return points @ self.rotation.T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points that lie before the camera.

        Args:
          points: (n, 3) in camera axes, centimetres, z > 0. Those further off the axis than
            `radius_limit` are moved there along their radius: they stay out of the image.

        Returns:
          (n, 2) x, y in pixels from the outer edge of the first pixel.
        """
        plane = points[:, :2] / points[:, 2:]
        radius = np.linalg.norm(plane, axis=1, keepdims=True)
        plane = plane * np.minimum(1, self.radius_limit / np.maximum(radius, 1e-12))
        x, y = plane.T
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        distorted = np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
            ],
            axis=1,
        )
        return distorted @ self.matrix[:2, :2].T + self.matrix[:2, 2] + _HALF_PIXEL


def read_calibration(path: Path) -> dict[int, Camera]:
    """The HD cameras (panel 0) of a calibration file.

    Args:
      path: calibration_SEQUENCE.json.

    Returns:
      Number of the camera -> camera.

    Raises:
      ValueError: not JSON (cut short), no HD camera, or a camera whose numbers cannot be: of
        another shape, not finite, R not a rotation, K not a camera matrix.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON (cut short?): {error}") from error
    entries = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{path} has no 'cameras', each with its fields: is it a calibration?")
    cameras = {}
    for entry in entries:
        if entry.get("panel") == _HD_PANEL:
            cameras[entry.get("node")] = _camera(entry, path)
    if not cameras:
        raise BadInput(f"{path} has no camera of panel {_HD_PANEL} (HD): is it a calibration?")
    return cameras


def _camera(entry: dict, path: Path) -> Camera:
    name = entry.get("name", "?")

    def numbers(field: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            values = np.array(entry[field], np.float64).reshape(shape)
        except (KeyError, TypeError, ValueError):
            size = " x ".join(map(str, shape))
            raise BadInput(f"{path}, camera {name}: {field!r} must be {size} numbers") from None
        if not np.isfinite(values).all():
            raise BadInput(f"{path}, camera {name}: {field!r} is not finite")
        return values

    matrix, rotation = numbers("K", (3, 3)), numbers("R", (3, 3))
    if rotation_faults(rotation):
        raise BadInput(
            f"{path}, camera {name}: 'R' is not a rotation (orthonormal, determinant +1)"
        )
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or not (matrix[2] == [0, 0, 1]).all():
        raise BadInput(
            f"{path}, camera {name}: 'K' is no camera matrix (positive focal lengths, last row "
            "0 0 1)"
        )
    width, height = numbers("resolution", (2,))
    if min(width, height) < 1:
        raise BadInput(f"{path}, camera {name}: 'resolution' must be width and height in pixels")
    distortion = numbers("distCoef", (5,))
    return Camera(
        name,
        (int(width), int(height)),
        matrix,
        distortion,
        rotation,
        numbers("t", (3,)),
        _radius_limit(distortion),
    )


def _radius_limit(distortion: np.ndarray) -> float:
    """Where the radial polynomial r (1 + k1 r^2 + k2 r^4 + k3 r^6) stops growing with r."""
    k1, k2, _, _, k3 = distortion
    roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1])  # its derivative, in r^2
    real = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    return float(min(np.sqrt(real.min()) if len(real) else np.inf, _LARGEST_RADIUS))
