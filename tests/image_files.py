"""Images and image files for tests, and what commands left in a folder."""

from pathlib import Path

import numpy as np

from mtnet_jax.outputs import MADE
from mtnet_jax.predict.files import encode_image


def noise_image(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an RGB image; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image, path.suffix))


def written(folder: Path) -> list[str]:
    """Names in a folder, sorted, without the notes of what was made."""
    return sorted(path.name for path in folder.iterdir() if path.name != MADE)
