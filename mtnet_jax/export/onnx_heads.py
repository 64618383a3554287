"""Images to heads as one ONNX model: the network, decoding, suppression and rotations.

The operators below do what `mtnet_jax.decode` does, with the same answers but for rounding.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.anchors import Grid
from mtnet_jax.decode import VOTE_IOU
from mtnet_jax.export.graph import Graph, write_model
from mtnet_jax.export.metadata import (
    HEADS_OUTPUTS,
    INPUT,
    IOU_THRESHOLD,
    SCORE_THRESHOLD,
    describe,
)
from mtnet_jax.export.onnx_network import start_graph
from mtnet_jax.export.onnx_rotations import add_rotations
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.system import System, build_system
from mtnet_jax.weights import prediction_config

_UNUSABLE = -1.0  # a score below every threshold


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes the model of `make_heads`."""
    write_model(path, make_heads(config, variables, halves=True, **stated))


def make_heads(
    config: ConfigDict, variables: dict[str, Any], *, halves: bool = True, **stated: str
) -> Any:
    """Images to heads as an `onnx.ModelProto`.

    Inputs: `images` (batch, size, size, 3) uint8 RGB letterboxed, and two float32 scalars,
    `score_threshold` and `iou_threshold`. Outputs, D = `config.decode.max_heads` slots an image by
    falling score: `boxes` (batch, D, 4) xyxy in pixels of the input, `scores` (batch, D), 0 where a
    slot is empty, `labels` (batch, D) int64, `rotations` (batch, D, 3, 3).

    Args:
      config: of the network.
      variables: {"params", "batch_stats"}.
      halves: see `mtnet_jax.export.onnx_network.start_graph`.
      **stated: for `mtnet_jax.export.metadata.describe`.

    Raises:
      RuntimeError: the package onnx is missing.
      NotImplementedError: the network does something that has no translation yet.
    """
    system = build_system(config)
    graph, predictions, (count, channels) = start_graph(system, variables, halves=halves)
    candidates = min(config.decode.candidates, count)
    slots = min(config.decode.max_heads, candidates)

    vote = config.decode.get("vote", False)
    # The score that makes a head; 0 is that of what is none.
    least = graph.add("Max", [SCORE_THRESHOLD, graph.number(float(np.finfo(np.float32).tiny))])
    matters = graph.add("Min", [least, graph.number(FOUND_SCORE)]) if vote else least
    best, boxes, scores = _candidates(graph, system, predictions, candidates, channels, matters)
    keep = _suppress(graph, boxes, scores, candidates, least)
    kept, order = _first_kept(graph, scores, keep, slots)
    pose_channels = system.representation.size
    _fill(graph, graph.add("Max", [kept, graph.number(0.0)]), slots, 2, "scores")
    heads = _take(graph, boxes, order, 4)
    _fill(graph, heads, slots, 3, "boxes")
    chosen = _take(graph, best, order, channels)
    classes = graph.part(chosen, 5, channels - pose_channels, 2)
    labels = graph.add("ArgMax", [classes], axis=2, keepdims=0)
    _fill(graph, labels, slots, 2, "labels")
    most = _most_true(graph, graph.add("GreaterOrEqual", [kept, graph.number(0.0)]))
    pose = _first(graph, graph.part(chosen, channels - pose_channels, channels, 2), most)
    if vote:
        poses = graph.part(best, channels - pose_channels, channels, 2)
        pose = _voted(graph, pose, _first(graph, heads, most), poses, boxes, scores)
    rotations = _rotations(graph, config.model.representation, pose, most)
    rotations = _fill(graph, rotations, slots, 3)
    graph.add("Reshape", [rotations, graph.ints(-1, slots, 3, 3)], outputs=["rotations"])

    types, size = graph.types, system.grid.size
    return graph.model(
        "multitask_net_heads",
        {
            INPUT: (types.UINT8, ["batch", size, size, 3]),
            SCORE_THRESHOLD: (types.FLOAT, []),
            IOU_THRESHOLD: (types.FLOAT, []),
        },
        dict(
            zip(
                HEADS_OUTPUTS,
                (
                    (types.FLOAT, ["batch", slots, 4]),
                    (types.FLOAT, ["batch", slots]),
                    (types.INT64, ["batch", slots]),
                    (types.FLOAT, ["batch", slots, 3, 3]),
                ),
                strict=True,
            )
        ),
        describe(prediction_config(config), **stated),
    )


def _candidates(
    graph: Graph, system: System, predictions: str, most: int, channels: int, matters: str
) -> tuple[str, str, str]:
    """The best n <= most, as many as score enough to matter in the image where most do: raw numbers
    (batch, n, C), boxes, scores (batch, n), falling."""
    num_classes = channels - 5 - system.representation.size
    sure = graph.add("Sigmoid", [graph.part(predictions, 4, 5 + num_classes, 2)])
    if num_classes > 1:
        best_class = graph.reduce("ReduceMax", graph.part(sure, 1, 1 + num_classes, 2), [2])
        sure = graph.add("Concat", [graph.part(sure, 0, 1, 2), best_class], axis=2)
    score = graph.reduce("ReduceProd", sure, [2])
    # NaN where one of a prediction's numbers is not finite, else 0.
    broken = graph.add("MatMul", [predictions, graph.array(np.zeros((channels, 1), np.float32))])
    score = graph.add("Add", [score, broken])
    # Numbers above 0 as they are, all else 0: NaN, too, is not above it.
    score = graph.add("ThresholdedRelu", [score], alpha=0.0)
    score = graph.add("Squeeze", [score, graph.ints(2)])
    # As many as matter in the image that has most: mostly few, and all that follows is as long.
    passing = _most_true(graph, graph.add("GreaterOrEqual", [score, matters]))
    count = graph.add("Min", [passing, graph.ints(most)])
    scores = graph.add("TopK", [score, count], axis=1, outputs=["best_scores", "best_index"])
    best = _take(graph, predictions, "best_index", channels)
    return best, _boxes(graph, system.grid, best, "best_index"), scores


def _boxes(graph: Graph, grid: Grid, best: str, index: str) -> str:
    """Boxes (batch, count, 4) of raw numbers; see `mtnet_jax.anchors.decode_boxes`."""
    cell, stride, anchor = (
        graph.add("Gather", [graph.array(np.asarray(field)), index], axis=0)
        for field in grid.places
    )
    offset = graph.add("Sigmoid", [graph.part(best, 0, 2, 2)])
    centre = graph.add("Mul", [graph.add("Add", [offset, cell]), stride])
    grown = graph.add("Exp", [graph.add("Min", [graph.part(best, 2, 4, 2), graph.number(8.0)])])
    half = graph.add("Mul", [graph.add("Mul", [grown, anchor]), graph.number(0.5)])
    corners = [graph.add(operator, [centre, half]) for operator in ("Sub", "Add")]
    return graph.add("Concat", corners, axis=2)


def _suppress(graph: Graph, boxes: str, scores: str, count: int, least: str) -> str:
    """(batch, count) float32: 1 where a candidate passes the threshold and is kept, else 0."""
    usable = graph.add("GreaterOrEqual", [scores, least])
    asked = graph.add("Where", [usable, scores, graph.number(_UNUSABLE)])
    one = graph.ints(1)
    selected = graph.add(
        "NonMaxSuppression",
        [
            boxes,
            graph.add("Unsqueeze", [asked, one]),
            graph.ints(count),
            graph.add("Reshape", [IOU_THRESHOLD, one]),
            graph.array(np.array([_UNUSABLE / 2], np.float32)),
        ],
    )  # (kept, 3): image, class, candidate
    where = graph.add("Gather", [selected, graph.ints(0, 2)], axis=1)
    shape = graph.add("Shape", [where], start=0, end=1)
    ones = graph.add("Expand", [graph.number(1.0), shape])
    zeros = graph.add("Mul", [asked, graph.number(0.0)])
    return graph.add("ScatterND", [zeros, where, ones])


def _first_kept(graph: Graph, scores: str, keep: str, slots: int) -> tuple[str, str]:
    """Scores of the first kept candidates, at most `slots`, negative after them, and where they
    stand."""
    kept = graph.add("Greater", [keep, graph.number(0.5)])
    ranked = graph.add("Where", [kept, scores, graph.number(_UNUSABLE)])
    count = graph.add("Min", [graph.add("Shape", [scores], start=1), graph.ints(slots)])
    graph.add("TopK", [ranked, count], axis=1, outputs=["kept_scores", "kept_order"])
    return "kept_scores", "kept_order"


def _take(graph: Graph, values: str, index: str, channels: int) -> str:
    """Rows (batch, n, channels) of values (batch, m, channels) by index (batch, n)."""
    index = graph.add("Unsqueeze", [index, graph.ints(2)])
    wide = graph.ints(1, 1, channels)
    return graph.add("GatherElements", [values, graph.add("Expand", [index, wide])], axis=1)


def _most_true(graph: Graph, flags: str) -> str:
    """(1,) how many flags (batch, n) hold in the image of a batch where most do; one at least: some
    runtimes refuse arrays of nothing."""
    numbers = graph.add("Cast", [flags], to=graph.types.INT64)
    count = graph.reduce("ReduceMax", graph.reduce("ReduceSum", numbers, [1], keep=False), [0])
    return graph.add("Max", [count, graph.ints(1)])


def _first(graph: Graph, values: str, count: str) -> str:
    """The first rows (batch, count, channels) of values."""
    return graph.add("Slice", [values, graph.ints(0), count, graph.ints(1)])


def _voted(graph: Graph, own: str, heads: str, poses: str, boxes: str, scores: str) -> str:
    """Mean pose numbers of each head (batch, count, np); see `mtnet_jax.decode._voted`."""
    one, two, zero = graph.ints(1), graph.ints(2), graph.number(0.0)
    found = graph.add("GreaterOrEqual", [scores, graph.number(FOUND_SCORE)])
    # Each coordinate alone, so that what is compared lies side by side: (batch, count, 1) of heads,
    # (batch, 1, n) of candidates.
    turned = graph.add("Transpose", [boxes], perm=[0, 2, 1])
    mine = [graph.part(heads, i, i + 1, 2) for i in range(4)]
    theirs = [graph.part(turned, i, i + 1, 1) for i in range(4)]

    def area(left: str, top: str, right: str, bottom: str) -> str:
        """Between corners; 0 where one is not where it should be."""
        sides = [graph.add("Sub", [right, left]), graph.add("Sub", [bottom, top])]
        return graph.add("Mul", [graph.add("Max", [side, zero]) for side in sides])

    pairs = list(zip(("Max", "Max", "Min", "Min"), mine, theirs, strict=True))
    both = area(*(graph.add(inner, [x, y]) for inner, x, y in pairs))
    union = graph.add("Sub", [graph.add("Add", [area(*mine), area(*theirs)]), both])
    # An overlap of more than VOTE_IOU, without a division; (batch, count, n)
    close = graph.add("Greater", [both, graph.add("Mul", [union, graph.number(VOTE_IOU)])])
    votes = graph.add("And", [close, graph.add("Unsqueeze", [found, one])])
    weights = graph.add("Where", [votes, graph.add("Unsqueeze", [scores, one]), zero])
    known = graph.add("Where", [graph.add("Unsqueeze", [found, two]), poses, zero])
    total = graph.reduce("ReduceSum", weights, [2])
    summed = graph.add("MatMul", [weights, known])
    mean = graph.add("Div", [summed, graph.add("Max", [total, graph.number(1e-6)])])
    return graph.add("Where", [graph.add("Greater", [total, zero]), mean, own])


def _rotations(graph: Graph, representation: str, pose: str, count: str) -> str:
    """Rotations (batch, count, 9) of pose numbers (batch, count, np)."""
    channels = graph.add("Shape", [pose], start=2)
    flat = graph.add("Reshape", [pose, graph.add("Concat", [graph.ints(-1), channels], axis=0)])
    rotations = add_rotations(graph, representation, flat)
    batch = graph.add("Shape", [pose], start=0, end=1)
    shape = graph.add("Concat", [batch, count, graph.ints(9)], axis=0)
    return graph.add("Reshape", [rotations, shape])


def _fill(graph: Graph, values: str, slots: int, rank: int, name: str = "") -> str:
    """Adds zeros to the second axis of values of this rank, up to `slots`; gives the name."""
    filled = graph.add("Shape", [values], start=1, end=2)
    missing = graph.add("Sub", [graph.ints(slots), filled])
    before, others = graph.ints(*(rank + 1) * [0]), graph.ints(*(rank - 2) * [0])
    # How much before each axis, then behind each.
    pads = graph.add("Concat", [before, missing, others], axis=0)
    return graph.add("Pad", [values, pads], outputs=[name] if name else ())
