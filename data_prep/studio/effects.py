"""What a camera does to an image: focus, motion, light, colour, noise, few pixels.

Nothing here moves a pixel by more than its blur, so the truth stays true.
"""

import cv2
import numpy as np

from mtnet_jax.data.augment import gaussian_noise

_METERED = 118.0  # of 255: the mean that automatic exposure aims at


def random_effects(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image as some camera would have taken it.

    Args:
      image: (H, W, 3) uint8.
      rng: source of the draw.

    Returns:
      (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8) * width / 400)
    if rng.random() < 0.12:
        image = _motion_blur(image, rng.uniform(2, 9) * width / 400, rng.uniform(0, 180))
    if rng.random() < 0.25:
        share = rng.uniform(0.3, 0.9)
        small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    # Colour cast, exposure and contrast, as a table for the 256 values of each channel.
    cast, exposure = 1 + rng.normal(0, 0.06, 3), _metered_gain(image) * 2 ** rng.normal(0, 0.3)
    table = np.clip(np.arange(256)[:, None] * (cast * exposure / 255), 0, 1)
    table = (255 * table ** np.exp(rng.normal(0, 0.15))).astype(np.float32)
    image = cv2.LUT(image, table[None])
    grey = image.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.03 else np.clip(rng.normal(0.9, 0.2), 0.2, 1.4)
    image = grey + saturation * (image - grey)
    if rng.random() < 0.2:  # the corners of the image get less light
        y, x = np.mgrid[0:height, 0:width]
        far = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)[..., None]
        image *= 1 - rng.uniform(0.2, 0.9) * far
    if rng.random() < 0.6:
        image += gaussian_noise(rng, image.shape, rng.uniform(1, 9))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _metered_gain(image: np.ndarray) -> float:
    """What a camera's automatic exposure multiplies an image by: most of the way to _METERED."""
    # The middle counts most: that is where people put what they photograph.
    height, width = image.shape[:2]
    middle = image[height // 5 : -height // 5, width // 5 : -width // 5]
    brightness = 0.5 * (image.mean() + middle.mean())
    return float(np.clip(_METERED / max(brightness, 1.0), 0.6, 3.0) ** 0.8)


def _motion_blur(image: np.ndarray, length: float, degrees: float) -> np.ndarray:
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    half = length / 2 * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    start, end = (size - 1) / 2 - half, (size - 1) / 2 + half
    shift = 4
    one, other = ([round(v * 2**shift) for v in point] for point in (start, end))
    cv2.line(kernel, one, other, 1.0, 1, cv2.LINE_AA, shift)
    return cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1e-6))
