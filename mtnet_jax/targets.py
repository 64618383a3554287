"""Which prediction answers for which true head: the anchor assignment (section 3.3, YOLOv3).

A truth belongs to the anchor, among all nine, whose shape overlaps its box best, in the grid cell
that holds the centre of the box. Beyond the paper, the next best anchors of the same centre may
answer for it too. Shapes are fixed (M truths an image, padded), so nothing recompiles.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax import boxes as box_ops
from mtnet_jax.anchors import ANCHORS_PER_CELL, STRIDES, Grid
from mtnet_jax.errors import BadInput


class Truths(NamedTuple):
    """True heads of a batch, padded to M an image. Boxes in pixels of the network's input."""

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
    # Cells of the three grids, coarse to fine and row by row, that a head without a slot touches:
    # (B, sum of K^2) bool. Nothing there is background. None: every head has a slot.
    unlabelled: jax.Array | None = None


class AssignOptions(NamedTuple):
    """How many predictions answer for a truth."""

    positives: int = 1  # anchors of a truth, at most; the paper has 1
    shape_iou: float = 0.5  # least overlap in shape of those beyond the best


ONE_ANCHOR = AssignOptions()  # as in the paper


def check_assign_options(options: AssignOptions) -> None:
    """Raises BadInput for an option out of its range, by its name in a configuration."""
    anchors = len(STRIDES) * ANCHORS_PER_CELL
    if options.positives not in range(1, anchors + 1):
        raise BadInput(
            f"config.assign.positives is {options.positives}: it must be from 1 to {anchors}."
        )
    if not 0 <= options.shape_iou <= 1:
        raise BadInput(f"config.assign.shape_iou is {options.shape_iou}: it must be from 0 to 1.")


class Assignment(NamedTuple):
    """The predictions of each truth, the one of the best anchor first (P = options.positives)."""

    flat_index: jax.Array  # (B, M, P) int32 flat index among the N predictions; 0 for padding
    claimed: jax.Array  # (B, M, P) bool: the anchor is near enough in shape, the truth no padding
    positive: jax.Array  # (B, M, P) bool: this truth trains that prediction
    shadowed: jax.Array  # (B, M) bool: lost its best prediction to a larger truth


def assign_anchors(truths: Truths, grid: Grid, options: AssignOptions = ONE_ANCHOR) -> Assignment:
    """Assigns each truth to one prediction, or to several.

    Two truths that claim the same cell and anchor: the better one of its truth's anchors wins, then
    the larger box (it is the nearer head), then the lower index; the other one trains nothing
    there. Ignored truths are never positive and shadow nobody. A centre on or outside the border
    belongs to the nearest cell.
    """
    centre_wh = box_ops.xyxy_to_cxcywh(truths.boxes)  # (B, M, 4)
    anchors_wh = jnp.asarray(grid.level_anchors_wh).reshape(-1, 2)  # (9, 2)
    overlap = box_ops.shape_iou(centre_wh[:, :, None, 2:], anchors_wh[None, None])  # (B, M, 9)
    # As a sort, equal ones in their order: for `top_k` each device would fetch those of all others.
    best = jnp.argsort(-overlap, axis=-1, stable=True)[..., : options.positives]  # (B, M, P)
    shape_iou = jnp.take_along_axis(overlap, best, axis=-1)
    level, anchor = best // ANCHORS_PER_CELL, best % ANCHORS_PER_CELL

    stride = jnp.asarray(STRIDES)[level]
    side = grid.size // stride  # cells in a row
    column, row = (
        jnp.clip(jnp.floor(centre_wh[..., i, None] / stride).astype(jnp.int32), 0, side - 1)
        for i in (0, 1)
    )
    first = jnp.asarray(grid.level_offset)[level]
    index = first + (row * side + column) * ANCHORS_PER_CELL + anchor

    rank = jnp.arange(options.positives)[None, None]
    near = (shape_iou > options.shape_iou) | (rank == 0)
    claimed = truths.valid[..., None] & near
    candidate = claimed & ~truths.ignore[..., None]
    area = jnp.broadcast_to(box_ops.area_xyxy(truths.boxes)[..., None], index.shape)
    loses = candidate & _loses_to_another(index, candidate, area)
    return Assignment(
        flat_index=jnp.where(truths.valid[..., None], index, 0),
        claimed=claimed,
        positive=candidate & ~loses,
        shadowed=loses[..., 0],
    )


def repeat_truths(truths: Truths, times: int) -> Truths:
    """Each truth so many times in a row: (B, M * times, ...), beside a flattened assignment.

    Without `unlabelled`, which is of predictions and not of truths.
    """
    of_truths = truths._replace(unlabelled=None)
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=1), of_truths)


def _loses_to_another(index: jax.Array, candidate: jax.Array, area: jax.Array) -> jax.Array:
    """(B, M, P): whether another candidate for the same index comes before.

    A better anchor of its truth comes first, then a larger box, then a lower number.
    """
    shape, ranks = index.shape, index.shape[-1]
    index, candidate, area = (x.reshape(shape[0], -1) for x in (index, candidate, area))
    mine = lambda x: x[:, :, None]  # noqa: E731
    other = lambda x: x[:, None, :]  # noqa: E731
    number = jnp.arange(index.shape[1])[None]
    rank = number % ranks
    larger = (other(area) > mine(area)) | (
        (other(area) == mine(area)) & (other(number) < mine(number))
    )
    before = (other(rank) < mine(rank)) | ((other(rank) == mine(rank)) & larger)
    loses = jnp.any(other(candidate) & (other(index) == mine(index)) & before, axis=-1)
    return loses.reshape(shape)
