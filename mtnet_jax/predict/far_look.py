"""Large heads, looked at once more from farther away.

A network reads a head best at the sizes that most of its training heads had. One that fills much of
the image is larger than that in the input; a second look, with a small image in the middle of the
input, shows it as others are. Images without a large head, most of them, are looked at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.data import geometry
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.predict.placing import heads_in_image
from mtnet_jax.predict.tiles import merge

# Pixels of the input that the longer side of the image gets in the second look; at most half of it.
FAR_SIDE = 165
# Longer side of a head, in parts of the longer side of the image.
LARGE = 0.3  # from here on it is worth a second look
LARGEST_NEAR = 0.4  # what is larger is taken from the second look alone,
SMALLEST_FAR = 0.22  # what is smaller from the first

Found = dict[str, np.ndarray]  # heads as of `placing.heads_in_image`


def far_look_iou(config: ConfigDict) -> float | None:
    """IoU beyond which heads of two looks are one; None for a network that looks once."""
    if not config.input.get("far_look", False):  # weights of before have no such option
        return None
    return config.decode.iou_threshold


def far_side(size: int) -> int:
    """Pixels of the longer side of an image in the second look, of an input of `size` pixels."""
    return min(FAR_SIDE, size // 2)


def with_far_looks(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    found: Sequence[Found],
    *,
    size: int,
    iou_threshold: float,
) -> list[Found]:
    """What was found in images, with a second look at those where it is worth it.

    Args:
      detect: inputs (k, size, size, 3) uint8, for any k -> heads in them.
      images: (H, W, 3) uint8 RGB each.
      found: heads of the first look at each, in pixels of the image.
      size: side of the network's input.
      iou_threshold: of heads that two looks found.
    """
    joined = list(found)
    again = [i for i, image in enumerate(images) if is_worth_it(found[i], image.shape)]
    if not again:
        return joined
    inputs, matrices = zip(*(far_letterboxed(images[i], size) for i in again), strict=True)
    heads = detect(np.stack(inputs))
    for row, (i, matrix) in enumerate(zip(again, matrices, strict=True)):
        shape = images[i].shape
        far = heads_in_image(heads, row, matrix, shape)
        joined[i] = join(found[i], far, shape, iou_threshold)
    return joined


def is_worth_it(near: Found, shape: tuple[int, ...]) -> bool:
    """Whether the first look found a large head, or none at all, in an image of this shape."""
    sure = near["scores"] >= FOUND_SCORE
    return not sure.any() or bool((_extents(near, shape)[sure] > LARGE).any())


def far_letterboxed(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """As `placing.letterboxed`, with the image in the middle of the input and grey round it."""
    within = far_side(size)
    matrix = geometry.compose(
        geometry.letterbox_map(image.shape[1], image.shape[0], within),
        geometry.shift_map((size - within) / 2, (size - within) / 2),
    )
    return geometry.map_image(image, matrix, size), matrix


def join(near: Found, far: Found, shape: tuple[int, ...], iou_threshold: float) -> Found:
    """Heads of both looks, each once, by falling score: small ones of the first, large ones of the
    second, those between of the one that is surer."""
    parts = [
        _chosen(near, _extents(near, shape) <= LARGEST_NEAR),
        _chosen(far, _extents(far, shape) >= SMALLEST_FAR),
    ]
    return merge(parts, iou_threshold)


def _extents(heads: Found, shape: tuple[int, ...]) -> np.ndarray:
    boxes = heads["boxes"]
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0) / max(shape[:2])


def _chosen(heads: Found, which: np.ndarray) -> Found:
    return {name: values[which] for name, values in heads.items()}
