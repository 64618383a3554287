"""From the network's maps to heads: boxes, scores, non-maximum suppression, SVD. All under jit.

The cost does not depend on how many heads a picture shows: every shape is fixed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax import boxes as box_ops
from mtnet_jax.anchors import Grid, decode_boxes, flatten_outputs
from mtnet_jax.representations import Representation


class Heads(NamedTuple):
    """Decoded heads of a batch, D slots a picture, by falling score. Boxes in pixels of the input.

    An empty slot has score 0; what its other fields hold means nothing.
    """

    boxes: jax.Array  # (B, D, 4) float32 xyxy
    scores: jax.Array  # (B, D) float32, objectness * class
    labels: jax.Array  # (B, D) int32
    rotations: jax.Array  # (B, D, 3, 3) float32 head to camera
    valid: jax.Array  # (B, D) bool, False: an empty slot


class DecodeOptions(NamedTuple):
    """How maps become heads."""

    score_threshold: float = 0.3  # heads under it are left out
    iou_threshold: float = 0.5  # a head that overlaps a better one by more is left out
    max_heads: int = 100  # D, slots a picture
    candidates: int = 512  # best predictions that enter the suppression


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
    raw = flatten_outputs(outputs)  # (B, N, C)
    num_classes = raw.shape[-1] - 5 - representation.size
    objectness = jax.nn.sigmoid(raw[..., 4])
    class_scores = jax.nn.sigmoid(raw[..., 5 : 5 + num_classes])
    scores = objectness * class_scores.max(axis=-1)
    # Below any threshold, also one of 0.
    scores = jnp.where(jnp.isfinite(raw).all(axis=-1), scores, -1.0)

    count = min(options.candidates, raw.shape[1])
    scores, index = jax.lax.top_k(scores, count)  # (B, count), falling
    best = jnp.take_along_axis(raw, index[..., None], axis=1)
    boxes = decode_boxes(best, grid.at(index))

    keep = jax.vmap(lambda b, ok: suppress(b, ok, options.iou_threshold))(
        boxes, scores >= jnp.maximum(options.score_threshold, 0.0)
    )
    # Kept candidates first, still by falling score; then only these few are turned into rotations.
    slots = min(options.max_heads, count)
    order = jnp.argsort(~keep, axis=-1, stable=True)[:, :slots]

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)

    best, valid = pick(best), pick(keep)
    labels = best[..., 5 : 5 + num_classes].argmax(axis=-1).astype(jnp.int32)
    return Heads(
        boxes=pick(boxes),
        scores=jnp.where(valid, pick(scores), 0.0),
        labels=labels,
        rotations=representation.decode(best[..., 5 + num_classes :]),
        valid=valid,
    )


def suppress(boxes: jax.Array, usable: jax.Array, iou_threshold: float) -> jax.Array:
    """Greedy non-maximum suppression of one picture's boxes, all classes together.

    Args:
      boxes: (n, 4) xyxy by falling score.
      usable: (n,) bool; the others are neither kept nor do they suppress.
      iou_threshold: a box that overlaps a kept, better one by more than this is suppressed.

    Returns:
      (n,) bool, True where kept.
    """
    n = boxes.shape[0]
    overlaps = box_ops.iou_xyxy(boxes[:, None], boxes[None]) > iou_threshold  # (n, n)
    later = jnp.arange(n)[None, :] > jnp.arange(n)[:, None]
    # [i, j]: 1 where i suppresses j if i is kept. As numbers: the test below is a product.
    beats = (overlaps & later & usable[:, None]).astype(jnp.float32)

    # What is kept follows from what is kept of the better ones. Applied to any guess, this rule
    # settles at least one more box each time, and mostly nearly all of them in two or three rounds;
    # a guess that it leaves alone is the answer. (Box by box, n rounds would be needed always.)
    def judge(keep: jax.Array) -> jax.Array:
        return usable & (keep.astype(jnp.float32) @ beats == 0)

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        before, keep = state
        return jnp.any(before != keep)

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return state[1], judge(state[1])

    return jax.lax.while_loop(unsettled, again, (usable, judge(usable)))[1]
