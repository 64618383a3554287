"""Pictures -> heads in network coordinates: network, decoding, suppression in one compiled call."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.config import System
from mtnet_jax.data import geometry
from mtnet_jax.data.batches import normalise_images
from mtnet_jax.decode import DecodeOptions, Heads, decode
from mtnet_jax.network.convolution import compiler_options

# Evaluation wants the weak predictions too (average precision); pictures for people do not.
EVAL_SCORE_THRESHOLD = 0.01

Detector = Callable[[Mapping[str, Any], Any], Heads]


def make_detector(system: System, config: ConfigDict, score_threshold: float) -> Detector:
    """The jitted (variables, images (B, size, size, 3) uint8) -> Heads."""
    options = DecodeOptions(score_threshold=score_threshold, **config.decode)

    @partial(jax.jit, compiler_options=compiler_options())
    def detect(variables: Mapping[str, Any], images: jax.Array) -> Heads:
        outputs = system.model.apply(variables, normalise_images(images))
        return decode(
            outputs, grid=system.grid, representation=system.representation, options=options
        )

    return detect


def heads_in_picture(heads: Heads, row: int, matrix: np.ndarray, shape: tuple[int, ...]) -> dict:
    """One picture's heads, moved back from the network's input into the picture.

    Args:
      heads: of a batch, as NumPy arrays.
      row: which picture of the batch.
      matrix: the map that made the input from the picture (a letterbox: no turn, no mirroring).
      shape: of the picture, height first. Boxes are clipped to it, and heads of which nothing is
        left (they lie in the grey beside the picture) are left out.

    Returns:
      {"boxes" (m, 4) xyxy pixels of the picture, "scores" (m,), "labels" (m,),
      "rotations" (m, 3, 3)} by falling score.
    """
    height, width = shape[:2]
    valid = heads.valid[row]
    boxes = geometry.map_boxes(heads.boxes[row][valid], geometry.invert(matrix))
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return {
        "boxes": boxes[shown],
        "scores": heads.scores[row][valid][shown],
        "labels": heads.labels[row][valid][shown],
        "rotations": heads.rotations[row][valid][shown],
    }
