"""All looks at images: at the whole, at large heads from farther away and turned, at small ones."""

from collections.abc import Callable, Sequence

import numpy as np

from mtnet_jax.heads import Heads
from mtnet_jax.predict.close_look import with_close_looks
from mtnet_jax.predict.far_look import with_far_looks
from mtnet_jax.predict.placing import Found, heads_in_image
from mtnet_jax.predict.turned_look import with_turned_looks


def look_at(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    inputs: Sequence[np.ndarray],
    matrices: Sequence[np.ndarray],
    *,
    second_look: float | None,
    between: Callable[[np.ndarray, Found], Found] | None = None,
) -> list[Found]:
    """Finds the heads of images, in pixels of each, by falling score.

    Args:
      detect: inputs (k, size, size, 3) uint8, k at most the number of images -> heads in them.
      images: (H, W, 3) uint8 RGB each.
      inputs: what shows each of them to the network, (size, size, 3) uint8.
      matrices: the map (2, 3) from each image to its input.
      second_look: IoU beyond which heads of two looks are one (`second_look.second_look_iou`);
        None: each image is looked at once.
      between: the heads of an image -> the same with what is found in another way, before small
        heads are looked at again.
    """
    heads = detect(np.stack(inputs))
    found = [
        heads_in_image(heads, row, matrix, image.shape)
        for row, (image, matrix) in enumerate(zip(images, matrices, strict=True))
    ]
    size = inputs[0].shape[0]
    if second_look is not None:
        found = with_far_looks(detect, images, found, size=size, iou_threshold=second_look)
        found = with_turned_looks(detect, images, found, size=size, iou_threshold=second_look)
    if between is not None:
        found = [between(*each) for each in zip(images, found, strict=True)]
    if second_look is not None:
        found = with_close_looks(detect, images, found, size=size, iou_threshold=second_look)
    return found
