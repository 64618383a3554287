"""The network for predicting: the same outputs, fewer operations.

With running statistics BatchNorm is a factor and a shift for each channel. The factor goes into the
kernel of the convolution before it, the shift becomes its bias. On the CPU, most 3x3 kernels are
also transformed for `winograd_conv`. Both are done once for a set of weights:

    folded = fold(model, variables, winograd=True)
    outputs = apply_folded(model, folded, images)  # as model.apply(variables, images)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from mtnet_jax.anchors import STRIDES
from mtnet_jax.cpu import onednn
from mtnet_jax.cpu.convolution import conv2d, xla_conv2d
from mtnet_jax.cpu.winograd import transform_kernel, winograd_conv
from mtnet_jax.network.layers import BN_EPSILON, LEAKY_SLOPE, ConvBN
from mtnet_jax.network.multitask_net import MultitaskNet

# On CPUs (docs/performance.md): with fewer input channels Winograd's transforms cost more than the
# products that they save; oneDNN, where it is, is the faster one up to more channels.
LEAST_WINOGRAD_CHANNELS, LEAST_WINOGRAD_CHANNELS_BESIDE_ONEDNN = 32, 128
# oneDNN brings a kernel into its own order at every call. Where kernels are large beside the maps,
# as in the wide layers of the paper's net, XLA's convolution is faster.
MOST_WEIGHTS_OF_A_TAP = 64 * 128


class FoldedUnit(NamedTuple):
    """Weights of a `ConvBN` for predicting."""

    kernel: jax.Array  # (size, size, I, O); (4, 4, I, O) where transformed for Winograd
    bias: jax.Array  # (O,)


class Folded(NamedTuple):
    """Weights of a network for predicting."""

    units: dict[str, FoldedUnit]  # by the path of the `ConvBN`, as in "backbone/stem"
    params: dict[str, Any]  # of all other layers, as in the variables


def fold(model: MultitaskNet, variables: Mapping[str, Any], *, winograd: bool) -> Folded:
    """Folds every BatchNorm into the convolution before it.

    Args:
      model: the network.
      variables: {"params", "batch_stats"} of it.
      winograd: transform the 3x3 kernels of stride 1 for `winograd_conv`. They grow by 16 / 9; the
        outputs change by rounding. Pays on CPUs; other backends choose such algorithms themselves.

    Returns:
      What `apply_folded` takes.
    """
    params = flatten_dict(variables["params"], sep="/")
    stats = flatten_dict(variables["batch_stats"], sep="/")
    units = {}
    for name, unit in _units(model).items():
        kernel, scale, bias = (params.pop(f"{name}/{p}") for p in ("kernel", "bn/scale", "bn/bias"))
        factor = scale * jax.lax.rsqrt(stats[f"{name}/bn/var"] + BN_EPSILON)
        kernel = kernel * factor.reshape(1, 1, 1, -1)
        if winograd and _suits_winograd(unit, kernel):
            kernel = transform_kernel(kernel)
        units[name] = FoldedUnit(kernel, bias - stats[f"{name}/bn/mean"] * factor)
    return Folded(units, unflatten_dict(params, sep="/"))


def apply_folded(model: MultitaskNet, folded: Folded, images_BxHxWx3: jax.Array) -> list[jax.Array]:
    """The outputs of `model.apply(variables, images)` with running statistics, up to rounding."""

    def compute(name: str, unit: ConvBN, x: jax.Array) -> jax.Array:
        return _apply_unit(folded.units[name], x.astype(unit.dtype), unit.stride)

    with _instead_of_units(compute):
        outputs = model.apply({"params": folded.params}, images_BxHxWx3)
    assert isinstance(outputs, list)  # for the type checker: flax may give state beside them
    return outputs


def _apply_unit(folded: FoldedUnit, x_BxHxWxC: jax.Array, stride: int) -> jax.Array:
    kernel = folded.kernel.astype(x_BxHxWxC.dtype)
    if kernel.shape[0] == 4:
        y = winograd_conv(x_BxHxWxC, kernel)
    elif kernel.shape[2] * kernel.shape[3] <= MOST_WEIGHTS_OF_A_TAP:
        y = conv2d(x_BxHxWxC, kernel, stride)
    else:
        y = xla_conv2d(x_BxHxWxC, kernel, stride)
    z = y.astype(jnp.float32) + folded.bias.reshape(1, 1, 1, -1)
    return jnp.maximum(z, LEAKY_SLOPE * z).astype(y.dtype)


def _suits_winograd(unit: ConvBN, kernel: jax.Array) -> bool:
    size, _, inputs, _ = kernel.shape
    least = LEAST_WINOGRAD_CHANNELS_BESIDE_ONEDNN if onednn.available() else LEAST_WINOGRAD_CHANNELS
    return size == 3 and unit.stride == 1 and inputs >= least


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
