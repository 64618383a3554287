"""Which networks look at heads once more: large ones (`far_look`, `turned_look`), small ones
(`tiles`, `close_look`); and what all such looks share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.heads import Heads
from mtnet_jax.predict.placing import Found, View, chosen, heads_in_view, input_of_views

# Heads of second looks count from this score on, whatever score is asked for: boxes, rotations and
# scores of several looks are means.
LEAST_SCORE = 0.1

_BLOCK = 512  # boxes that are compared with all others at once


def looks_again(config: ConfigDict, wanted: bool | None = None) -> bool:
    """Whether images are looked at more than once.

    Args:
      config: of the network.
      wanted: whether to look again; None: as the network was trained for.
    """
    # Weights of before have no such option.
    return bool(config.input.get("second_look", False) if wanted is None else wanted)


class SecondLook(NamedTuple):
    """A kind of look: what it shows of an image, and what becomes of the heads then.

    Attributes:
      views: (heads so far, shape of the image, side of the input) -> views that share an input;
        none where it is not worth it.
      join: (heads so far, those of each view, shape of the image, side of the input, IoU beyond
        which two heads are one) -> the heads of both.
    """

    views: Callable[[Found, tuple[int, ...], int], list[View]]
    join: Callable[[Found, list[Found], tuple[int, ...], int, float], Found]


def with_second_looks(
    look: SecondLook,
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    found: Sequence[Found],
    *,
    size: int,
    iou_threshold: float,
) -> list[Found]:
    """The heads of images, where it is worth it with what one more look shows of them.

    Args:
      look: the kind of look.
      detect, images, size: see `look_again`.
      found: heads so far, in pixels of each image.
      iou_threshold: of heads that two looks found.
    """
    views = {
        i: shown
        for i, image in enumerate(images)
        if (shown := look.views(found[i], image.shape, size))
    }
    seen = look_again(detect, images, views, size)
    return [
        look.join(heads, seen[i], images[i].shape, size, iou_threshold) if i in seen else heads
        for i, heads in enumerate(found)
    ]


def look_again(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    views: Mapping[int, Sequence[View]],
    size: int,
) -> dict[int, list[Found]]:
    """What each view of an image shows, in one call: an input for each image that has views.

    Heads of a lower score than `LEAST_SCORE` are left out.

    Args:
      detect: inputs (k, size, size, 3) uint8, k no more than there are images -> heads in them.
      images: (H, W, 3) uint8 RGB each.
      views: number of an image -> its views, which share an input.
      size: side of the network's input.
    """
    if not views:
        return {}
    shown = [[(images[i], view) for view in of] for i, of in views.items()]
    heads = detect(np.stack([input_of_views(each, size) for each in shown]))
    return {
        i: [_without_doubtful(heads_in_view(heads, row, view, images[i].shape)) for view in of]
        for row, (i, of) in enumerate(views.items())
    }


def look_in_inputs(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    inputs: Mapping[int, Sequence[Sequence[View]]],
    size: int,
) -> dict[int, list[Found]]:
    """What each view of an image shows, in as many inputs as it takes: one of each image a call.

    Args:
      detect, images, size: see `look_again`.
      inputs: number of an image -> the views of each of its inputs.

    Returns:
      Number of an image -> what its views show, one after another.
    """
    seen: dict[int, list[Found]] = {i: [] for i in inputs}
    for number in range(max(map(len, inputs.values()), default=0)):
        views = {i: of[number] for i, of in inputs.items() if number < len(of)}
        for i, shown in look_again(detect, images, views, size).items():
            seen[i] += shown
    return seen


def merge(parts: list[Found], iou_threshold: float) -> Found:
    """Heads of several looks at one image, by falling score, each once: one suppression over all.

    Args:
      parts: heads as of `heads_in_image`, all in pixels of the image.
      iou_threshold: a head that overlaps a better one by more is left out.
    """
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(-together["scores"], kind="stable")
    boxes = together["boxes"][order]
    kept: list[int] = []
    for rows in blocks(len(boxes)):
        overlaps = iou_xyxy(boxes[rows, None], boxes[None, : rows.stop]) > iou_threshold
        for number, of in zip(range(rows.start, rows.stop), overlaps, strict=True):
            if not of[kept].any():
                kept.append(number)
    return chosen(together, order[kept])


def blocks(count: int) -> Iterator[slice]:
    """Of so many boxes, which are compared with all: at once where they are few; tiles of a crowd
    find tens of thousands, for all of whose pairs there is no memory."""
    for first in range(0, count, _BLOCK):
        yield slice(first, min(first + _BLOCK, count))


def _without_doubtful(found: Found) -> Found:
    return chosen(found, found["scores"] >= LEAST_SCORE)
