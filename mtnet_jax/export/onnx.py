"""The network as an ONNX model, for onnxruntime and whatever else reads ONNX; docs/export.md.

The network itself is the description: JAX traces it with every layer left as one opaque operation,
and each operation of the trace becomes a node. What is not known here is refused by name, so a
network that changes cannot be exported wrongly. Maps are (B, H, W, C) in the trace and (B, C, H, W)
in the model, which is what ONNX's convolutions take; arrays of other ranks keep their axes.
"""

import importlib
import os
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
from mtnet_jax.errors import Failed
from mtnet_jax.network.folding import Folded, fold
from mtnet_jax.network.layers import LEAKY_SLOPE, ConvBN, LinearConv
from mtnet_jax.network.multitask_net import MultitaskNet
from mtnet_jax.system import System, build_system
from mtnet_jax.weights import prediction_config

NETWORK = "network.onnx"  # in an exported folder
INPUT, OUTPUT = "images", "predictions"
CONFIG_KEY = "mtnet_config"  # of the metadata: the configuration as JSON
# The oldest in which every operator used here means what it means here: readers of 2021 know it.
OPSET, IR_VERSION = 15, 8

_PIXELS = "pixels"  # the network's input, 0 to 255
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def require(package: str) -> ModuleType:
    """Imports onnx or onnxruntime, which are optional.

    Raises:
      RuntimeError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Failed(f"This needs the package {package}: pip install -e '.[onnx]'") from error


def write_onnx(path: str | os.PathLike, config: ConfigDict, variables: dict[str, Any]) -> None:
    """Writes the network, BatchNorm folded, as an ONNX file.

    Args:
      path: of the file; it is replaced whole.
      config: of the network; the part that predicting needs goes into the file.
      variables: {"params", "batch_stats"}.

    Raises:
      RuntimeError: the package onnx is missing.
      NotImplementedError: the network does something that has no translation yet.
      OSError: the file cannot be written.
    """
    path = Path(path)
    data = make_model(config, variables).SerializeToString()
    part = path.with_name("partial-" + path.name)
    part.write_bytes(data)
    part.replace(path)


def make_model(config: ConfigDict, variables: dict[str, Any]) -> Any:
    """The network, BatchNorm folded, as an `onnx.ModelProto`; see `write_onnx`.

    It computes in float32 whatever the configuration says; what differs between training and
    predicting is not in it.
    """
    onnx = require("onnx")
    system = build_system(config)
    # None of these changes what is computed: only how precisely, and what training keeps.
    model = system.model.clone(dtype=jnp.float32, remat="none")
    folded = jax.jit(partial(fold, model, winograd=False))(variables)
    weights = jax.device_get(_weights(folded))

    graph = _Graph(onnx, weights)
    size = system.grid.size
    maps = graph.add("Transpose", [INPUT], perm=_TO_CHANNELS_FIRST)
    graph.add("Cast", [maps], to=onnx.TensorProto.FLOAT, outputs=[_PIXELS])
    trace = _trace(model, size)
    (predictions,) = _translate(graph, trace.jaxpr, [_PIXELS])
    graph.add("Identity", [predictions], outputs=[OUTPUT])
    return graph.model(system, trace.out_avals[0].shape, prediction_config(config))


def _weights(folded: Folded) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Kernel (k, k, I, O) and bias (O,) of every layer by its path."""
    params = flatten_dict(folded.params, sep="/")
    linear = {name.removesuffix("/kernel") for name in params if name.endswith("/kernel")}
    return {
        **{name: (unit.kernel, unit.bias) for name, unit in folded.units.items()},
        **{name: (params[f"{name}/kernel"], params[f"{name}/bias"]) for name in linear},
    }


# --- what the network does -----------------------------------------------------------------------

# A layer as one operation of the trace; its weights are found by `path`.
_layer = Primitive("layer")


@_layer.def_abstract_eval
def _layer_shape(x: Any, *, path: str, features: int, stride: int, leaky: bool) -> Any:
    del path, leaky
    batch, height, width, _ = x.shape
    return jax.core.ShapedArray((batch, height // stride, width // stride, features), x.dtype)


def _trace(model: MultitaskNet, size: int) -> ClosedJaxpr:
    """The operations from pictures (1, size, size, 3) in [0, 1] to predictions (1, N, C)."""

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


# --- the model -----------------------------------------------------------------------------------


class _Graph:
    """An ONNX model in the making: nodes in their order, and the arrays they read."""

    def __init__(self, onnx: ModuleType, weights: dict[str, tuple[np.ndarray, np.ndarray]]):
        self._onnx = onnx
        self.weights = weights
        self._nodes: list[Any] = []
        self._arrays: list[Any] = []

    def add(
        self, operator: str, inputs: list[str], *, outputs: list[str] | None = None, **attributes
    ) -> str:
        """Adds a node, gives the name of its (first) output."""
        outputs = outputs or [f"{operator.lower()}_{len(self._nodes)}"]
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def array(self, values: np.ndarray, name: str | None = None) -> str:
        """Adds a constant, gives its name."""
        name = name or f"array_{len(self._arrays)}"
        values = np.ascontiguousarray(values)
        self._arrays.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def model(self, system: System, out_shape: tuple[int, ...], config: ConfigDict) -> Any:
        """The finished model; the batch may be of any size."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        size = system.grid.size
        graph = helper.make_graph(
            self._nodes,
            "multitask_net",
            [helper.make_tensor_value_info(INPUT, types.UINT8, ["batch", size, size, 3])],
            [helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["batch", *out_shape[1:]])],
            self._arrays,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="mtnet_jax")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, {CONFIG_KEY: config.to_json()})
        return model


def _translate(graph: _Graph, jaxpr: Jaxpr, inputs: list[str]) -> list[str]:
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
    raise NotImplementedError(f"The network has an operation that ONNX export lacks: {operation}")


def _shapes(operation: JaxprEqn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _aval(operation.invars[0]).shape, _aval(operation.outvars[0]).shape


def _aval(variable: Any) -> jax.core.ShapedArray:
    """Shape and type of an operand; every operand of a traced network has them."""
    return variable.aval


def _axis(axis: int, rank: int) -> int:
    """Where an axis of the trace lies in the model."""
    return _TO_CHANNELS_FIRST.index(axis) if rank == 4 else axis


def _add_layer(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    path, stride = operation.params["path"], operation.params["stride"]
    kernel, bias = graph.weights[path]
    if read == [_PIXELS]:
        kernel = kernel / np.float32(255)
    side = kernel.shape[0]
    maps = graph.add(
        "Conv",
        [
            *read,
            graph.array(kernel.transpose(3, 2, 0, 1), f"{path}/kernel"),
            graph.array(bias, f"{path}/bias"),
        ],
        kernel_shape=[side, side],
        strides=[stride, stride],
        pads=4 * [(side - 1) // 2],
    )
    if operation.params["leaky"]:
        maps = graph.add("LeakyRelu", [maps], alpha=LEAKY_SLOPE)
    return [maps]


def _add_sum(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return [graph.add("Add", read)]


def _add_tanh(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return [graph.add("Tanh", read)]


def _add_nothing(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    return read


def _add_concatenation(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    rank = _aval(operation.outvars[0]).ndim
    return [graph.add("Concat", read, axis=_axis(operation.params["dimension"], rank))]


def _add_split(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    rank, sizes = _aval(operation.invars[0]).ndim, operation.params["sizes"]
    outputs = [f"{read[0]}_part{number}" for number in range(len(sizes))]
    inputs = [*read, graph.array(np.array(sizes, np.int64))]
    graph.add("Split", inputs, outputs=outputs, axis=_axis(operation.params["axis"], rank))
    return outputs


def _add_repetition(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
    """Maps (B, H, W, C) as (B, H, a, W, b, C): no node yet, they are repeated by `_add_reshape`."""
    shape, wanted = _shapes(operation)
    axes = {4: (0, 1, 3, 5), 6: (0, 1, 2, 3, 4, 5)}.get(len(shape))
    kept = tuple(wanted[axis] for axis in (0, 1, 3, 5)) if len(wanted) == 6 else None
    maps = shape if len(shape) == 4 else (shape[0], shape[1], shape[3], shape[5])
    if operation.params["broadcast_dimensions"] != axes or kept != maps:
        _refuse(operation)
    return read


def _add_reshape(graph: _Graph, operation: JaxprEqn, read: list[str]) -> list[str]:
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
