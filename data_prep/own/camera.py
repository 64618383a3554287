"""The camera that took own images, where it is known."""

from dataclasses import dataclass

import numpy as np

from mtnet_jax.camera import check_intrinsics, intrinsics_of_view
from mtnet_jax.errors import BadInput

# Of a side, that the axis of a camera may lie off the middle: less than for 4:3 or 5:4 turned.
_FAR = 0.1


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

    def note_of(self, size: tuple[int, int]) -> str:
        """What a report should say of posed images of a size (width, height); empty for nothing.

        Intrinsics are those of one size, as a sensor and its pixels are: of photographs that EXIF
        turns, of copies made smaller and of crops, rotations would be wrong by some degrees. Which
        size is meant is not known, so all are counted; cameras have their axis near the middle.
        """
        if self.intrinsics is None:
            return ""
        images = f"images of {size[0]}x{size[1]} pixels"
        _, _, *axis = self.intrinsics
        off = max(abs(at / side - 0.5) for at, side in zip(axis, size, strict=True))
        if off > _FAR:
            return (
                f"WARNING: --intrinsics are hardly those of {images}, whose middle lies far from "
                "cx, cy, and their rotations are wrong then: convert each size with its own"
            )
        return f"{images} with angles relative to --intrinsics, which are right for one size alone"


UNKNOWN = Camera()
