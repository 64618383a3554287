"""Small heads, looked at once more from close by.

An image larger than the input is scaled down into it, and a head there shows fewer pixels than it
has; and the network reads small heads worse than large ones even where it has. A second look packs
crops round such heads side by side into one input, as packed training inputs are: up to nine in 448
pixels at the size that is read best, more of them smaller, so that the time does not grow with
their number. Squares that are left over show heads once more, mirrored. What these looks say of box
and rotation counts more than the first one, in proportion to the size of the head.
"""

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from mtnet_jax.boxes import iou_xyxy, longer_side_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.predict.placing import Found, View
from mtnet_jax.predict.second_look import SecondLook, merge
from mtnet_jax.rotations import nearest_rotation

SQUARE = 149  # pixels of the input, side of the square that shows a head: a third of 448
HEAD = 0.67  # longer side of the head in it, in parts of the square's
GAIN = 1.5  # heads that it shows so many times larger, at least, are looked at again
SAME_IOU = 0.4  # a head in the square is the one of the first look if the two overlap by more

# Number of a head -> (box (4,), rotation (3, 3)) of each further look that found it.
Seen = dict[int, list[tuple[np.ndarray, np.ndarray]]]


class Square(NamedTuple):
    """A head of an image that is looked at again."""

    head: int
    view: View


def close_squares(
    boxes: np.ndarray, scores: np.ndarray, shape: tuple[int, ...], size: int
) -> list[Square]:
    """The heads that are looked at again, each in its square of one input; first those that are
    not mirrored.

    Args:
      boxes: (m, 4) of the first look, in pixels of the image.
      scores: (m,).
      shape: of the image.
      size: side of the input.
    """
    extents = size / max(shape[:2]) * longer_side_xyxy(boxes)
    sure = np.flatnonzero(scores >= FOUND_SCORE)
    again = sure[np.argsort(extents[sure], kind="stable")]
    while len(again) and extents[again[-1]] * GAIN > HEAD * _side(len(again), size):
        again = again[:-1]  # without the largest, the others may be shown larger
    side = _side(len(again), size)
    across = size // side
    again = np.sort(again)
    shown = [(head, mirrored) for mirrored in (False, True) for head in again.tolist()]
    return [
        Square(head, close_view(boxes[head], side, *divmod(number, across), mirrored))
        for number, (head, mirrored) in enumerate(shown[: across**2])
    ]


def _side(count: int, size: int) -> int:
    """Pixels of the side of so many squares in an input."""
    return size // max(size // SQUARE, math.ceil(math.sqrt(count)), 1)


def close_view(box: np.ndarray, side: int, row: int, column: int, mirrored: bool = False) -> View:
    """The square of `side` pixels that shows the head of a box (4,) in its middle."""
    scale = HEAD * side / max(float(longer_side_xyxy(box)), 1.0)
    centre = (box[:2] + box[2:]) / 2
    matrix = geometry.similarity_map(scale, 0.0, 1.0, centre, np.full(2, side / 2))
    return View(matrix, side, column * side, row * side, mirrored)


def _same_head(box: np.ndarray, there: Found) -> int | None:
    """The surest head of a square that overlaps the box it was made for; None if there is none."""
    same = iou_xyxy(box, there["boxes"]) > SAME_IOU
    return int(np.argmax(same)) if same.any() else None  # scores fall: the first is the surest


def _refined(near: Found, seen: Seen, scale: float) -> Found:
    """Heads with the means of all looks, the first weighted by `scale` times the head's size."""
    refined = {**near, "boxes": near["boxes"].copy(), "rotations": near["rotations"].copy()}
    for head, looks in seen.items():
        first = scale * longer_side_xyxy(near["boxes"][head])  # the others have weight 1
        boxes, rotations = (sum(parts) for parts in zip(*looks, strict=True))
        refined["boxes"][head] = (first * near["boxes"][head] + boxes) / (first + len(looks))
        refined["rotations"][head] = first * near["rotations"][head] + rotations
    numbers = list(seen)  # all at once: an SVD of a matrix takes longer to call than to compute
    refined["rotations"][numbers] = nearest_rotation(refined["rotations"][numbers])
    return refined


def _views(near: Found, shape: tuple[int, ...], size: int) -> list[View]:
    return [square.view for square in close_squares(near["boxes"], near["scores"], shape, size)]


def _join(
    near: Found, shown: list[Found], shape: tuple[int, ...], size: int, iou_threshold: float
) -> Found:
    """Heads of the first look, small ones with what the second look says of them."""
    squares = close_squares(near["boxes"], near["scores"], shape, size)
    seen: Seen = defaultdict(list)
    for (head, _), there in zip(squares, shown, strict=True):
        best = _same_head(near["boxes"][head], there)
        if best is not None:
            seen[head].append((there["boxes"][best], there["rotations"][best]))
    # Pixels of a head in the first look for one that it has in the others.
    scale = size / max(shape[:2]) / (HEAD * squares[0].view.side)
    return merge([_refined(near, seen, scale)], iou_threshold)


CLOSE_LOOK = SecondLook(_views, _join)
