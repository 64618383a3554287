"""Anchors and the grid of predictions they span.

The network predicts three boxes for each cell of three grids (strides 32, 16, 8). Flattened in that
order (level, row, column, anchor) this gives N predictions an image; `Grid` says where each one
sits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax import boxes as box_ops
from mtnet_jax.errors import BadInput

STRIDES = (32, 16, 8)  # pixels of the network's input a cell, coarse to fine
ANCHORS_PER_CELL = 3
ANCHOR_SIZE = 416  # the input size at which anchors are written down

# YOLOv3's anchors (width, height at 416), made for COCO: `mtnet data anchors` fits them to heads.
COCO_ANCHORS = (
    (116, 90), (156, 198), (373, 326),
    (30, 61), (62, 45), (59, 119),
    (10, 13), (16, 30), (33, 23),
)  # fmt: skip


class Place(NamedTuple):
    """Where predictions sit; leading axes as those of the predictions."""

    cell: np.ndarray | jax.Array  # (..., 2) float32 column and row of the cell
    stride: np.ndarray | jax.Array  # (..., 1) float32 pixels a cell
    anchor_wh: np.ndarray | jax.Array  # (..., 2) float32 pixels


class Grid(NamedTuple):
    """The N predictions of an image. Static NumPy arrays, in pixels of the network's input."""

    size: int  # side of the input
    places: Place  # of all N
    level_anchors_wh: np.ndarray  # (3, 3, 2) float32 anchors of each level
    level_offset: np.ndarray  # (3,) int32 first flat index of each level

    def at(self, index: jax.Array) -> Place:
        """Places of the predictions with these flat indices (...)."""
        return Place(*(jnp.asarray(field)[index] for field in self.places))


def make_grid(size: int, anchors: Sequence[Sequence[float]] = COCO_ANCHORS) -> Grid:
    """The grid of a square input of `size` pixels.

    Args:
      size: side of the network's input, a multiple of 32.
      anchors: nine (width, height) at 416, three for each stride from 32 to 8.

    Raises:
      ValueError: a size or a list of anchors that does not fit.
    """
    if size <= 0 or size % STRIDES[0]:
        raise BadInput(f"Input size {size}: the network needs a positive multiple of {STRIDES[0]}.")
    level_anchors = np.asarray(anchors, np.float32)
    if level_anchors.shape != (9, 2) or not (level_anchors > 0).all():
        raise BadInput(f"Anchors must be nine pairs of positive width and height, not {anchors}.")
    level_anchors = level_anchors.reshape(3, ANCHORS_PER_CELL, 2) * (size / ANCHOR_SIZE)

    cells, strides, anchor_wh, offsets = [], [], [], [0]
    for stride, anchors_wh in zip(STRIDES, level_anchors, strict=True):
        k = size // stride
        row, column = np.meshgrid(np.arange(k), np.arange(k), indexing="ij")
        cell = np.stack([column, row], axis=-1).reshape(-1, 2)  # (k * k, 2)
        cells.append(np.repeat(cell, ANCHORS_PER_CELL, axis=0))
        strides.append(np.full((len(cells[-1]), 1), stride))
        anchor_wh.append(np.tile(anchors_wh, (len(cell), 1)))
        offsets.append(offsets[-1] + len(cells[-1]))
    return Grid(
        size=size,
        places=Place(
            cell=np.concatenate(cells).astype(np.float32),
            stride=np.concatenate(strides).astype(np.float32),
            anchor_wh=np.concatenate(anchor_wh).astype(np.float32),
        ),
        level_anchors_wh=level_anchors,
        level_offset=np.array(offsets[:-1], np.int32),
    )


def flatten_outputs(outputs: Sequence[jax.Array]) -> jax.Array:
    """Three maps (B, K, K, 3, C), strides 32 to 8 -> (B, N, C) in the order of `Grid`."""
    return jnp.concatenate([o.reshape(o.shape[0], -1, o.shape[-1]) for o in outputs], axis=1)


def decode_boxes(raw: jax.Array, place: Place) -> jax.Array:
    """Boxes of raw predictions (YOLOv3): centre = cell + sigmoid, size = anchor * exp.

    Args:
      raw: (B, n, >= 4) with tx, ty, tw, th first.
      place: where they sit, leading axes (B, n) or (1, n).

    Returns:
      (B, n, 4) xyxy in pixels of the network's input.
    """
    centre = (jax.nn.sigmoid(raw[..., :2]) + place.cell) * place.stride
    # exp(8) is 3000 anchors: no head is cut, and an untrained net cannot overflow.
    size = jnp.exp(jnp.minimum(raw[..., 2:4], 8.0)) * place.anchor_wh
    return box_ops.cxcywh_to_xyxy(jnp.concatenate([centre, size], axis=-1))


def cluster_anchors(sizes_wh: np.ndarray, *, seed: int = 0, rounds: int = 300) -> np.ndarray:
    """Nine anchors by k-means on box shapes with the distance 1 - IoU (YOLO9000, section 2).

    Args:
      sizes_wh: (n, 2) widths and heights of training boxes, scaled to an input of 416; n >= 9.
      seed: of the start (k-means++).
      rounds: at most this many.

    Returns:
      (9, 2) anchors as a config wants them: largest three first, each three by rising area.

    Raises:
      ValueError: fewer than nine boxes, or a box without a finite, positive size.
    """
    sizes_wh = np.asarray(sizes_wh, np.float64)
    if len(sizes_wh) < 9:
        raise BadInput(f"Nine anchors need at least nine boxes, got {len(sizes_wh)}.")
    bad = ~(np.isfinite(sizes_wh) & (sizes_wh > 0)).all(axis=1)
    if bad.any():
        raise BadInput(
            f"{bad.sum()} of {len(sizes_wh)} boxes have no finite, positive width and height, "
            f"the first one {sizes_wh[bad][0].tolist()}."
        )
    rng = np.random.default_rng(seed)
    centres = sizes_wh[rng.integers(len(sizes_wh))][None]
    while len(centres) < 9:
        distance = 1 - box_ops.shape_iou(sizes_wh[:, None], centres[None]).max(axis=1)
        weight = distance**2 + 1e-12
        centres = np.vstack([centres, sizes_wh[rng.choice(len(sizes_wh), p=weight / weight.sum())]])
    for _ in range(rounds):
        nearest = box_ops.shape_iou(sizes_wh[:, None], centres[None]).argmax(axis=1)
        moved = np.stack(
            [
                np.median(sizes_wh[nearest == k], axis=0) if (nearest == k).any() else centres[k]
                for k in range(9)
            ]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    ordered = centres[np.argsort(centres.prod(axis=1))].reshape(3, 3, 2)
    return ordered[::-1].reshape(9, 2)


def mean_best_iou(sizes_wh: np.ndarray, anchors: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Mean over boxes of the best shape IoU with any anchor; both at the same scale."""
    shapes = np.asarray(anchors, np.float64)
    return float(box_ops.shape_iou(np.asarray(sizes_wh)[:, None], shapes[None]).max(axis=1).mean())
