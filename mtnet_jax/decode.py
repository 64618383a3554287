"""From the network's maps to heads: boxes, scores, non-maximum suppression, SVD. All under jit.

Every shape is fixed. The cost depends little on how many heads an image shows: there is a shorter
way for a few, and suppression and SVD go by blocks, as many as the heads need.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax import boxes as box_ops
from mtnet_jax.anchors import Grid, decode_boxes, flatten_outputs
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.representations import Representation

FEW = 128  # predictions over the threshold; up to so many are decoded in a shorter way
BLOCK = 64  # boxes that the suppression settles at once
POSES_AT_ONCE = 16
# Predictions that vote on the pose of a head: those found that overlap it by more than this.
VOTE_IOU = 0.5


class DecodeOptions(NamedTuple):
    """How maps become heads."""

    score_threshold: float = FOUND_SCORE  # heads under it are left out
    iou_threshold: float = 0.5  # a head that overlaps a better one by more is left out
    max_heads: int = 100  # D, slots an image
    candidates: int = 512  # best predictions that enter the suppression
    # Beyond the paper: the pose is the mean of those of all found predictions of a head, weighted
    # by their scores. Of numbers whose mean means something: vectors and 6D.
    vote: bool = False


def decode(
    outputs: Sequence[jax.Array],
    *,
    grid: Grid,
    representation: Representation,
    options: DecodeOptions,
) -> Heads:
    """Decodes the network's maps; rotations by `representation.decode` (SVD for vectors).

    A prediction whose box, score or pose is not finite is left out.

    Args:
      outputs: three maps (B, K, K, 3, 5 + cls + np).
      grid: where the predictions sit.
      representation: of the pose channels.
      options: thresholds and sizes.
    """
    return decode_flat(
        flatten_outputs(outputs), grid=grid, representation=representation, options=options
    )


def decode_flat(
    raw: jax.Array, *, grid: Grid, representation: Representation, options: DecodeOptions
) -> Heads:
    """As `decode`, of the maps as one array.

    Args:
      raw: (B, N, 5 + cls + np) in the order of the grid, see `flatten_outputs`.
      grid: where the predictions sit.
      representation: of the pose channels.
      options: thresholds and sizes.
    """
    num_classes = raw.shape[-1] - 5 - representation.size
    objectness = jax.nn.sigmoid(raw[..., 4])
    class_scores = jax.nn.sigmoid(raw[..., 5 : 5 + num_classes])
    # NaN where a number is not finite, else 0. As a product, because to ask each number would take
    # longer than all the other lines here.
    broken = jnp.matmul(raw, jnp.zeros(raw.shape[-1]), precision=jax.lax.Precision.HIGHEST)
    scores = objectness * class_scores.max(axis=-1) + broken
    scores = jnp.where(jnp.isnan(scores), -1.0, scores)  # below any threshold, also one of 0

    count = min(options.candidates, raw.shape[1])
    best_of = partial(_decode_best, grid=grid, representation=representation, options=options)
    if count <= FEW:
        return best_of(raw, scores, count)
    # Most images show a few heads, and then most of the time goes into candidates that are none.
    least = _least_score(options)
    least = jnp.minimum(least, FOUND_SCORE) if options.vote else least  # who may vote is in both
    promising = (scores >= least).sum(axis=-1).max()
    return jax.lax.cond(
        promising <= FEW,
        lambda: _fill(best_of(raw, scores, FEW), min(options.max_heads, count)),
        lambda: best_of(raw, scores, count),
    )


def _decode_best(
    raw: jax.Array,
    scores: jax.Array,
    count: int,
    *,
    grid: Grid,
    representation: Representation,
    options: DecodeOptions,
) -> Heads:
    """Heads among the `count` best predictions.

    Args:
      raw: (B, N, 5 + cls + np).
      scores: (B, N), negative where a prediction must be left out.
      count: predictions that enter the suppression.
      grid: see `decode`.
      representation: see `decode`.
      options: see `decode`.
    """
    scores, index = jax.lax.top_k(scores, count)  # (B, count), falling
    best = jnp.take_along_axis(raw, index[..., None], axis=1)
    boxes = decode_boxes(best, grid.at(index))

    usable = scores >= _least_score(options)
    reach = usable.sum(axis=-1).max()  # scores fall: the usable ones are the first
    keep = jax.vmap(lambda b, ok: suppress(b, ok, options.iou_threshold, reach))(boxes, usable)
    # Kept candidates first, still by falling score; then only these few are turned into rotations.
    _, order = jax.lax.top_k(jnp.where(keep, scores, -1.0), min(options.max_heads, count))

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)

    chosen, valid = pick(best), pick(keep)
    classes, pose = chosen[..., 5 : -representation.size], chosen[..., -representation.size :]
    if options.vote:
        pose = _voted(pose, pick(boxes), best[..., -representation.size :], boxes, scores)
    return Heads(
        boxes=pick(boxes),
        scores=jnp.where(valid, pick(scores), 0.0),
        labels=classes.argmax(axis=-1).astype(jnp.int32),
        rotations=_decode_some(representation.decode, pose, valid.sum(axis=-1).max()),
        valid=valid,
    )


def _voted(
    own: jax.Array, heads: jax.Array, poses: jax.Array, boxes: jax.Array, scores: jax.Array
) -> jax.Array:
    """Mean pose numbers of each head, (B, D, np), over the found candidates that overlap it.

    Args:
      own: (B, D, np) of the heads themselves, which those keep that nobody found votes on.
      heads: (B, D, 4) xyxy.
      poses: (B, n, np) of all candidates.
      boxes: (B, n, 4) xyxy.
      scores: (B, n), negative where a candidate must be left out.
    """
    found = scores >= FOUND_SCORE
    close = box_ops.iou_xyxy(heads[:, :, None], boxes[:, None]) > VOTE_IOU
    weights = jnp.where(close & found[:, None], scores[:, None], 0.0)  # (B, D, n)
    # What is left out may not be finite, which no weight of 0 would mend.
    poses = jnp.where(found[..., None], poses, 0.0)
    summed = jnp.matmul(weights, poses, precision=jax.lax.Precision.HIGHEST)
    total = weights.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0, summed / jnp.maximum(total, 1e-6), own)


def _least_score(options: DecodeOptions) -> jax.Array:
    return jnp.maximum(options.score_threshold, 0.0)


def _fill(heads: Heads, slots: int) -> Heads:
    """Adds empty slots up to this number."""

    def fill(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, slots - x.shape[1])) + ((0, 0),) * (x.ndim - 2))

    return Heads(*map(fill, heads))


def suppress(
    boxes: jax.Array, usable: jax.Array, iou_threshold: float, reach: int | jax.Array | None = None
) -> jax.Array:
    """Greedy non-maximum suppression of one image's boxes, all classes together.

    Args:
      boxes: (n, 4) xyxy by falling score.
      usable: (n,) bool; the others are neither kept nor do they suppress.
      iou_threshold: a box that overlaps a kept, better one by more than this is suppressed.
      reach: no box from this index on is usable; n if None. Time grows with it, shapes do not.

    Returns:
      (n,) bool, True where kept.
    """
    n = boxes.shape[0]
    size = min(BLOCK, n)
    index = jnp.arange(n)

    def judge_block(number: jax.Array, keep: jax.Array) -> jax.Array:
        """Settles a block of which the better ones suppressed what they can."""

        # The last block begins early enough to be a whole one: to settle a box again is no change.
        def of_block(x: jax.Array, axis: int = 0) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)

        overlaps = box_ops.iou_xyxy(of_block(boxes)[:, None], boxes[None]) > iou_threshold
        later = index[None, :] > of_block(index)[:, None]
        # [i, j]: 1 where i of the block suppresses j if i is kept. As numbers: for products.
        beats = (overlaps & later).astype(jnp.float32)
        kept = _settle(of_block(keep), of_block(beats, axis=1))
        return keep & (kept.astype(jnp.float32) @ beats == 0)

    blocks = ((n if reach is None else reach) + size - 1) // size
    return jax.lax.fori_loop(0, blocks, judge_block, usable)


def _settle(usable: jax.Array, beats: jax.Array) -> jax.Array:
    """Which boxes are kept of some that only suppress each other.

    What is kept follows from what is kept of the better ones. Applied to any guess, this rule
    settles at least one more box each time, and mostly nearly all of them in two or three rounds; a
    guess that it leaves alone is the answer. (Box by box, as many rounds as boxes would be needed
    always.)

    Args:
      usable: (n,) bool.
      beats: (n, n), [i, j] is 1 where i suppresses j if i is kept, else 0.
    """

    def judge(keep: jax.Array) -> jax.Array:
        return usable & (keep.astype(jnp.float32) @ beats == 0)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        before, keep = state
        return jnp.any(before != keep)

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return state[1], judge(state[1])

    return jax.lax.while_loop(unsettled, again, (usable, judge(usable)))[1]


def _decode_some(
    decode_pose: Callable[[jax.Array], jax.Array], raw: jax.Array, needed: jax.Array
) -> jax.Array:
    """Rotations of the first slots of each image, (B, D, 3, 3); zeros after them.

    Args:
      decode_pose: (..., np) -> (..., 3, 3).
      raw: (B, D, np).
      needed: how many slots must be decoded, at least; a few more are.
    """
    images, slots, _ = raw.shape
    size = min(POSES_AT_ONCE, slots)

    def decode_next(number: jax.Array, found: jax.Array) -> jax.Array:
        # Beyond the end both slices begin earlier, at the same place.
        some = jax.lax.dynamic_slice_in_dim(raw, number * size, size, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(found, decode_pose(some), number * size, axis=1)

    nothing = jnp.zeros((images, slots, 3, 3), raw.dtype)
    return jax.lax.fori_loop(0, (needed + size - 1) // size, decode_next, nothing)
