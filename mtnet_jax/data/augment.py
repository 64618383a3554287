"""Random changes of training images: place, size, turn and flip as one map, then colour."""

import math
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.errors import BadInput


class AugmentOptions(NamedTuple):
    """How far images are changed. Zeros (and scale 1, 1) change nothing."""

    flip: float = 0.5  # probability
    turn: float = 15.0  # degrees either way, uniform
    scale_min: float = 0.7  # of the letterboxed size, log-uniform between the two
    scale_max: float = 1.5
    shift: float = 0.2  # of the input's side either way, uniform; beyond a scale of 1 this crops
    brightness: float = 0.3  # factor 1 +- this, uniform
    contrast: float = 0.3  # factor 1 +- this about the mean
    saturation: float = 0.4  # factor 1 +- this towards grey
    hue: float = 0.03  # of the full circle either way
    grey: float = 0.05  # probability of a grey image
    blur: float = 0.1  # probability of a Gaussian blur of 0.5 to 1.5 pixels
    noise: float = 4.0  # standard deviation at most, in grey levels of 255
    coarse: float = 0.0  # probability of fewer pixels: down to a part of 1/1.5 to 1/3, and up again
    jpeg: float = 0.0  # probability of being compressed once more, quality 25 to 85
    light: float = 0.0  # probability of light that falls unevenly, hard or soft, down to the dark
    lying: float = 0.0  # probability of a turn by any angle, in place of `turn`


_SHARES = (
    *("flip", "shift", "brightness", "contrast", "saturation", "hue", "grey", "blur"),
    *("coarse", "jpeg", "light", "lying"),
)

# The normal distribution in 256 values of equal probability (mid-points), of deviation 1.
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
_NORMAL /= _NORMAL.std()


def check_options(options: AugmentOptions) -> None:
    """Raises ValueError for an option out of its range, by its name in a configuration."""
    faults = {
        name: "must be from 0 to 1" for name in _SHARES if not 0 <= getattr(options, name) <= 1
    }
    faults |= {
        name: "must not be negative"
        for name in ("turn", "noise")
        if not getattr(options, name) >= 0
    }
    if not 0 < options.scale_min <= options.scale_max:
        faults["scale_min"] = f"must be above 0 and at most scale_max, {options.scale_max}"
    for name, fault in faults.items():
        raise BadInput(f"config.augment.{name} is {getattr(options, name)}: it {fault}.")


def random_turn(rng: np.random.Generator, options: AugmentOptions) -> float:
    """Degrees by which an image is turned: mostly a little, now and then by any angle."""
    lies = options.lying and rng.random() < options.lying
    most = 180.0 if lies else options.turn
    return rng.uniform(-most, most)


def random_map(rng: np.random.Generator, size: int, options: AugmentOptions) -> np.ndarray:
    """A random map (2, 3) of the square input of `size` to itself; it follows the letterbox."""
    flip = -1.0 if rng.random() < options.flip else 1.0
    scale = np.exp(rng.uniform(np.log(options.scale_min), np.log(options.scale_max)))
    turn = random_turn(rng, options)
    dx, dy = rng.uniform(-options.shift, options.shift, 2) * size
    # Flip, scale and turn are about the middle of the input, which then moves by (dx, dy).
    middle = np.full(2, size / 2)
    return geometry.similarity_map(scale, turn, flip, middle, middle + [dx, dy])


def change_colour(
    rng: np.random.Generator, image: np.ndarray, options: AugmentOptions
) -> np.ndarray:
    """Random colour, blur and noise of a (H, W, 3) uint8 RGB image."""
    brightness = 1 + rng.uniform(-options.brightness, options.brightness)
    contrast = 1 + rng.uniform(-options.contrast, options.contrast)
    saturation = 1 + rng.uniform(-options.saturation, options.saturation)
    if rng.random() < options.grey:
        saturation = 0.0
    hue = rng.uniform(-options.hue, options.hue) * 2 * np.pi
    # All four are linear in RGB: one 3x3 matrix and an offset, one pass over the image.
    colour = _hue_saturation(hue, saturation) * (brightness * contrast)
    offset = (1 - contrast) * brightness * float(np.mean(cv2.mean(image)[:3]))
    image = cv2.transform(image, np.column_stack([colour, np.full(3, offset)]))
    if options.light and rng.random() < options.light:
        image = light_unevenly(rng, image)
    if rng.random() < options.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
    if options.coarse and rng.random() < options.coarse:
        height, width = image.shape[:2]
        part = rng.uniform(1.5, 3.0)
        small = (max(round(width / part), 1), max(round(height / part), 1))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if options.noise > 0:
        level = rng.uniform(0, options.noise)
        image = cv2.add(image, gaussian_noise(rng, image.shape, level), dtype=cv2.CV_8U)
    if options.jpeg and rng.random() < options.jpeg:
        quality = int(rng.integers(25, 86))
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        # Written and read with the channels in one order: which one colour is does not matter much.
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return image


def light_unevenly(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A (H, W, 3) uint8 image, lit on one side of a line and darker on the other.

    The line lies anywhere, in any direction; the passage is from as good as sharp, as the edge of
    a shadow, to as wide as the image. Where the line is beyond the image, all of it is dark, or
    bright.
    """
    height, width = image.shape[:2]
    bright, dark = rng.uniform(0.7, 1.3), np.exp(rng.uniform(np.log(0.15), np.log(0.8)))
    direction, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
    passage = np.exp(rng.uniform(np.log(0.02), np.log(0.5)))  # in parts of the longer side
    longer = max(height, width)
    across = np.cos(direction) * (np.arange(width, dtype=np.float32) - width / 2) / longer
    down = np.sin(direction) * (np.arange(height, dtype=np.float32) - height / 2) / longer
    beyond = (across[None] + down[:, None] - place) / passage
    factor = bright + (dark - bright) * (0.5 + 0.5 * np.tanh(2 * beyond))
    return cv2.multiply(image, cv2.merge([factor.astype(np.float32)] * 3), dtype=cv2.CV_8U)


def gaussian_noise(rng: np.random.Generator, shape: tuple[int, ...], level: float) -> np.ndarray:
    """Gaussian noise, int16: a random byte for each value, looked up in a table of 256 values.

    That takes a tenth of the time of normally distributed floats, which would cost more than all
    the rest of a record.
    """
    count = math.prod(shape)
    fast = np.random.Generator(np.random.SFC64(int(rng.integers(2**63))))
    words = fast.integers(0, 2**64, -(-count // 8), np.uint64)
    # Rounded, not cut off: cutting off would lose most of a weak noise.
    table = np.rint(level * _NORMAL).astype(np.int16)
    return cv2.LUT(words.view(np.uint8)[:count].reshape(shape), table)


def _hue_saturation(hue: float, saturation: float) -> np.ndarray:
    """RGB matrix: turns colours about the grey axis by `hue` radians, scales their chroma."""
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    around = np.cos(hue) * (np.eye(3) - grey) + np.sin(hue) * cross
    return grey + saturation * around
