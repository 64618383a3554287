"""Very large images in overlapping tiles: small heads are seen as closely as in a small image."""

import numpy as np

from mtnet_jax.boxes import area_xyxy, intersection_xyxy, iou_xyxy
from mtnet_jax.errors import BadInput
from mtnet_jax.predict.placing import Found, chosen

# Of a tile's side, at least: heads up to this size are whole in some tile. Larger ones must be
# found in the whole image.
OVERLAP = 0.5
_INSIDE, _LARGER = 0.7, 1.3  # of a cut head's box, inside the whole one; their areas, at least
_BORDER = 2.0  # pixels; a box that comes so near to where a tile was cut is taken as cut too

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image


def windows(width: int, height: int, side: int) -> list[Window]:
    """Tiles of at most `side` x `side` pixels that cover an image, evenly spread.

    Raises:
      ValueError: a side of no pixel.
    """
    if side < 1:
        raise BadInput(f"A tile of {side} pixels: it needs at least one.")
    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = 1 + int(np.ceil((length - side) / (side * (1 - OVERLAP))))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def moved(arrays: Found, window: Window, shape: tuple[int, ...]) -> Found:
    """Heads of a tile in pixels of the image, without those that the tile's border cuts.

    A neighbour, or the whole image, shows those better.

    Args:
      arrays: heads as of `heads_in_image`.
      window: the tile.
      shape: of the image, height first.
    """
    left, top, right, bottom = window
    boxes = arrays["boxes"] + np.array([left, top, left, top], np.float32)
    # Where a tile ends with the image nothing is cut.
    low = [left if left else -np.inf, top if top else -np.inf]
    high = [right if right < shape[1] else np.inf, bottom if bottom < shape[0] else np.inf]
    inside = np.hstack([boxes[:, :2] - low, high - boxes[:, 2:]])  # pixels, of each side
    whole = inside.min(axis=1) >= _BORDER
    return chosen({**arrays, "boxes": boxes}, whole)


def without_cut_ones(parts: list[Found]) -> list[Found]:
    """Heads of several tiles without what some show of heads that others show whole.

    A box round a part of a head does not always reach to where the tile was cut. It is one that
    lies mostly inside a larger box of another tile.
    """
    boxes = np.concatenate([part["boxes"] for part in parts])
    tile = np.repeat(np.arange(len(parts)), [len(part["boxes"]) for part in parts])
    areas = area_xyxy(boxes)
    shared = intersection_xyxy(boxes[:, None], boxes[None])
    larger = areas[None] > _LARGER * areas[:, None]
    cut = larger & (shared > _INSIDE * areas[:, None]) & (tile[:, None] != tile[None])
    whole = ~cut.any(axis=1)
    return [chosen(part, whole[tile == number]) for number, part in enumerate(parts)]


def merge(parts: list[Found], iou_threshold: float) -> Found:
    """Heads of several looks at one image, by falling score, each once: one suppression over all.

    Args:
      parts: heads as of `heads_in_image`, all in pixels of the image.
      iou_threshold: a head that overlaps a better one by more is left out.
    """
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(-together["scores"], kind="stable")
    boxes = together["boxes"][order]
    overlaps = iou_xyxy(boxes[:, None], boxes[None]) > iou_threshold
    kept: list[int] = []
    for number in range(len(boxes)):
        if not overlaps[number, kept].any():
            kept.append(number)
    return chosen(together, order[kept])
