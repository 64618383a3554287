"""The network for predicting: the same outputs, fewer operations.

With running statistics BatchNorm is a factor and a shift for each channel. The factor goes into the
kernel of the convolution before it, the shift becomes its bias. That is done once for a set of
weights, with whatever else a convolution wants to have done to a kernel:

    folded = fold(model, variables)
    outputs = apply_folded(model, folded, images)  # as model.apply(variables, images)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from mtnet_jax.anchors import STRIDES
from mtnet_jax.network.convolution import Convolution, conv2d
from mtnet_jax.network.layers import LEAKY_SLOPE, ConvBN, norm_factor
from mtnet_jax.network.multitask_net import MultitaskNet


class FoldedConvolution(NamedTuple):
    """How kernels are kept and applied; `mtnet_jax.cpu.choice` has one for CPUs."""

    prepare: Callable[[jax.Array, int], jax.Array]  # (kernel, stride) -> as it is kept
    apply: Convolution  # (maps, kernel as it is kept, stride) -> maps


PLAIN = FoldedConvolution(prepare=lambda kernel, stride: kernel, apply=conv2d)


class FoldedUnit(NamedTuple):
    """Weights of a `ConvBN` for predicting."""

    kernel: jax.Array  # (size, size, I, O), or as `FoldedConvolution.prepare` left it
    bias: jax.Array  # (O,)


class Folded(NamedTuple):
    """Weights of a network for predicting."""

    units: dict[str, FoldedUnit]  # by the path of the `ConvBN`, as in "backbone/stem"
    params: dict[str, Any]  # of all other layers, as in the variables


def fold(
    model: MultitaskNet, variables: Mapping[str, Any], convolution: FoldedConvolution = PLAIN
) -> Folded:
    """Folds every BatchNorm into the convolution before it.

    Args:
      model: the network.
      variables: {"params", "batch_stats"} of it.
      convolution: what will be given to `apply_folded`.

    Returns:
      What `apply_folded` takes.
    """
    params = flatten_dict(variables["params"], sep="/")
    stats = flatten_dict(variables["batch_stats"], sep="/")
    units = {}
    for name, unit in _units(model).items():
        kernel, scale, bias = (params.pop(f"{name}/{p}") for p in ("kernel", "bn/scale", "bn/bias"))
        factor = norm_factor(scale, stats[f"{name}/bn/var"])
        kernel = kernel * factor.reshape(1, 1, 1, -1)
        kernel = convolution.prepare(kernel, unit.stride)
        units[name] = FoldedUnit(kernel, bias - stats[f"{name}/bn/mean"] * factor)
    return Folded(units, unflatten_dict(params, sep="/"))


def apply_folded(
    model: MultitaskNet,
    folded: Folded,
    images_BxHxWx3: jax.Array,
    convolution: FoldedConvolution = PLAIN,
) -> list[jax.Array]:
    """The outputs of `model.apply(variables, images)` with running statistics, up to rounding."""

    def compute(name: str, unit: ConvBN, x: jax.Array) -> jax.Array:
        kernel, bias = folded.units[name]
        y = convolution.apply(x.astype(unit.dtype), kernel.astype(unit.dtype), unit.stride)
        z = y.astype(jnp.float32) + bias.reshape(1, 1, 1, -1)
        return jnp.maximum(z, LEAKY_SLOPE * z).astype(y.dtype)

    with _instead_of_units(compute):
        outputs = model.apply({"params": folded.params}, images_BxHxWx3)
    assert isinstance(outputs, list)  # for the type checker: flax may give state beside them
    return outputs


def _units(model: MultitaskNet) -> dict[str, ConvBN]:
    """Every `ConvBN` of a network by its path; nothing is computed."""
    found = {}

    def note(name: str, unit: ConvBN, x: jax.Array) -> jax.Array:
        found[name] = unit
        b, h, w, _ = x.shape
        return jnp.zeros((b, h // unit.stride, w // unit.stride, unit.features), unit.dtype)

    image = jax.ShapeDtypeStruct((1, STRIDES[0], STRIDES[0], 3), jnp.float32)
    with _instead_of_units(note):
        jax.eval_shape(model.init, jax.random.key(0), image)
    return found


def _instead_of_units(compute: Callable[[str, ConvBN, jax.Array], jax.Array]) -> Any:
    """A context in which every `ConvBN` is replaced by `compute(path, the ConvBN, its input)`."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        unit = context.module
        if isinstance(unit, ConvBN) and context.method_name == "__call__":
            return compute("/".join(unit.path), unit, args[0])
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
