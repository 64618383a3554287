"""Colours: of skin, hair and eyes, and the textures that carry them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.studio.assets import Assets, read_hair_texture, read_texture

# RGB from 0 to 1; the shares of people follow below.
HAIR_COLOURS = np.array(
    [
        [0.07, 0.06, 0.06],
        [0.17, 0.11, 0.08],
        [0.33, 0.21, 0.13],
        [0.52, 0.36, 0.22],
        [0.80, 0.64, 0.42],
        [0.52, 0.20, 0.10],
        [0.55, 0.55, 0.55],
        [0.88, 0.87, 0.85],
    ]
)
_HAIR_SHARES = [0.28, 0.22, 0.16, 0.1, 0.08, 0.05, 0.07, 0.04]
_EYE_HUES = (None, 105, 60, 18, 95)  # OpenCV's hue; None leaves the texture as it is


@dataclass(frozen=True)
class Look:
    """The colours of a person.

    Attributes:
      tint: (3,) multiplies the skin.
      hair_colour: (3,) uint8.
      skin_texture, eye_texture: names for `texture`.
      gloss: of the skin.
    """

    tint: np.ndarray
    hair_colour: np.ndarray
    skin_texture: tuple
    eye_texture: tuple
    gloss: float

    def skin_colours(self, scalp: np.ndarray) -> np.ndarray:
        """(n, 3) uint8 to multiply the skin texture by; `scalp` (n,) is 1 under hair, else 0."""
        mixed = 255 * self.tint * (1 - scalp[:, None]) + 0.8 * self.hair_colour * scalp[:, None]
        return mixed.astype(np.uint8)


def random_look(assets: Assets, rng: np.random.Generator) -> Look:
    """Draws the colours of a person."""
    tone = rng.choice(len(HAIR_COLOURS), p=_HAIR_SHARES)
    hair = HAIR_COLOURS[tone]
    hair = np.clip(hair * rng.uniform(0.8, 1.2) + rng.normal(0, 0.015, 3), 0, 1)
    brightness = rng.uniform(0.72, 1.0)
    tint = np.clip(brightness * (1 + rng.normal(0, 0.03, 3)), 0, 1)
    skin = assets.skins[rng.integers(len(assets.skins))]
    eye = assets.eye_textures[rng.integers(len(assets.eye_textures))]
    hue = _EYE_HUES[rng.choice(len(_EYE_HUES), p=[0.5, 0.2, 0.1, 0.1, 0.1])]
    return Look(
        tint=tint,
        hair_colour=(hair * 255).astype(np.uint8),
        skin_texture=("skin", skin),
        eye_texture=("eye", eye, hue),
        gloss=float(rng.uniform(0.05, 0.35)),
    )


@functools.lru_cache(maxsize=64)
def texture(name: tuple) -> np.ndarray:
    """(H, W, 3 or 4) uint8 of a name that a part carries."""
    kind, path, *rest = name
    painters: dict[str, Callable[..., np.ndarray]] = {"skin": _skin, "hair": _hair, "eye": _eye}
    return painters[kind](path, *rest)


@functools.cache
def mean_colour(name: tuple) -> np.ndarray:
    """(3,) RGB from 0 to 1: the mean of a texture."""
    return texture(name)[..., :3].mean(axis=(0, 1)) / 255


def _skin(path: Path) -> np.ndarray:
    return read_texture(path)


def _hair(path: Path) -> np.ndarray:
    """Grey hair of a middle brightness: the colour comes from the person."""
    image = read_hair_texture(path)
    grey = image[..., :3].astype(np.float32).mean(axis=2)
    opaque = image[..., 3] > 128
    # Strands keep their contrast round a common level.
    level, spread = grey[opaque].mean(), grey[opaque].std() + 1
    grey = np.clip(165 + (grey - level) * min(45 / spread, 2.0), 30, 255)
    return np.dstack([grey, grey, grey, image[..., 3]]).astype(np.uint8)


def _eye(path: Path, hue: int | None) -> np.ndarray:
    image = read_texture(path)[..., :3]
    if hue is None:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    iris = (hsv[..., 1] > 110) & (hsv[..., 2] > 25)
    hsv[..., 0][iris] = hue
    hsv[..., 1][iris] = (hsv[..., 1][iris] * 0.55).astype(np.uint8)
    hsv[..., 2][iris] = np.clip(hsv[..., 2][iris] * 1.9, 0, 255).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
