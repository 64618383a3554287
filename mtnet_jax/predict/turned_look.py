"""Large heads that lie, looked at once more from other sides.

A network that was trained on people who stand and sit takes every head for an upright one, and is
surest of a head that is. So where it is not very sure of a large head, a further look shows the
image as it is, turned to either side and upside down, and the surest of the four says how the head
lies.
"""

import numpy as np

from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.predict.far_look import LARGE, SMALLEST_FAR, extents, far_side, is_worth_it
from mtnet_jax.predict.placing import Found, View, chosen
from mtnet_jax.predict.second_look import SecondLook, merge

SURE = 0.998  # a large head of this score is upright
# Quarters of a circle, clockwise -> how sure a view turned by them must be, as it mostly is of an
# upright head. Those that stand on their head are rarer than those that lie.
TURNS = {1: 0.995, 2: 0.999, 3: 0.995}
# An upright head that overlaps one that lies by more is what the looks before took that one for:
# what they box of it is often beside it.
SAME_IOU = 0.2


def is_doubtful(found: Found, shape: tuple[int, ...], size: int) -> bool:
    """Whether there is no plain head, or a large one of which the network is not very sure."""
    large = size * extents(found, shape) > LARGE
    return is_worth_it(found, shape, size) and not (found["scores"][large] >= SURE).any()


def turned_views(shape: tuple[int, ...], size: int) -> list[View]:
    """Four views of an image of this shape in an input of `size` pixels: as it is, then `TURNS`."""
    side, half = far_side(size), size // 2
    matrix, margin = geometry.letterbox_map(shape[1], shape[0], side), (half - side) // 2
    return [
        View(matrix, side, half * (n % 2) + margin, half * (n // 2) + margin, quarters=quarters)
        for n, quarters in enumerate((0, *TURNS))
    ]


def _views(heads: Found, shape: tuple[int, ...], size: int) -> list[View]:
    return turned_views(shape, size) if is_doubtful(heads, shape, size) else []


def _join(
    heads: Found, seen: list[Found], shape: tuple[int, ...], size: int, iou_threshold: float
) -> Found:
    """The heads so far, large ones as the view says in which they are upright."""
    upright, *turned = seen
    surer = [
        _surer(each, least, upright, _are_large(each, shape, size), iou_threshold)
        for each, least in zip(turned, TURNS.values(), strict=True)
    ]
    lying = merge(surer, iou_threshold)
    overlap = iou_xyxy(heads["boxes"][:, None], lying["boxes"][None]).max(axis=1, initial=0.0)
    least = np.where(_are_large(heads, shape, size), SAME_IOU, iou_threshold)
    return merge([chosen(heads, overlap <= least), lying], iou_threshold)


def _are_large(heads: Found, shape: tuple[int, ...], size: int) -> np.ndarray:
    return size * extents(heads, shape) >= SMALLEST_FAR


def _surer(
    heads: Found, least: float, upright: Found, large: np.ndarray, iou_threshold: float
) -> Found:
    """Large heads of a turned view that it is surer of than `least` and than the view as it is."""
    same = iou_xyxy(heads["boxes"][:, None], upright["boxes"][None]) > iou_threshold
    scores = np.where(same, upright["scores"][None], 0.0).max(axis=1, initial=least)
    return chosen(heads, large & (heads["scores"] > scores))


TURNED_LOOK = SecondLook(_views, _join)
