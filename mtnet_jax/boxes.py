"""Boxes: formats are in the names. xyxy = left, top, right, bottom; cxcywh = centre and size.

Pixels run from 0 at the outer edge of the first pixel to the width at the outer edge of the last,
so a box that holds the whole image is (0, 0, width, height) and a width is right - left. All
functions take NumPy or JAX arrays.
"""

from typing import Any

Array = Any


def xyxy_to_cxcywh(boxes: Array) -> Array:
    """(..., 4) left, top, right, bottom -> centre x, centre y, width, height."""
    xp = boxes.__array_namespace__()
    low, high = boxes[..., :2], boxes[..., 2:]
    return xp.concatenate([(low + high) / 2, high - low], axis=-1)


def cxcywh_to_xyxy(boxes: Array) -> Array:
    """(..., 4) centre x, centre y, width, height -> left, top, right, bottom."""
    xp = boxes.__array_namespace__()
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return xp.concatenate([centre - half, centre + half], axis=-1)


def box_round(points: Array) -> Array:
    """(n, 2) points -> (4,) xyxy, the smallest box round them."""
    xp = points.__array_namespace__()
    return xp.concatenate([points.min(axis=0), points.max(axis=0)])


def area_xyxy(boxes: Array) -> Array:
    """(..., 4) -> (...); 0 for empty or inverted boxes."""
    xp = boxes.__array_namespace__()
    size = xp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def longer_side_xyxy(boxes: Array) -> Array:
    """(..., 4) -> (...), the larger of width and height; 0 for empty or inverted boxes."""
    xp = boxes.__array_namespace__()
    size = xp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return xp.maximum(size[..., 0], size[..., 1])


def intersection_xyxy(a: Array, b: Array) -> Array:
    """Area that boxes share, broadcast over the leading axes; 0 where they do not meet."""
    xp = a.__array_namespace__()
    # Side by side and not as pairs: compilers make vector instructions of long last axes only.
    width = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    height = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    return xp.maximum(width, 0) * xp.maximum(height, 0)


def iou_xyxy(a: Array, b: Array) -> Array:
    """Intersection over union, broadcast over the leading axes; 0 where both are empty.

    For all pairs of (N, 4) and (M, 4) call iou_xyxy(a[:, None, :], b[None, :, :]) -> (N, M).
    """
    xp = a.__array_namespace__()
    intersection = intersection_xyxy(a, b)
    union = area_xyxy(a) + area_xyxy(b) - intersection
    return intersection / xp.maximum(union, 1e-12)


def shape_iou(a_wh: Array, b_wh: Array) -> Array:
    """IoU of boxes that share a centre, from (..., 2) widths and heights, broadcast."""
    xp = a_wh.__array_namespace__()
    size = xp.minimum(a_wh, b_wh)
    intersection = size[..., 0] * size[..., 1]
    union = a_wh[..., 0] * a_wh[..., 1] + b_wh[..., 0] * b_wh[..., 1] - intersection
    return intersection / xp.maximum(union, 1e-12)
