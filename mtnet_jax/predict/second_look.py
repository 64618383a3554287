"""Which networks look at heads once more: large ones (`far_look`, `turned_look`), small ones
(`close_look`)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.heads import Heads
from mtnet_jax.predict.placing import Found, View, chosen, heads_in_view, input_of_views

# Heads of second looks count from this score on, whatever score is asked for: boxes, rotations and
# scores of several looks are means.
LEAST_SCORE = 0.1


def second_look_iou(config: ConfigDict, wanted: bool | None = None) -> float | None:
    """IoU beyond which heads of two looks are one; None where images are looked at once.

    Args:
      config: of the network.
      wanted: whether to look again; None: as the network was trained for.
    """
    if wanted is None:
        wanted = config.input.get("second_look", False)  # weights of before have no such option
    return config.decode.iou_threshold if wanted else None


def with_second_looks(
    detect: Callable[[np.ndarray], Heads],
    images: Sequence[np.ndarray],
    found: Sequence[Found],
    size: int,
    views_of: Callable[[Found, tuple[int, ...]], list[View]],
    joined: Callable[[Found, list[Found], tuple[int, ...]], Found],
) -> list[Found]:
    """The heads of images, where it is worth it with what further views of them show.

    Args:
      detect, images, size: see `look_again`.
      found: heads so far, in pixels of each image.
      views_of: heads and shape of an image -> its views; none: it is not worth it.
      joined: heads so far, those of each view, and the shape -> the heads of both.
    """
    views = {
        i: shown for i, image in enumerate(images) if (shown := views_of(found[i], image.shape))
    }
    seen = look_again(detect, images, views, size)
    return [
        joined(heads, seen[i], images[i].shape) if i in seen else heads
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


def _without_doubtful(found: Found) -> Found:
    return chosen(found, found["scores"] >= LEAST_SCORE)
