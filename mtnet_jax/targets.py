"""Which prediction answers for which true head: the anchor assignment (section 3.3, YOLOv3).

A truth belongs to the anchor, among all nine, whose shape overlaps its box best, in the grid cell
that holds the centre of the box. Shapes are fixed (M truths a picture, padded), so nothing
recompiles.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax import boxes as box_ops
from mtnet_jax.anchors import ANCHORS_PER_CELL, STRIDES, Grid


class Truths(NamedTuple):
    """True heads of a batch, padded to M a picture. Boxes in pixels of the network's input."""

    boxes: jax.Array  # (B, M, 4) float32 xyxy
    rotations: jax.Array  # (B, M, 3, 3) float32 head to camera; identity where unknown
    has_pose: jax.Array  # (B, M) bool, False: the box is known, its pose is not
    ignore: jax.Array  # (B, M) bool, True: adds nothing to any loss
    labels: jax.Array  # (B, M) int32 class
    valid: jax.Array  # (B, M) bool, False: padding
    # Where the face of a head without a pose looks, seen from above: (B, M) float32 degrees, the
    # canonical yaw of a level head, and (B, M) bool. None: no head has a heading.
    headings: jax.Array | None = None
    has_heading: jax.Array | None = None


class Assignment(NamedTuple):
    """The prediction of each truth."""

    flat_index: jax.Array  # (B, M) int32 flat index among the N predictions; 0 for padding
    positive: jax.Array  # (B, M) bool: this truth trains that prediction
    shadowed: jax.Array  # (B, M) bool: lost its prediction to a larger truth


def assign_anchors(truths: Truths, grid: Grid) -> Assignment:
    """Assigns each truth to one prediction.

    Two truths that claim the same cell and anchor: the one with the larger box wins (it is the
    nearer head), at equal size the one with the lower index; the other one is `shadowed` and trains
    nothing. Ignored truths are never positive and shadow nobody. A centre on or outside the border
    belongs to the nearest cell.
    """
    centre_wh = box_ops.xyxy_to_cxcywh(truths.boxes)  # (B, M, 4)
    anchors_wh = jnp.asarray(grid.level_anchors_wh).reshape(-1, 2)  # (9, 2)
    overlap = box_ops.shape_iou(centre_wh[:, :, None, 2:], anchors_wh[None, None])  # (B, M, 9)
    best = jnp.argmax(overlap, axis=-1)  # (B, M)
    level, anchor = best // ANCHORS_PER_CELL, best % ANCHORS_PER_CELL

    stride = jnp.asarray(STRIDES)[level]
    side = grid.size // stride  # cells in a row
    column, row = (
        jnp.clip(jnp.floor(centre_wh[..., i] / stride).astype(jnp.int32), 0, side - 1)
        for i in (0, 1)
    )
    first = jnp.asarray(grid.level_offset)[level]
    index = first + (row * side + column) * ANCHORS_PER_CELL + anchor

    candidate = truths.valid & ~truths.ignore
    shadowed = candidate & _loses_to_another(index, candidate, box_ops.area_xyxy(truths.boxes))
    return Assignment(
        flat_index=jnp.where(truths.valid, index, 0),
        positive=candidate & ~shadowed,
        shadowed=shadowed,
    )


def _loses_to_another(index: jax.Array, candidate: jax.Array, area: jax.Array) -> jax.Array:
    """(B, M): whether another candidate of the same index has a larger box (or lower number)."""
    mine = lambda x: x[:, :, None]  # noqa: E731
    other = lambda x: x[:, None, :]  # noqa: E731
    number = jnp.arange(index.shape[1])
    earlier = (number[None, :] < number[:, None])[None]  # [_, mine, other]: other comes first
    larger = (other(area) > mine(area)) | ((other(area) == mine(area)) & earlier)
    return jnp.any(other(candidate) & (other(index) == mine(index)) & larger, axis=-1)
