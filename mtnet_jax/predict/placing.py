"""Images into the network's input, and what is found there back into the images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads

# Heads of one image: {"boxes" (m, 4) xyxy pixels of the image, "scores" (m,), "labels" (m,),
# "rotations" (m, 3, 3), "scales" (m,) pixels of the input that a pixel of the image had in the look
# that found the head} by falling score.
Found = dict[str, np.ndarray]


class View(NamedTuple):
    """A square of the network's input that shows an image, or a part of it."""

    matrix: np.ndarray  # (2, 3) from the image to the square, before it is mirrored and turned
    side: int  # of the square, in pixels
    left: int  # where it lies in the input
    top: int
    mirrored: bool = False  # left and right within the square
    quarters: int = 0  # of a circle, by which the square is turned clockwise

    @property
    def to_input(self) -> np.ndarray:
        """The map (2, 3) from the image to the input."""
        matrix = self.matrix
        if self.mirrored:
            matrix = geometry.compose(matrix, geometry.mirror_map(self.side))
        turn = geometry.quarter_turn_map(self.side, self.side, self.quarters)
        matrix = geometry.compose(matrix, turn)
        return geometry.compose(matrix, geometry.shift_map(self.left, self.top))


def chosen(found: Found, which: np.ndarray) -> Found:
    """The heads that a mask (m,) or numbers choose."""
    return {name: values[which] for name, values in found.items()}


def letterboxed(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 as an input (size, size, 3), and the map from image to input."""
    matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
    return geometry.map_image(image, matrix, size), matrix


def input_of_views(views: Sequence[tuple[np.ndarray, View]], size: int) -> np.ndarray:
    """An input (size, size, 3) uint8 that shows several images, or parts of one; else grey.

    Args:
      views: (image (H, W, 3) uint8, how it is shown) each.
      size: side of the input.
    """
    network_input = np.full((size, size, 3), geometry.BORDER_GREY, np.uint8)
    for image, view in views:
        square = geometry.map_image(*shown_part(image, view), view.side)
        rows, columns = slice(view.top, view.top + view.side), slice(view.left, None)
        square = square[:, ::-1] if view.mirrored else square
        network_input[rows, columns][:, : view.side] = np.rot90(square, -view.quarters)
    return network_input


def shown_part(image: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image that a view shows, with a margin, and the map (2, 3) from it to the
    square: what lies outside need not be scaled down. `view.matrix` must not turn the image."""
    margin = 2 / min(geometry.scale_of(view.matrix), 1.0)
    back = geometry.invert(view.matrix)
    first, last = back[:, 2] - margin, back @ (view.side, view.side, 1.0) + margin
    left, top = np.floor(np.maximum(first, 0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(last, image.shape[1::-1])).astype(int).tolist()
    from_part = geometry.compose(geometry.shift_map(left, top), view.matrix)
    return image[top:bottom, left:right], from_part


def heads_in_image(heads: Heads, row: int, matrix: np.ndarray, shape: tuple[int, ...]) -> Found:
    """One image's heads, moved back from the network's input into the image.

    Args:
      heads: of a batch, as NumPy arrays.
      row: which image of the batch.
      matrix: the map that made the input from the image.
      shape: of the image, height first. Boxes are clipped to it, and heads of which nothing is
        left (they lie in the grey beside the image) are left out.
    """
    return _back(heads, row, heads.valid[row], matrix, shape)


def heads_in_view(heads: Heads, row: int, view: View, shape: tuple[int, ...]) -> Found:
    """As `heads_in_image`, of an input in which the image is seen in one of several squares: heads
    whose middle lies in it."""
    boxes = heads.boxes[row]
    place = (boxes[:, :2] + boxes[:, 2:]) / 2 - (view.left, view.top)
    inside = ((place >= 0) & (place < view.side)).all(axis=1)
    return _back(heads, row, heads.valid[row] & inside, view.to_input, shape)


def _back(
    heads: Heads, row: int, which: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]
) -> Found:
    height, width = shape[:2]
    back = geometry.invert(matrix)
    boxes = geometry.map_boxes(heads.boxes[row][which], back)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    scale = geometry.scale_of(matrix)
    return {
        "boxes": boxes[shown],
        "scores": heads.scores[row][which][shown],
        "labels": heads.labels[row][which][shown],
        "rotations": geometry.map_rotations(heads.rotations[row][which][shown], back),
        "scales": np.full(np.count_nonzero(shown), scale, np.float32),
    }
