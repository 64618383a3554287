"""Fits anchors to the boxes of record sets and prints what it gains."""

from collections.abc import Sequence

import numpy as np

from mtnet_jax.anchors import ANCHOR_SIZE, COCO_ANCHORS, cluster_anchors, mean_best_iou
from mtnet_jax.data.images import image_size
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.selection import parse_selection
from mtnet_jax.errors import BadInput

ANCHORS = 9  # three on each of three levels


def letterboxed_sizes(source: RecordSource) -> np.ndarray:
    """Widths and heights (n, 2) of all boxes that are not ignored, in an input of 416.

    The source leaves images encoded: their headers tell their size.
    """
    sizes = []
    for i in range(len(source)):
        record = source[i]
        width, height = image_size(record["image"])
        boxes = record["boxes"][~record["ignore"]]
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * (ANCHOR_SIZE / max(height, width)))
    return np.concatenate(sizes) if sizes else np.zeros((0, 2))


def print_fitted_anchors(data: Sequence[str]) -> None:
    """Prints fitted anchors for a config, and the mean best IoU before and after.

    Args:
      data: record sets as DIR or DIR:SPLIT ("train" unless named), weighed alike.
    """
    sets = []
    for entry in data:
        sets.append(
            letterboxed_sizes(RecordSource(*parse_selection(entry, default="train"), decode=False))
        )
        print(f"{entry}: {len(sets[-1])} boxes")
    # Each set counts alike: the larger one would otherwise take all nine anchors.
    most = max(map(len, sets))
    if most < ANCHORS:
        raise BadInput(
            f"{', '.join(data)}: {most} boxes that are not ignored, and {ANCHORS} anchors need as "
            "many: name a record set with more heads."
        )
    sizes = np.concatenate([np.resize(s, (most, 2)) for s in sets if len(s)])
    fitted = cluster_anchors(sizes).round(1)
    print("config.input.anchors = (")
    for level in fitted.reshape(3, 3, 2):
        print("    " + " ".join(f"({w:g}, {h:g})," for w, h in level))
    print(")")
    before, after = mean_best_iou(sizes, COCO_ANCHORS), mean_best_iou(sizes, fitted)
    print(f"mean best IoU: {before:.3f} with the COCO anchors, {after:.3f} with these")
