"""The network as an ONNX model, for onnxruntime and whatever else reads ONNX; docs/export.md.

The network itself is the description: JAX traces it with every layer left as one opaque operation,
and each operation of the trace becomes a node. What is not known here is refused by name, so a
network that changes cannot be exported wrongly. Maps are (B, H, W, C) in the trace and (B, C, H, W)
in the model, which is what ONNX's convolutions take; arrays of other ranks keep their axes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive, Var
from ml_collections import ConfigDict

from mtnet_jax.anchors import flatten_outputs
from mtnet_jax.errors import NotSupported
from mtnet_jax.export.graph import Graph, require, write_model
from mtnet_jax.export.metadata import INPUT, OUTPUT, describe
from mtnet_jax.export.stem import Layer, at_half_size, suits
from mtnet_jax.network.folding import Folded, fold
from mtnet_jax.network.layers import LEAKY_SLOPE, ConvBN, LinearConv, norm_factor
from mtnet_jax.network.multitask_net import MultitaskNet
from mtnet_jax.system import System, build_system
from mtnet_jax.weights import prediction_config

_PIXELS = "pixels"  # the network's input, 0 to 255
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes the model of `make_network`."""
    write_model(path, make_network(config, variables, **stated))


def make_network(config: ConfigDict, variables: dict[str, Any], **stated: str) -> Any:
    """The network, BatchNorm folded, as an `onnx.ModelProto`: images -> raw predictions.

    It computes in float32 whatever the configuration says; what differs between training and
    predicting is not in it.

    Args:
      config: of the network; the part that predicting needs goes into the model.
      variables: {"params", "batch_stats"}.
      **stated: for `mtnet_jax.export.metadata.describe`.

    Raises:
      RuntimeError: the package onnx is missing.
      NotImplementedError: the network does something that has no translation yet.
    """
    system = build_system(config)
    size = system.grid.size
    graph, predictions, shape = start_graph(system, variables)
    graph.add("Identity", [predictions], outputs=[OUTPUT])
    return graph.model(
        "multitask_net",
        {INPUT: (graph.types.UINT8, ["batch", size, size, 3])},
        {OUTPUT: (graph.types.FLOAT, ["batch", *shape])},
        describe(prediction_config(config), **stated),
    )


def start_graph(
    system: System, variables: dict[str, Any], *, halves: bool = True
) -> tuple[Graph, str, tuple[int, int]]:
    """A graph that holds the network: from `INPUT`, (batch, size, size, 3) uint8, on.

    Args:
      system: the network and what its outputs answer.
      variables: {"params", "batch_stats"}.
      halves: kernels that float16 holds exactly (of weights exported in half precision) lie in it,
        as they were before BatchNorm was folded in, and are brought to float32 when the file is
        opened: half of the size, the same numbers. False: they are constants of a convolution.

    Returns:
      The graph, the name of the raw predictions (batch, N, C), and (N, C).
    """
    # None of these changes what is computed: only how precisely, and what training keeps.
    model = system.model.clone(dtype=jnp.float32, remat="none")
    folded = jax.jit(partial(fold, model))(variables)
    trace = _trace(model, system.grid.size)
    halved = jax.device_get(_halves(variables)) if halves else {}
    layers = _layers(trace.jaxpr, jax.device_get(_weights(folded)), halved)
    graph = _NetworkGraph(require("onnx"), layers)
    maps = graph.add("Transpose", [INPUT], perm=_TO_CHANNELS_FIRST)
    graph.add("Cast", [maps], to=graph.types.FLOAT, outputs=[_PIXELS])
    (predictions,) = _translate(graph, trace.jaxpr, [_PIXELS])
    return graph, predictions, trace.out_avals[0].shape[1:]


class _NetworkGraph(Graph):
    """A graph that knows its layers by their paths."""

    def __init__(self, onnx: ModuleType, layers: dict[str, Layer]):
        super().__init__(onnx)
        self.layers = layers


def _weights(folded: Folded) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Kernel (k, k, I, O) and bias (O,) of every layer by its path."""
    params = flatten_dict(folded.params, sep="/")
    linear = {name.removesuffix("/kernel") for name in params if name.endswith("/kernel")}
    return {
        **{name: (unit.kernel, unit.bias) for name, unit in folded.units.items()},
        **{name: (params[f"{name}/kernel"], params[f"{name}/bias"]) for name in linear},
    }


def _halves(variables: dict[str, Any]) -> dict[str, tuple[np.ndarray, jax.Array]]:
    """Of every layer whose kernel float16 holds exactly: that, and BatchNorm's factor (O,)."""
    params, stats = (flatten_dict(variables[kind], sep="/") for kind in ("params", "batch_stats"))
    found = {}
    for name in (name for name in params if name.endswith("/kernel")):
        path, kernel = name.removesuffix("/kernel"), np.asarray(params[name])
        half = kernel.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), kernel):
            continue
        factor = jnp.ones(kernel.shape[-1], jnp.float32)
        if f"{path}/bn/scale" in params:
            factor = norm_factor(params[f"{path}/bn/scale"], stats[f"{path}/bn/var"])
        found[path] = half, factor
    return found


# --- what the network does -----------------------------------------------------------------------


def _layers(
    jaxpr: Jaxpr,
    weights: dict[str, tuple[np.ndarray, np.ndarray]],
    halves: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Layer]:
    """The layers of a trace by path, the first two at half the size where that is faster."""
    layers, operations = {}, [op for op in jaxpr.eqns if op.primitive is _layer]
    for operation in operations:
        path = operation.params["path"]
        kernel, bias = weights[path]
        pad = (kernel.shape[0] - 1) // 2
        stride = operation.params["stride"]
        layers[path] = Layer(kernel, bias, stride, (pad, pad), halves.get(path))
    if len(operations) < 2:
        return layers
    stem, down = operations[:2]
    pair = [operation.params["path"] for operation in (stem, down)]
    alone = [op for op in jaxpr.eqns if stem.outvars[0] in op.invars] == [down]
    if alone and suits(*(layers[path] for path in pair)):
        layers |= zip(pair, at_half_size(*(layers[path] for path in pair)), strict=True)
    return layers


# A layer as one operation of the trace; its weights are found by `path`.
_layer = Primitive("layer")


@_layer.def_abstract_eval
def _layer_shape(x: Any, *, path: str, features: int, stride: int, leaky: bool) -> Any:
    del path, leaky
    batch, height, width, _ = x.shape
    return jax.core.ShapedArray((batch, height // stride, width // stride, features), x.dtype)


def _trace(model: MultitaskNet, size: int) -> ClosedJaxpr:
    """The operations from images (1, size, size, 3) in [0, 1] to predictions (1, N, C)."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if isinstance(module, ConvBN | LinearConv) and context.method_name == "__call__":
            unit = isinstance(module, ConvBN)
            return _layer.bind(
                args[0],
                path="/".join(module.path),
                features=module.features,
                stride=module.stride if unit else 1,
                leaky=unit,
            )
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def predictions(x: jax.Array) -> jax.Array:
        return flatten_outputs(cast(list[jax.Array], model.apply({}, x)))

    with nn.intercept_methods(intercept):
        return jax.make_jaxpr(predictions)(images)


# --- its nodes ----------------------------------------------------------------------------------


def _translate(graph: _NetworkGraph, jaxpr: Jaxpr, inputs: list[str]) -> list[str]:
    """Adds a node for each operation of a trace; gives the names of its results."""
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    for operation in jaxpr.eqns:
        kind = operation.primitive.name
        if kind not in _TRANSLATIONS:
            _refuse(operation)
        read = [names.get(variable, "") for variable in _variables(operation)]
        if _PIXELS in read and kind != "layer":
            _refuse(operation)  # a layer has the factor 1 / 255 in its kernel
        results = _TRANSLATIONS[kind](graph, operation, read)
        names.update(zip(operation.outvars, results, strict=True))
    return [names[cast(Var, variable)] for variable in jaxpr.outvars]


def _variables(operation: JaxprEqn) -> Iterator[Any]:
    for variable in operation.invars:
        if hasattr(variable, "val"):  # a literal number
            _refuse(operation)
        yield variable


def _refuse(operation: JaxprEqn) -> None:
    raise NotSupported(f"The network has an operation that ONNX export lacks: {operation}")


def _shapes(operation: JaxprEqn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _aval(operation.invars[0]).shape, _aval(operation.outvars[0]).shape


def _aval(variable: Any) -> jax.core.ShapedArray:
    """Shape and type of an operand; every operand of a traced network has them."""
    return variable.aval


def _axis(axis: int, rank: int) -> int:
    """Where an axis of the trace lies in the model."""
    return _TO_CHANNELS_FIRST.index(axis) if rank == 4 else axis


def _add_layer(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    path = operation.params["path"]
    kernel, bias, stride, (before, after), half = graph.layers[path]
    if read == [_PIXELS]:
        kernel, half = kernel / np.float32(255), None
    stored = kernel if half is None else half[0]
    weights = graph.array(stored.transpose(3, 2, 0, 1), f"{path}/kernel")
    if half is not None:
        weights = graph.add("Cast", [weights], to=graph.types.FLOAT)
        weights = graph.add("Mul", [weights, graph.array(half[1].reshape(-1, 1, 1, 1))])
    maps = graph.add(
        "Conv",
        [*read, weights, graph.array(bias, f"{path}/bias")],
        kernel_shape=kernel.shape[:2],
        strides=[stride, stride],
        pads=[before, before, after, after],
    )
    if operation.params["leaky"]:
        maps = graph.add("LeakyRelu", [maps], alpha=LEAKY_SLOPE)
    return [maps]


def _add_sum(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return [graph.add("Add", read)]


def _add_tanh(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return [graph.add("Tanh", read)]


def _add_nothing(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return read


def _add_concatenation(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    rank = _aval(operation.outvars[0]).ndim
    return [graph.add("Concat", read, axis=_axis(operation.params["dimension"], rank))]


def _add_split(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    rank, sizes = _aval(operation.invars[0]).ndim, operation.params["sizes"]
    outputs = [f"{read[0]}_part{number}" for number in range(len(sizes))]
    inputs = [*read, graph.array(np.array(sizes, np.int64))]
    graph.add("Split", inputs, outputs=outputs, axis=_axis(operation.params["axis"], rank))
    return outputs


def _add_repetition(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    """Maps (B, H, W, C) as (B, H, a, W, b, C): no node yet, they are repeated by `_add_reshape`."""
    shape, wanted = _shapes(operation)
    axes = {4: (0, 1, 3, 5), 6: (0, 1, 2, 3, 4, 5)}.get(len(shape))
    kept = tuple(wanted[axis] for axis in (0, 1, 3, 5)) if len(wanted) == 6 else None
    maps = shape if len(shape) == 4 else (shape[0], shape[1], shape[3], shape[5])
    if operation.params["broadcast_dimensions"] != axes or kept != maps:
        _refuse(operation)
    return read


def _add_reshape(graph: _NetworkGraph, operation: JaxprEqn, read: list[str]) -> list[str]:
    shape, wanted = _shapes(operation)
    if len(shape) == 6:
        batch, height, down, width, right, channels = shape
        if wanted != (batch, height * down, width * right, channels):
            _refuse(operation)
        scales = graph.array(np.array([1, 1, down, right], np.float32))
        return [
            graph.add(
                "Resize",
                [*read, "", scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ]
    if wanted[0] != shape[0] or len(wanted) == 4 or operation.params["dimensions"] is not None:
        _refuse(operation)
    if len(shape) == 4:
        read = [graph.add("Transpose", read, perm=_TO_CHANNELS_LAST)]
    # 0: the batch, as it comes.
    return [graph.add("Reshape", [*read, graph.array(np.array([0, *wanted[1:]], np.int64))])]


_TRANSLATIONS = {
    "layer": _add_layer,
    "add": _add_sum,
    "tanh": _add_tanh,
    "stop_gradient": _add_nothing,
    "concatenate": _add_concatenation,
    "split": _add_split,
    "broadcast_in_dim": _add_repetition,
    "reshape": _add_reshape,
}
