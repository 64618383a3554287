"""Large images, looked at once more in overlapping tiles, which show small heads from close by.

What an image has more pixels than the input is lost to the first look, and with it the smallest
heads. Where it finds heads that are small in its input, or none at all, it may have missed some
that are smaller: two or three tiles along the longer side of the image are looked at too, each in
an input of its own. Small heads are taken from the tiles, large ones, which tiles may cut, from the
looks at the whole image, and those between from the look that is surer.
"""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Literal

import numpy as np

from mtnet_jax.boxes import area_xyxy, intersection_xyxy, iou_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.errors import BadInput
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.predict.far_look import PLAIN, extents
from mtnet_jax.predict.placing import Found, View, chosen
from mtnet_jax.predict.second_look import blocks, look_in_inputs, merge

Tile = int | Literal["auto"] | None  # pixels of the image, the side of a tile; None: no tiles
AUTO: Literal["auto"] = "auto"
LEAST = 32  # pixels of the side of a tile: of smaller ones there were thousands, which show nothing

# When images are looked at in tiles that nobody asked for.
WORTH = 1.5  # times the input's side: there is little to be seen in an image of fewer pixels
SMALL = 32.0  # pixels of the input; heads up to this size show that there may be smaller ones
THREE = 2.2  # times the input's side: from here on three tiles along the longer side, else two

# Longer side of a head, in parts of the longer side of the image.
WHOLE = 0.1  # up to this a head is whole in some tile; what is larger
LARGEST = 0.2  # is taken from the whole image too, and beyond this from it alone
MOST_OVERLAP = 0.5  # of a tile's side, by which neighbours overlap: very small tiles show less

INSIDE, LARGER = 0.7, 1.3  # of a cut head's box, inside the whole one; their areas, at least
CROWD = 2  # plain heads in a doubtful box, from which on it is none
BORDER = 2.0  # pixels; a box that comes so near to where a tile was cut is taken as cut too

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image


def check_tile(tile: Tile) -> None:
    """Raises BadInput for what is none."""
    if tile is None or (isinstance(tile, str) and tile == AUTO):
        return
    if not isinstance(tile, Integral) or isinstance(tile, bool) or tile < LEAST:
        raise BadInput(
            f"A tile of {tile!r}: give its side in pixels, from {LEAST} on, {AUTO!r}, or None for "
            "none."
        )


def with_tiles(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    found: Sequence[Found],
    *,
    size: int,
    iou_threshold: float,
    tile: Tile,
) -> list[Found]:
    """What was found in images, with what tiles show of large ones.

    Args:
      detect, images: see `second_look.look_again`.
      found: heads of each so far, in pixels of the image.
      size: side of the network's input.
      iou_threshold: of two heads that are one.
      tile: images that are larger than this are looked at in tiles of this side; "auto": where
        there are small heads, or none that is sure, and the image has more to show.
    """
    sides = {
        i: side
        for i, image in enumerate(images)
        if (side := tile_side(found[i], image.shape, size, tile)) is not None
    }
    places = {i: windows(images[i].shape, side) for i, side in sides.items()}
    inputs = {i: [[tile_view(window, size)] for window in of] for i, of in places.items()}
    seen = look_in_inputs(detect, images, inputs, size)
    return [
        join(heads, seen[i], places[i], images[i].shape, sides[i], iou_threshold)
        if i in seen
        else heads
        for i, heads in enumerate(found)
    ]


def tile_side(found: Found, shape: tuple[int, ...], size: int, tile: Tile) -> int | None:
    """Pixels of the side of the tiles of an image; None where it is not looked at in tiles."""
    longer = max(shape[:2])
    if tile is None:
        return None
    if tile != AUTO:
        return tile if longer > tile else None
    small = (size * extents(found, shape) <= SMALL) & (found["scores"] >= FOUND_SCORE)
    plain = found["scores"] >= PLAIN
    if longer < WORTH * size or (plain.any() and not small.any()):
        return None
    along = 2 if longer < THREE * size else 3
    # Of m times the image's scale, and overlapping by WHOLE * m (`_overlap`): so many fill it.
    return int(np.ceil(longer * (1 + WHOLE * (along - 1)) / along))


def windows(shape: tuple[int, ...], side: int) -> list[Window]:
    """Tiles of at most `side` x `side` pixels that cover an image, evenly spread."""
    height, width = shape[:2]
    step = side * (1 - _overlap(shape, side))
    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, step)
        for left in _starts(width, side, step)
    ]


def _overlap(shape: tuple[int, ...], side: int) -> float:
    """Of a tile's side: heads of `WHOLE` are whole in some tile."""
    return min(WHOLE * max(shape[:2]) / side, MOST_OVERLAP)


def _starts(length: int, side: int, step: float) -> list[int]:
    if length <= side:
        return [0]
    count = 1 + int(np.ceil((length - side) / step - 1e-6))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def tile_view(window: Window, size: int) -> View:
    """All of an input of `size` pixels that shows a tile."""
    left, top, right, bottom = window
    shown = geometry.letterbox_map(right - left, bottom - top, size)
    return View(geometry.compose(geometry.shift_map(-left, -top), shown), size, 0, 0)


def are_whole(heads: Found, window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """(m,) whether the border of a tile leaves heads whole: of the others a neighbour, or the whole
    image, shows more.

    Args:
      heads: in pixels of the image.
      window: the tile.
      shape: of the image, height first.
    """
    left, top, right, bottom = window
    # Where a tile ends with the image nothing is cut.
    low = [left if left else -np.inf, top if top else -np.inf]
    high = [right if right < shape[1] else np.inf, bottom if bottom < shape[0] else np.inf]
    inside = np.hstack([heads["boxes"][:, :2] - low, high - heads["boxes"][:, 2:]])
    return inside.min(axis=1) >= BORDER  # pixels, the least of the sides


def join(
    whole: Found,
    tiles: list[Found],
    places: list[Window],
    shape: tuple[int, ...],
    side: int,
    iou_threshold: float,
) -> Found:
    """Heads of all looks, each once, by falling score.

    Args:
      whole: heads of the looks at the whole image.
      tiles: those of each tile, all in pixels of the image.
      places: where each tile lies.
      shape: of the image.
      side: of the tiles.
      iou_threshold: of two heads that are one.
    """
    # What tiles may cut, or come too near to: they overlap by so much, but for a pixel of rounding.
    smallest = (_overlap(shape, side) * side - 2 * BORDER - 1) / max(shape[:2])
    large = chosen(whole, extents(whole, shape) > smallest)
    not_cut = [are_whole(of, place, shape) for of, place in zip(tiles, places, strict=True)]
    cut = [chosen(each, ~of) for each, of in zip(tiles, not_cut, strict=True)]
    small = [
        chosen(each, of & (extents(each, shape) < LARGEST))
        for each, of in zip(tiles, not_cut, strict=True)
    ]
    # A doubtful box must not hide what lies inside it: false ones round a crowd reach 0.4.
    sure = large["scores"] >= PLAIN
    parts = without_cut_ones([chosen(large, sure), *small], [whole, *tiles], iou_threshold)
    heads = merge([as_sure_as_cut_ones(each, cut, iou_threshold) for each in parts], iou_threshold)
    return merge([heads, without_crowds(chosen(large, ~sure), heads)], iou_threshold)


def as_sure_as_cut_ones(heads: Found, cut: list[Found], iou_threshold: float) -> Found:
    """Heads with the score of a tile that cuts them, where that is surer of them: most of a head
    may be better to recognise in one tile than all of it in another."""
    boxes = np.concatenate([each["boxes"] for each in cut])
    scores = np.concatenate([each["scores"] for each in cut])
    same = iou_xyxy(heads["boxes"][:, None], boxes[None]) > iou_threshold
    surest = np.where(same, scores[None], 0).max(axis=1, initial=0)
    return {**heads, "scores": np.maximum(heads["scores"], surest).astype(heads["scores"].dtype)}


def without_crowds(doubtful: Found, heads: Found) -> Found:
    """Doubtful boxes but for those that hold several plain heads: a crowd may look like one."""
    plain = heads["boxes"][heads["scores"] >= PLAIN]
    shared = intersection_xyxy(doubtful["boxes"][:, None], plain[None])
    held = (shared > INSIDE * area_xyxy(plain)[None]).sum(axis=1)
    return chosen(doubtful, held < CROWD)


def without_cut_ones(parts: list[Found], looks: list[Found], iou_threshold: float) -> list[Found]:
    """Heads of several looks without what some show of heads that others show whole.

    A box round a part of a head does not always reach to where the tile was cut. It is one that
    lies mostly inside a larger box of another look, unless that look shows a head there as well:
    then it is a small head before or beside a large one. A box that is hardly seen, and less sure
    than what it holds, cuts nothing.

    Args:
      parts: heads of each look that are left.
      looks: all heads of each look.
      iou_threshold: of two heads that are one.
    """
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    boxes, scores, areas = together["boxes"], together["scores"], area_xyxy(together["boxes"])
    look = np.repeat(np.arange(len(parts)), [len(part["boxes"]) for part in parts])
    plainly = [each["boxes"][each["scores"] >= FOUND_SCORE] for each in looks]
    whole = np.ones(len(boxes), bool)
    for rows in blocks(len(boxes)):
        mine = boxes[rows, None]
        # How many heads each look has where these are.
        there = [(iou_xyxy(mine, of[None]) > iou_threshold).sum(axis=1) for of in plainly]
        itself = (iou_xyxy(mine, boxes[None]) > iou_threshold) & (scores >= FOUND_SCORE)
        other = np.stack(there, axis=1)[:, look] > itself
        larger = areas[None] > LARGER * areas[rows, None]
        holds = intersection_xyxy(mine, boxes[None]) > INSIDE * areas[rows, None]
        seen = scores[None] >= np.minimum(scores[rows, None], FOUND_SCORE)
        cut = larger & holds & seen & ~other & (look[rows, None] != look[None])
        whole[rows] = ~cut.any(axis=1)
    return [chosen(part, whole[look == number]) for number, part in enumerate(parts)]
