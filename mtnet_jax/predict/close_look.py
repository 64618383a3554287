"""Small heads, looked at once more from close by.

An image larger than the input is scaled down into it, and a head there shows fewer pixels than it
has; and the network reads small heads worse than large ones even where it has. A further look packs
crops round such heads side by side into one input, as packed training inputs are: up to nine in 448
pixels at the size that is read best, more of them smaller, and beyond `MOST` in as many inputs as
it takes. Squares that are left over show heads once more, mirrored. What these looks say of box and
rotation counts more than what was said before, in proportion to the size of the head.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mtnet_jax.boxes import iou_xyxy, longer_side_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.predict.placing import Found, View
from mtnet_jax.predict.second_look import look_in_inputs, merge
from mtnet_jax.rotations import nearest_rotation

SQUARE = 149  # pixels of the input, side of the square that shows a head: a third of 448
HEAD = 0.67  # longer side of the head in it, in parts of the square's
GAIN = 1.5  # heads that it shows so many times larger, at least, are looked at again
MOST = 49  # heads in an input: with more, which a look hardly has room for, many are not found
SAME_IOU = 0.4  # a head in the square is the one of the first look if the two overlap by more

# Number of a head -> (box (4,), rotation (3, 3)) of each further look that found it.
Seen = dict[int, list[tuple[np.ndarray, np.ndarray]]]


class Square(NamedTuple):
    """A head of an image that is looked at again."""

    head: int
    view: View


def with_close_looks(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    found: Sequence[Found],
    *,
    size: int,
    iou_threshold: float,
) -> list[Found]:
    """What was found in images, small heads with what looks from close by say of them.

    Args:
      detect, images: see `second_look.look_again`.
      found: heads of each so far, in pixels of the image.
      size: side of the network's input.
      iou_threshold: of two heads that are one.
    """
    of_images = {
        i: inputs
        for i, image in enumerate(images)
        if (inputs := close_inputs(found[i], image.shape, size))
    }
    views = {i: [[each.view for each in of] for of in inputs] for i, inputs in of_images.items()}
    seen = look_in_inputs(detect, images, views, size)
    return [
        _join(
            heads,
            list(itertools.chain(*of_images[i])),
            seen[i],
            images[i].shape,
            size,
            iou_threshold,
        )
        if i in seen
        else heads
        for i, heads in enumerate(found)
    ]


def close_inputs(found: Found, shape: tuple[int, ...], size: int) -> list[list[Square]]:
    """The heads that are looked at again, each in its square of an input; in each input first those
    that are not mirrored.

    Args:
      found: heads so far, in pixels of the image.
      shape: of the image.
      size: side of the input.

    Returns:
      The squares of each input.
    """
    extents = _pixels_shown(found, shape, size)
    sure = np.flatnonzero(found["scores"] >= FOUND_SCORE)
    again = sure[np.argsort(extents[sure], kind="stable")]
    while len(again) and extents[again[-1]] * GAIN > HEAD * _side(len(again), size):
        again = again[:-1]  # without the largest, the others may be shown larger
    side = _side(len(again), size)
    groups = np.array_split(np.sort(again), math.ceil(len(again) / MOST)) if len(again) else []
    return [_squares(found["boxes"], group.tolist(), side, size) for group in groups]


def _squares(boxes: np.ndarray, heads: list[int], side: int, size: int) -> list[Square]:
    across = size // side
    shown = [(head, mirrored) for mirrored in (False, True) for head in heads]
    return [
        Square(head, close_view(boxes[head], side, *divmod(number, across), mirrored))
        for number, (head, mirrored) in enumerate(shown[: across**2])
    ]


def _pixels_shown(found: Found, shape: tuple[int, ...], size: int) -> np.ndarray:
    """(m,) pixels of the input that the longer side of each head had so far: in the first look, or
    in a tile, if it shows more. (Looks from farther away show large heads smaller on purpose.)"""
    scales = np.maximum(found["scales"], size / max(shape[:2]))
    return scales * longer_side_xyxy(found["boxes"])


def _side(count: int, size: int) -> int:
    """Pixels of the side of squares, so many in as few inputs as may be."""
    in_one = math.ceil(count / math.ceil(count / MOST)) if count else 0
    return size // max(size // SQUARE, math.ceil(math.sqrt(in_one)), 1)


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


def _refined(near: Found, seen: Seen, sizes: np.ndarray) -> Found:
    """Heads with the means of all looks: so far, weighted by their sizes (m,) in those of the
    further looks, which have weight 1."""
    refined = {**near, "boxes": near["boxes"].copy(), "rotations": near["rotations"].copy()}
    for head, looks in seen.items():
        first = sizes[head]
        boxes, rotations = (sum(parts) for parts in zip(*looks, strict=True))
        refined["boxes"][head] = (first * near["boxes"][head] + boxes) / (first + len(looks))
        refined["rotations"][head] = first * near["rotations"][head] + rotations
    numbers = list(seen)  # all at once: an SVD of a matrix takes longer to call than to compute
    refined["rotations"][numbers] = nearest_rotation(refined["rotations"][numbers])
    return refined


def _join(
    near: Found,
    squares: list[Square],
    shown: list[Found],
    shape: tuple[int, ...],
    size: int,
    iou_threshold: float,
) -> Found:
    """Heads so far, small ones with what their squares show of them."""
    seen: Seen = defaultdict(list)
    for (head, _), there in zip(squares, shown, strict=True):
        best = _same_head(near["boxes"][head], there)
        if best is not None:
            seen[head].append((there["boxes"][best], there["rotations"][best]))
    sizes = _pixels_shown(near, shape, size) / (HEAD * squares[0].view.side)
    return merge([_refined(near, seen, sizes)], iou_threshold)
