"""Large heads, looked at once more from farther away.

A network reads a head best at the sizes that most of its training heads had. One that fills much of
the image is larger than that in the input; a second look shows the image small, twice side by side,
the second time mirrored, and takes the mean of what the two say. Images without a large head, most
of them, need no such look.
"""

from collections.abc import Sequence

import numpy as np

from mtnet_jax.boxes import iou_xyxy, longer_side_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.predict.placing import Found, View, chosen
from mtnet_jax.predict.second_look import SecondLook, merge
from mtnet_jax.rotations import nearest_rotation

# Pixels that the longer side of the image gets in the second look of an input of 448: in larger
# ones more in proportion, in smaller ones as many, but at most half of the input.
FAR_SIDE = 166
# Longer side of a head in the first look, in pixels of the input.
LARGE = 134.4  # from here on it is worth a second look
LARGEST_NEAR = 179.2  # what is larger is taken from the second look alone,
SMALLEST_FAR = 98.56  # what is smaller from the first
# An image without a head of this score may hold a large one that was not recognised: small false
# heads, of leaves or flowers, are less sure.
PLAIN = 0.7


def far_side(size: int) -> int:
    """Pixels of the longer side of an image in the second look, of an input of `size` pixels."""
    return min(round(FAR_SIDE * max(size / 448, 1)), size // 2)


def is_worth_it(near: Found, shape: tuple[int, ...], size: int) -> bool:
    """Whether the first look, an input of `size` pixels, found a large head, or no plain one, in an
    image of this shape."""
    scores = near["scores"]
    large = size * extents(near, shape)[scores >= FOUND_SCORE] > LARGE
    return bool(large.any() or not (scores >= PLAIN).any())


def far_views(shape: tuple[int, ...], size: int) -> list[View]:
    """Two views of an image of this shape in an input of `size` pixels, the second mirrored."""
    side = far_side(size)
    matrix = geometry.letterbox_map(shape[1], shape[0], side)
    left, top = (size // 2 - side) // 2, (size - side) // 2
    return [
        View(matrix, side, left, top),
        View(matrix, side, size // 2 + left, top, mirrored=True),
    ]


def mean_of_looks(looks: Sequence[Found], iou_threshold: float) -> Found:
    """Heads that looks at one image found, each once: boxes and rotations are means, weighted by
    the scores. What one look does not see has score 0 there, and the mean of the scores counts.

    Args:
      looks: heads of each, by falling score.
      iou_threshold: a head of one look is the surest of another that overlaps it by more; others
        that do are left out.
    """
    together = {name: np.concatenate([look[name] for look in looks]) for name in looks[0]}
    number = np.repeat(np.arange(len(looks)), [len(look["scores"]) for look in looks])
    scores, boxes = together["scores"], together["boxes"]
    left = np.ones(len(scores), bool)
    heads: dict[str, list] = {name: [] for name in together}
    for i in np.argsort(-scores, kind="stable"):
        if not left[i]:
            continue
        overlaps = iou_xyxy(boxes[i], boxes) > iou_threshold
        overlaps[i] = True
        same = np.flatnonzero(left & overlaps)
        left[same] = False
        members = np.concatenate([same[number[same] == look][:1] for look in range(len(looks))])
        weights = scores[members] / scores[members].sum()
        heads["boxes"].append(weights @ boxes[members])
        heads["scores"].append(scores[members].sum() / len(looks))
        heads["labels"].append(together["labels"][i])
        heads["scales"].append(together["scales"][i])
        mean = np.einsum("k,kij->ij", weights, together["rotations"][members])
        heads["rotations"].append(nearest_rotation(mean))
    order = np.argsort(-np.array(heads["scores"]), kind="stable")
    return {
        name: np.array(values, together[name].dtype).reshape(-1, *together[name].shape[1:])[order]
        for name, values in heads.items()
    }


def join(near: Found, far: Found, shape: tuple[int, ...], size: int, iou_threshold: float) -> Found:
    """Heads of both looks, each once, by falling score: small ones of the first, large ones of the
    second, those between of the one that is surer."""
    parts = [
        chosen(near, size * extents(near, shape) <= LARGEST_NEAR),
        chosen(far, size * extents(far, shape) >= SMALLEST_FAR),
    ]
    return merge(parts, iou_threshold)


def extents(heads: Found, shape: tuple[int, ...]) -> np.ndarray:
    """(m,) longer sides of heads, in parts of the longer side of their image."""
    return longer_side_xyxy(heads["boxes"]) / max(shape[:2])


def _views(near: Found, shape: tuple[int, ...], size: int) -> list[View]:
    return far_views(shape, size) if is_worth_it(near, shape, size) else []


def _join(
    near: Found, seen: list[Found], shape: tuple[int, ...], size: int, iou_threshold: float
) -> Found:
    return join(near, mean_of_looks(seen, iou_threshold), shape, size, iou_threshold)


FAR_LOOK = SecondLook(_views, _join)
