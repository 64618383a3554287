"""An ONNX model in the making."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mtnet_jax.errors import Failed

# The oldest opset in which every operator used here means what it means here, and the IR version
# of its time: readers of 2022 know them.
OPSET, IR_VERSION = 18, 8


def require(package: str, extra: str = "export") -> ModuleType:
    """Imports a package that only some exports need.

    Args:
      package: its name in Python.
      extra: of this package, which installs it.

    Raises:
      RuntimeError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Failed(
            f"This needs the package {package}: pip install 'mtnet-jax[{extra}]', or, in a "
            f"clone, pip install -e '.[{extra}]'"
        ) from error


class Graph:
    """Nodes in their order, and the arrays they read."""

    def __init__(self, onnx: ModuleType):
        self.types = onnx.TensorProto
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._arrays: list[Any] = []

    def add(
        self, operator: str, inputs: Sequence[str], *, outputs: Sequence[str] = (), **attributes
    ) -> str:
        """Adds a node, gives the name of its (first) output."""
        outputs = list(outputs) or [f"{operator.lower()}_{len(self._nodes)}"]
        node = self._onnx.helper.make_node(
            operator, list(inputs), outputs, name=outputs[0], **attributes
        )
        self._nodes.append(node)
        return outputs[0]

    def array(self, values: Any, name: str | None = None) -> str:
        """Adds a constant, gives its name."""
        name = name or f"array_{len(self._arrays)}"
        values = np.ascontiguousarray(values)
        self._arrays.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        """Adds a float32 scalar, gives its name."""
        # np.ascontiguousarray would make it an array of one.
        name = f"array_{len(self._arrays)}"
        self._arrays.append(self._onnx.numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def ints(self, *values: int) -> str:
        """Adds a list of int64, gives its name."""
        return self.array(np.array(values, np.int64))

    def part(self, x: str, start: int, stop: int, axis: int) -> str:
        """A slice of an axis, gives its name."""
        bounds = [self.ints(value) for value in (start, stop, axis)]
        return self.add("Slice", [x, *bounds])

    def reduce(self, operator: str, x: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """ReduceSum, ReduceMax, ... over some axes, gives its name."""
        return self.add(operator, [x, self.ints(*axes)], keepdims=int(keep))

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[int, Sequence[int | str]]],
        outputs: Mapping[str, tuple[int, Sequence[int | str]]],
        metadata: Mapping[str, str],
    ) -> Any:
        """The finished `onnx.ModelProto`.

        Args:
          name: of the graph.
          inputs: name -> (element type, shape); a word in a shape stands for any number.
          outputs: as `inputs`.
          metadata: key -> text, kept in the file.
        """
        helper = self._onnx.helper

        def described(values: Mapping[str, tuple[int, Sequence[int | str]]]) -> list[Any]:
            return [helper.make_tensor_value_info(n, *what) for n, what in values.items()]

        graph = helper.make_graph(
            self._nodes, name, described(inputs), described(outputs), self._arrays
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="mtnet_jax")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        return model


def write_model(path: Path, model: Any) -> None:
    """Writes an `onnx.ModelProto`."""
    path.write_bytes(model.SerializeToString())
