"""All looks at images: at the whole, at large heads from farther away and turned, at large images
in tiles, at small heads from close by."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtnet_jax.heads import Heads
from mtnet_jax.predict.close_look import with_close_looks
from mtnet_jax.predict.far_look import FAR_LOOK
from mtnet_jax.predict.placing import Found, heads_in_image
from mtnet_jax.predict.second_look import SecondLook, with_second_looks
from mtnet_jax.predict.tiles import AUTO, Tile, with_tiles
from mtnet_jax.predict.turned_look import TURNED_LOOK


def look_at(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    inputs: Sequence[np.ndarray],
    matrices: Sequence[np.ndarray],
    *,
    iou_threshold: float,
    second_looks: bool,
    tile: Tile = AUTO,
) -> list[Found]:
    """Finds the heads of images, in pixels of each, by falling score.

    Args:
      detect: inputs (k, size, size, 3) uint8, k at most the number of images -> heads in them.
      images: (H, W, 3) uint8 RGB each.
      inputs: what shows each of them to the network, (size, size, 3) uint8.
      matrices: the map (2, 3) from each image to its input.
      iou_threshold: of two looks' heads that are one.
      second_looks: whether images are looked at more than once.
      tile: see `tiles.with_tiles`; "auto" goes with second looks.
    """
    heads = detect(np.stack(inputs))
    found = [
        heads_in_image(heads, row, matrix, image.shape)
        for row, (image, matrix) in enumerate(zip(images, matrices, strict=True))
    ]
    more: dict[str, Any] = {"size": inputs[0].shape[0], "iou_threshold": iou_threshold}

    def again(look: SecondLook, found: Sequence[Found]) -> list[Found]:
        return with_second_looks(look, detect, images, found, **more)

    if second_looks:
        found = again(TURNED_LOOK, again(FAR_LOOK, found))
    if second_looks or tile != AUTO:
        found = with_tiles(detect, images, found, **more, tile=tile)
    if second_looks:
        found = with_close_looks(detect, images, found, **more)
    return found
