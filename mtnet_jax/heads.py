"""Heads of a batch, as every runtime gives them. Needs no JAX."""

from typing import Any, NamedTuple

Array = Any  # jax.Array or numpy.ndarray

# Least score of a head that counts as found, unless another is asked for: what is shown, and what
# is measured but for average precision.
FOUND_SCORE = 0.3


class Heads(NamedTuple):
    """Decoded heads of a batch, D slots an image, by falling score. Boxes in pixels of the input.

    An empty slot has score 0; what its other fields hold means nothing.
    """

    boxes: Array  # (B, D, 4) float32 xyxy
    scores: Array  # (B, D) float32, objectness * class
    labels: Array  # (B, D) int32
    rotations: Array  # (B, D, 3, 3) float32, head axes to camera or ray axes: `config.frame`
    valid: Array  # (B, D) bool, False: an empty slot
