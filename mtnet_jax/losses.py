"""The multitask loss (section 3.3, eq. 1 to 5).

L = alpha * L_bbox + (1 - alpha) * L_pose
L_bbox = lambda_xy L_xy + lambda_wh L_wh + lambda_obj L_obj + lambda_cls L_cls

Beyond the paper, a head may know its heading alone: the direction its face looks in, seen from
above. It then adds lambda_heading L_heading in the place of its L_pose.

Each part is a sum over the batch divided by the number of heads that train it: heads with an
assigned prediction for the box parts, those of them with a known pose or heading for L_pose.
Objectness, which images without heads train too, is divided by the number of images where that is
larger: else a batch without heads would weigh as much as all its background, sixteen times what it
weighs beside sixteen heads. Under jit over several devices the sums and counts run over the whole
batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtnet_jax import boxes as box_ops
from mtnet_jax.anchors import ANCHORS_PER_CELL, Grid, Place, decode_boxes, flatten_outputs
from mtnet_jax.representations import Representation
from mtnet_jax.targets import (
    ONE_ANCHOR,
    Assignment,
    AssignOptions,
    Truths,
    assign_anchors,
    repeat_truths,
)

# A prediction that overlaps a truth by more than this is not punished for objectness (section 3.3).
NEUTRAL_IOU = 0.5

# What 1 - IoU becomes where boxes do not overlap yet: GIoU (Rezatofighi et al. 2019) takes off the
# empty share of the smallest box round both, CIoU (Zheng et al. 2020) the distance of the centres
# and the difference of the shapes.
IOU_LOSSES = ("giou", "ciou")


class LossWeights(NamedTuple):
    """Weights of eq. 1 and eq. 5. The paper gives no numbers; these are this project's."""

    alpha: float = 0.5
    xy: float = 1.0
    wh: float = 1.0
    obj: float = 1.0
    cls: float = 0.5
    heading: float = 1.0
    iou: float = 0.0  # beyond the paper: see `IOU_LOSSES`; above 0, usually in the place of xy, wh


def multitask_loss(
    outputs: Sequence[jax.Array],
    truths: Truths,
    *,
    grid: Grid,
    representation: Representation,
    weights: LossWeights,
    assign: AssignOptions = ONE_ANCHOR,
    iou_loss: str = "ciou",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The total loss of a batch and its parts.

    Args:
      outputs: the network's three maps (B, K, K, 3, 5 + cls + np).
      truths: the true heads, boxes in pixels of the network's input.
      grid: where the predictions sit.
      representation: of the pose channels.
      weights: see `LossWeights`.
      assign: how many predictions each truth trains.
      iou_loss: of `IOU_LOSSES`, for the part "iou".

    Returns:
      The scalar loss and {"xy", "wh", "iou", "obj", "cls", "pose", "heading", "positives", "posed",
      "headed", "shadowed"}: the parts before weighting and the counts they were divided by, but
      that obj is divided by at least the number of images, and that pose and heading are weighed
      together as the mean over posed and headed heads.
    """
    raw = flatten_outputs(outputs)  # (B, N, C)
    num_classes = raw.shape[-1] - 5 - representation.size
    assignment = assign_anchors(truths, grid, assign)
    objectness = _objectness_loss(raw, truths, assignment, grid)
    # What the truths of each image were answered with, a row for each prediction that one of them
    # trains (M P of them, written M below); everything but objectness lives here.
    truths = repeat_truths(truths, assign.positives)
    index, positive = (
        x.reshape(x.shape[0], -1) for x in (assignment.flat_index, assignment.positive)
    )
    answers = jnp.take_along_axis(raw, index[..., None], axis=1)  # (B, M, C)

    # Truths that train nothing are replaced before any formula sees them, and so are their answers:
    # a weight of 0 alone would turn an overflow or NaN there into a NaN of loss or gradient.
    trains_box = positive[..., None]  # (B, M, 1)
    has_heading = truths.has_heading
    if has_heading is None:
        has_heading = jnp.zeros_like(truths.has_pose)
    trains_pose = trains_box & truths.has_pose[..., None]
    trains_heading = trains_box & (has_heading & ~truths.has_pose)[..., None]
    box_answers = jnp.where(trains_box, answers[..., : 5 + num_classes], 0.0)
    pose_answers, heading_answers = (
        jnp.where(trains, answers[..., 5 + num_classes :], 0.0)
        for trains in (trains_pose, trains_heading)
    )
    boxes = jnp.where(trains_box, truths.boxes, jnp.array([[[0.0, 0.0, 1.0, 1.0]]]))
    rotations = jnp.where(trains_pose[..., None], truths.rotations, jnp.eye(3)[None, None])

    positive, posed, headed = (
        x[..., 0].astype(jnp.float32) for x in (trains_box, trains_pose, trains_heading)
    )
    count, posed_count, headed_count = (
        jnp.maximum(x.sum(), 1.0) for x in (positive, posed, headed)
    )

    xy, wh = _box_losses(box_answers, boxes, grid.at(index), grid.size)
    overlap = _iou_losses(decode_boxes(box_answers, grid.at(index)), boxes, iou_loss)
    cls = optax.sigmoid_binary_cross_entropy(
        box_answers[..., 5:], jax.nn.one_hot(truths.labels, num_classes)
    ).sum(axis=-1)
    pose = representation.loss(pose_answers, rotations)
    headings = jnp.zeros_like(posed) if truths.headings is None else truths.headings
    headings = jnp.where(trains_heading[..., 0], headings, 0.0)
    heading = heading_loss(representation.facing(heading_answers), headings)
    parts = {
        "xy": (positive * xy).sum() / count,
        "wh": (positive * wh).sum() / count,
        "iou": (positive * overlap).sum() / count,
        "obj": objectness / jnp.maximum(count, raw.shape[0]),
        "cls": (positive * cls).sum() / count,
        "pose": (posed * pose).sum() / posed_count,
        "heading": (headed * heading).sum() / headed_count,
    }
    bbox = sum(getattr(weights, name) * parts[name] for name in ("xy", "wh", "iou", "obj", "cls"))
    looks = posed.sum() * parts["pose"] + weights.heading * headed.sum() * parts["heading"]
    looks = looks / jnp.maximum(posed.sum() + headed.sum(), 1.0)
    loss = weights.alpha * bbox + (1 - weights.alpha) * looks
    counts = {
        "positives": positive.sum(),
        "posed": posed.sum(),
        "headed": headed.sum(),
        "shadowed": assignment.shadowed.sum().astype(jnp.float32),
    }
    return loss, {**parts, **counts}


def heading_loss(facing: jax.Array, headings: jax.Array) -> jax.Array:
    """2 (1 - cos) of the angle, seen from above, between where a face looks and where it should.

    That is the squared distance of the two directions at length 1, as eq. 2 has it for vectors.

    Args:
      facing: (..., 3) third column of predicted rotations, of any length; its middle component,
        which points down, has no part in it.
      headings: (...) degrees, canonical.
    """
    across, along = facing[..., 0], facing[..., 2]
    # The 1e-6 keeps the gradient finite where a face is predicted to look straight up or down.
    length = jnp.sqrt(across**2 + along**2 + 1e-6)
    angle = jnp.deg2rad(headings)
    return 2 * (1 - (across * jnp.sin(angle) + along * jnp.cos(angle)) / length)


def _box_losses(
    answers: jax.Array, boxes: jax.Array, place: Place, size: int
) -> tuple[jax.Array, jax.Array]:
    """Centre and size loss of each answer, (B, M) each, both weighted by 2 - w h of the image.

    Squared differences (YOLOv3): of the sigmoid offset in the cell, and of the log ratio to the
    anchor.
    """
    target = box_ops.xyxy_to_cxcywh(boxes)  # (B, M, 4)
    offset = jnp.clip(target[..., :2] / place.stride - place.cell, 0.0, 1.0)
    log_ratio = jnp.log(jnp.maximum(target[..., 2:], 1e-3) / place.anchor_wh)

    # At most the whole image: a box not clipped to it must not turn the sign of its loss.
    small_counts_more = 2 - jnp.minimum(target[..., 2] * target[..., 3] / size**2, 1.0)
    xy = ((jax.nn.sigmoid(answers[..., :2]) - offset) ** 2).sum(axis=-1)
    wh = ((answers[..., 2:4] - log_ratio) ** 2).sum(axis=-1)
    return small_counts_more * xy, small_counts_more * wh


def _iou_losses(predicted: jax.Array, boxes: jax.Array, kind: str) -> jax.Array:
    """1 - GIoU or 1 - CIoU of predicted and true boxes (B, M, 4) xyxy, (B, M)."""
    iou = box_ops.iou_xyxy(predicted, boxes)
    low = jnp.minimum(predicted[..., :2], boxes[..., :2])
    high = jnp.maximum(predicted[..., 2:], boxes[..., 2:])  # of the smallest box round both
    a, b = (box_ops.xyxy_to_cxcywh(x) for x in (predicted, boxes))
    if kind == "giou":
        round_both = jnp.prod(high - low, axis=-1)
        areas = box_ops.area_xyxy(predicted) + box_ops.area_xyxy(boxes)
        union = areas - box_ops.intersection_xyxy(predicted, boxes)
        return 1 - iou + (round_both - union) / jnp.maximum(round_both, 1e-6)
    distance = ((a[..., :2] - b[..., :2]) ** 2).sum(axis=-1)
    diagonal = jnp.maximum(((high - low) ** 2).sum(axis=-1), 1e-6)
    angles = (jnp.arctan2(x[..., 2], jnp.maximum(x[..., 3], 1e-6)) for x in (b, a))
    shape = 4 / jnp.pi**2 * (next(angles) - next(angles)) ** 2
    trade = jax.lax.stop_gradient(shape / jnp.maximum(1 - iou + shape, 1e-6))
    return 1 - iou + distance / diagonal + trade * shape


def _objectness_loss(
    raw: jax.Array, truths: Truths, assignment: Assignment, grid: Grid
) -> jax.Array:
    """Sum of BCE over all predictions but the neutral ones.

    Neutral are predictions, other than the assigned ones, that overlap any truth (ignored ones
    included) by more than `NEUTRAL_IOU`, those that an ignored truth would have been assigned, and
    those of cells that a head without a slot touches.
    """
    n = raw.shape[1]

    # Written for one image: so XLA knows that no device needs the images of another.
    @jax.vmap
    def marked(index: jax.Array, marks: jax.Array) -> jax.Array:
        return jnp.zeros(n, bool).at[index].max(marks)

    positive = marked(assignment.flat_index, assignment.positive)
    claimed_by_ignored = assignment.claimed & truths.ignore[..., None]
    owned_by_ignored = marked(assignment.flat_index, claimed_by_ignored)
    boxes = decode_boxes(jax.lax.stop_gradient(raw), grid.at(jnp.arange(n)[None]))
    overlap = box_ops.iou_xyxy(boxes[:, :, None], truths.boxes[:, None])  # (B, N, M)
    close = jnp.any((overlap > NEUTRAL_IOU) & truths.valid[:, None], axis=-1)
    neutral = close | owned_by_ignored
    if truths.unlabelled is not None:
        neutral |= jnp.repeat(truths.unlabelled, ANCHORS_PER_CELL, axis=1)
    counted = positive | ~neutral
    bce = optax.sigmoid_binary_cross_entropy(raw[..., 4], positive.astype(raw.dtype))
    return (bce * counted).sum()
