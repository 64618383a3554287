"""The camera that took own images, where it is known."""

from dataclasses import dataclass

import numpy as np

from mtnet_jax.camera import check_intrinsics, intrinsics_of_view
from mtnet_jax.errors import BadInput


@dataclass(frozen=True)
class Camera:
    """One camera for all images of a data set; without values it is not known.

    Attributes:
      fov: degrees that the longer side of an image spans, the camera's axis in the middle; or None.
      intrinsics: fx, fy, cx, cy in pixels, instead of `fov`, 0 at the outer edge of the first pixel
        of the image as a viewer shows it; or None.

    Raises:
      BadInput: both are given, or they are those of no camera.
    """

    fov: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None

    def __post_init__(self):
        if self.fov is not None and self.intrinsics is not None:
            raise BadInput("fov and intrinsics are two ways to name one camera: give one of them.")
        if self.fov is not None:
            intrinsics_of_view(self.fov, 1, 1)
        if self.intrinsics is not None:
            check_intrinsics(self.intrinsics)

    def of_image(self, size: tuple[int, int]) -> np.ndarray | None:
        """fx, fy, cx, cy (4,) of an image (width, height in pixels); None: not known."""
        if self.fov is not None:
            return intrinsics_of_view(self.fov, *size)
        return None if self.intrinsics is None else np.array(self.intrinsics)


UNKNOWN = Camera()
