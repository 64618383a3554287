"""Small heads, looked at once more from close by.

An image larger than the input is scaled down into it, and a head there shows fewer pixels than it
has; and the network reads small heads worse than large ones even where it has. A second look packs
crops round such heads side by side into inputs, as packed training inputs are, each head at the
size that is read best: nine in an input of 448 pixels. Squares that are left over show heads once
more, mirrored. What these looks say of box and rotation counts more than the first one, in
proportion to the size of the head.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.predict.placing import Found, View, heads_in_view, input_of_views
from mtnet_jax.predict.tiles import merge
from mtnet_jax.rotations import nearest_rotation

# Pixels of the input.
SQUARE = 149  # side of the square that shows a head: a third of 448
HEAD = 100  # longer side of the head in it
SMALL = 64  # heads of a longer side below this in the first look are looked at again
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
    """What was found in images, small heads with what a second look says of them.

    Args:
      detect: inputs (k, size, size, 3) uint8, k no more than there are images -> heads in them.
      images: (H, W, 3) uint8 RGB each.
      found: heads of the first look at each, in pixels of the image.
      size: side of the network's input.
      iou_threshold: of two heads that are one after the second look.
    """
    # An image has inputs of its own, so what is said of it does not depend on the others.
    inputs = [
        (i, squares)
        for i, image in enumerate(images)
        for squares in _packed(found[i], image.shape, size)
    ]
    seen: list[Seen] = [defaultdict(list) for _ in images]
    for start in range(0, len(inputs), len(images)):
        some = inputs[start : start + len(images)]
        shown = [[(images[i], square.view) for square in squares] for i, squares in some]
        heads = detect(np.stack([input_of_views(views, size) for views in shown]))
        for row, (i, squares) in enumerate(some):
            for head, view in squares:
                there = heads_in_view(heads, row, view, images[i].shape)
                best = _same_head(found[i]["boxes"][head], there)
                if best is not None:
                    seen[i][head].append((there["boxes"][best], there["rotations"][best]))
    return [
        _refined(heads, of, size / max(image.shape[:2]), iou_threshold) if of else heads
        for image, heads, of in zip(images, found, seen, strict=True)
    ]


def worth_it(near: Found, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Which heads (k,) of the first look are looked at again, in an image of this shape."""
    small = size / max(shape[:2]) * _extents(near["boxes"]) < SMALL
    return np.flatnonzero(small & (near["scores"] >= FOUND_SCORE))


def close_view(box: np.ndarray, size: int, number: int, mirrored: bool = False) -> View:
    """The square that shows the head of a box (4,), the `number`-th of an input of `size`."""
    side = min(SQUARE, size)
    row, column = divmod(number, size // side)
    scale = HEAD / SQUARE * side / max(float(_extents(box[None])[0]), 1.0)
    centre = (box[:2] + box[2:]) / 2
    matrix = geometry.similarity_map(scale, 0.0, 1.0, centre, np.full(2, side / 2))
    return View(matrix, side, column * side, row * side, mirrored)


def _packed(near: Found, shape: tuple[int, ...], size: int) -> list[list[Square]]:
    """The squares of each input that shows heads of an image again."""
    heads = worth_it(near, shape, size).tolist()
    fit = (size // min(SQUARE, size)) ** 2
    inputs = []
    for start in range(0, len(heads), fit):
        some = heads[start : start + fit]
        shown = [(head, mirrored) for mirrored in (False, True) for head in some]
        inputs.append(
            [
                Square(head, close_view(near["boxes"][head], size, number, mirrored))
                for number, (head, mirrored) in enumerate(shown[:fit])
            ]
        )
    return inputs


def _same_head(box: np.ndarray, there: Found) -> int | None:
    """The surest head of a square that overlaps the box it was made for; None if there is none."""
    same = iou_xyxy(box, there["boxes"]) > SAME_IOU
    return int(np.argmax(same)) if same.any() else None  # scores fall: the first is the surest


def _refined(near: Found, seen: Seen, scale: float, iou_threshold: float) -> Found:
    """Heads with the weighted means of all looks, each once."""
    refined = {**near, "boxes": near["boxes"].copy(), "rotations": near["rotations"].copy()}
    for head, looks in seen.items():
        first = scale * _extents(near["boxes"][head][None])[0] / HEAD  # the others have weight 1
        boxes, rotations = (sum(parts) for parts in zip(*looks, strict=True))
        refined["boxes"][head] = (first * near["boxes"][head] + boxes) / (first + len(looks))
        refined["rotations"][head] = nearest_rotation(first * near["rotations"][head] + rotations)
    return merge([refined], iou_threshold)


def _extents(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
