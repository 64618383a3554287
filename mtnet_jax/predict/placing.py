"""Images into the network's input, and what is found there back into the images."""

import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads


def letterboxed(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 as an input (size, size, 3), and the map from image to input."""
    matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
    return geometry.map_image(image, matrix, size), matrix


def heads_in_image(heads: Heads, row: int, matrix: np.ndarray, shape: tuple[int, ...]) -> dict:
    """One image's heads, moved back from the network's input into the image.

    Args:
      heads: of a batch, as NumPy arrays.
      row: which image of the batch.
      matrix: the map that made the input from the image (a letterbox: no turn, no mirroring).
      shape: of the image, height first. Boxes are clipped to it, and heads of which nothing is
        left (they lie in the grey beside the image) are left out.

    Returns:
      {"boxes" (m, 4) xyxy pixels of the image, "scores" (m,), "labels" (m,),
      "rotations" (m, 3, 3)} by falling score.
    """
    height, width = shape[:2]
    valid = heads.valid[row]
    boxes = geometry.map_boxes(heads.boxes[row][valid], geometry.invert(matrix))
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return {
        "boxes": boxes[shown],
        "scores": heads.scores[row][valid][shown],
        "labels": heads.labels[row][valid][shown],
        "rotations": heads.rotations[row][valid][shown],
    }
