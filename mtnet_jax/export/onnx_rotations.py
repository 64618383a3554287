"""Rotations of the network's pose numbers as ONNX operators: what `representations` decodes."""

import numpy as np

from mtnet_jax.export.graph import Graph
from mtnet_jax.export.horn import (
    LEAST_SHIFT,
    SQUARINGS,
    SQUARINGS_A_DIVISION,
    TINY,
    horn_of_columns,
    rotation_of_products,
)
from mtnet_jax.representations import EULER_SCALE


def add_rotations(graph: Graph, representation: str, pose: str) -> str:
    """Adds what turns pose numbers (n, np) into rotations (n, 9), row by row; gives its name."""
    quaternions = {
        "vectors": _nearest,
        "sixd": _of_two_columns,
        "quaternion": _unit,
        "euler": _of_euler,
    }[representation](graph, pose)
    column = graph.add("Unsqueeze", [quaternions, graph.ints(2)])
    row = graph.add("Unsqueeze", [quaternions, graph.ints(1)])
    products = graph.add("Mul", [column, row])
    flat = graph.add("Reshape", [products, graph.ints(-1, 16)])
    return graph.add("MatMul", [flat, graph.array(rotation_of_products())])


def _nearest(graph: Graph, columns: str) -> str:
    """Three columns (n, 9) -> the quaternion (n, 4) of the nearest rotation, as in `horn`."""
    largest = graph.reduce("ReduceMax", graph.add("Abs", [columns]), [1])
    columns = graph.add("Div", [columns, graph.add("Max", [largest, graph.number(TINY)])])
    squares = graph.reduce("ReduceSumSquare", columns, [1])
    shift = graph.add("Sqrt", [graph.add("Mul", [squares, graph.number(3.0)])])
    shift = graph.add("Max", [shift, graph.number(LEAST_SHIFT)])
    identity = graph.array(np.eye(4, dtype=np.float32).reshape(1, 16))
    k = graph.add("MatMul", [columns, graph.array(horn_of_columns())])
    power = graph.add("Add", [k, graph.add("Mul", [shift, identity])])
    # The heads last, so that all of them are multiplied at once: a MatMul goes from one 4x4 to the
    # next, and fifty of them would take a quarter of a millisecond.
    power = graph.add(
        "Reshape", [graph.add("Transpose", [power], perm=[1, 0]), graph.ints(4, 4, -1)]
    )
    for _ in range(SQUARINGS // SQUARINGS_A_DIVISION):
        power = _by_trace(graph, power)
        for _ in range(SQUARINGS_A_DIVISION):
            power = _squared(graph, power)
    longest = _longest_column(graph, _by_trace(graph, power))
    return _unit(graph, graph.add("Transpose", [longest], perm=[1, 0]))


def _squared(graph: Graph, matrices: str) -> str:
    """Squares of symmetric matrices (4, 4, n): products of their columns."""
    left, right = (graph.add("Unsqueeze", [matrices, graph.ints(axis)]) for axis in (2, 1))
    return graph.reduce("ReduceSum", graph.add("Mul", [left, right]), [0], keep=False)


def _diagonal(graph: Graph, matrices: str) -> str:
    """(4, 4, n) -> (4, n)."""
    identity = graph.array(np.eye(4, dtype=np.float32).reshape(4, 4, 1))
    return graph.reduce("ReduceSum", graph.add("Mul", [matrices, identity]), [0], keep=False)


def _by_trace(graph: Graph, matrices: str) -> str:
    return graph.add("Div", [matrices, graph.reduce("ReduceSum", _diagonal(graph, matrices), [0])])


def _longest_column(graph: Graph, matrices: str) -> str:
    """Of parallel columns (4, 4, n) the one (4, n) with the largest entry on the diagonal."""
    longest = graph.add("ArgMax", [_diagonal(graph, matrices)], axis=0, keepdims=0)
    off_on = graph.array(np.array([0, 1], np.float32))
    picked = graph.add("OneHot", [longest, graph.ints(4), off_on], axis=0)
    return graph.reduce("ReduceSum", graph.add("Mul", [matrices, picked]), [1], keep=False)


def _unit(graph: Graph, vectors: str) -> str:
    """(n, k) -> (n, k) of length 1."""
    # Scaled first, so that squares neither overflow nor vanish.
    largest = graph.reduce("ReduceMax", graph.add("Abs", [vectors]), [1])
    vectors = graph.add("Div", [vectors, graph.add("Max", [largest, graph.number(TINY)])])
    length = graph.add("Sqrt", [graph.reduce("ReduceSumSquare", vectors, [1])])
    return graph.add("Div", [vectors, graph.add("Max", [length, graph.number(TINY)])])


def _of_two_columns(graph: Graph, columns: str) -> str:
    """Two columns one after another (n, 6) -> (n, 4): Gram-Schmidt, then as `_nearest`."""
    first = _unit(graph, graph.part(columns, 0, 3, 1))
    second = _rejected(graph, _unit(graph, graph.part(columns, 3, 6, 1)), first)
    # Once more: the first rejection of a near-parallel pair is inexact.
    second = _unit(graph, _rejected(graph, _unit(graph, second), first))
    third = _cross(graph, first, second)
    return _nearest(graph, graph.add("Concat", [first, second, third], axis=1))


def _rejected(graph: Graph, vectors: str, axes: str) -> str:
    """The part of vectors (n, 3) at right angles to unit vectors (n, 3)."""
    along = graph.reduce("ReduceSum", graph.add("Mul", [vectors, axes]), [1])
    return graph.add("Sub", [vectors, graph.add("Mul", [along, axes])])


def _cross(graph: Graph, a: str, b: str) -> str:
    """The vector products of (n, 3) and (n, 3)."""

    def turned(x: str, by: int) -> str:
        order = graph.array(np.roll(np.arange(3, dtype=np.int64), -by))
        return graph.add("Gather", [x, order], axis=1)

    left = graph.add("Mul", [turned(a, 1), turned(b, 2)])
    right = graph.add("Mul", [turned(a, 2), turned(b, 1)])
    return graph.add("Sub", [left, right])


def _of_euler(graph: Graph, angles: str) -> str:
    """Scaled canonical yaw, pitch, roll (n, 3) -> (n, 4), Rx(-pitch) Ry(yaw) Rz(roll)."""
    halves = np.asarray(EULER_SCALE, np.float32) * np.array([1, -1, 1]) * np.pi / 360
    half = graph.add("Mul", [angles, graph.array(halves.astype(np.float32))])
    cosine, sine = graph.add("Cos", [half]), graph.add("Sin", [half])
    (cy, cx, cz), (sy, sx, sz) = (
        [graph.part(x, i, i + 1, 1) for i in range(3)] for x in (cosine, sine)
    )

    def term(sign: str, *three: tuple[str, str, str]) -> str:
        first, second = (graph.add("Mul", [graph.add("Mul", [a, b]), c]) for a, b, c in three)
        return graph.add(sign, [first, second])

    w = term("Sub", (cx, cy, cz), (sx, sy, sz))
    x = term("Add", (sx, cy, cz), (cx, sy, sz))
    y = term("Sub", (cx, sy, cz), (sx, cy, sz))
    z = term("Add", (cx, cy, sz), (sx, sy, cz))
    return graph.add("Concat", [w, x, y, z], axis=1)
