"""A window on the screen: frames as they come, or one image after another."""

import os
import sys

import cv2
import numpy as np

from mtnet_jax.errors import Unavailable

TITLE = "mtnet: q or Esc ends"
_LOOK_AGAIN = 50  # milliseconds, after which a window that was closed is noticed


class Window:
    """Opens with the first image; ends with q, Esc or its closing.

    Raises:
      Unavailable: there is no screen.
    """

    def __init__(self) -> None:
        _check_screen()

    def show(self, image: np.ndarray, *, wait: bool = False) -> bool:
        """Shows an RGB image (H, W, 3) uint8; with `wait`, until a key is pressed.

        Returns:
          Whether the user wants to see more.
        """
        cv2.imshow(TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(_LOOK_AGAIN if wait else 1)
            if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key >= 0 or not wait:
                return key & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        cv2.destroyAllWindows()


def _check_screen() -> None:
    linux = sys.platform.startswith("linux")
    if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise Unavailable(
            "No screen for a window: write files instead, with --out DIR and without --show."
        )
