"""The two layers the whole network is made of.

A layer's compute type (`dtype`) may be bfloat16; parameters and BatchNorm statistics are float32
always.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.network.convolution import Convolution, conv2d
from mtnet_jax.network.normalisation import Normalisation, batch_norm_leaky

Array = jax.Array

LEAKY_SLOPE = 0.1
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9  # new running value = 0.9 old + 0.1 batch
CHANNEL_MULTIPLE = 8


def scaled_channels(channels: int, width: float) -> int:
    """Channel count of a narrower or wider net: the nearest multiple of 8, at least 8.

    Args:
      channels: count in the net of the paper (width 1).
      width: multiplier, positive.

    Returns:
      The count to use; exactly `channels` at width 1 for every layer of the paper's net.
    """
    return max(1, int(channels * width / CHANNEL_MULTIPLE + 0.5)) * CHANNEL_MULTIPLE


def recomputed(layer: type[nn.Module]) -> type[nn.Module]:
    """The same layer, of which training keeps the input alone and computes the rest again.

    Args:
      layer: called as layer(...)(maps, train), `train` known when compiling.
    """
    return nn.remat(layer, static_argnums=(2,))


def norm_factor(scale_C: Array, variance_C: Array) -> Array:
    """(C,) what BatchNorm with running statistics multiplies each channel by."""
    return scale_C * jax.lax.rsqrt(variance_C + BN_EPSILON)


class ConvBN(nn.Module):
    """Convolution without bias, BatchNorm, LeakyReLU 0.1: the unit of Darknet-53 and of the FPN.

    Attributes:
      features: output channels.
      kernel_size: 1 or 3 (square); the map keeps its size at stride 1, halves at stride 2.
      stride: 1 or 2.
      scale_init: initial scale of the BatchNorm.
      dtype: compute type of the convolution and of the output.
      conv, norm: see `MultitaskNet`.
    """

    features: int
    kernel_size: int
    stride: int = 1
    scale_init: float = 1.0
    dtype: Any = jnp.float32
    conv: Convolution = conv2d
    norm: Normalisation = batch_norm_leaky

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool) -> Array:
        """Applies the unit.

        Args:
          x_BxHxWxC: input maps.
          train: normalise with the statistics of this batch and update the running ones; otherwise
            normalise with the running ones, which stay as they are.

        Returns:
          (B, H / stride, W / stride, features) in `dtype`.
        """
        shape_HWIO = (self.kernel_size, self.kernel_size, x_BxHxWxC.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_uniform(), shape_HWIO, jnp.float32)
        y = self.conv(x_BxHxWxC.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        return NormLeaky(self.scale_init, self.norm, name="bn")(y, train=train)


class NormLeaky(nn.Module):
    """BatchNorm, then LeakyReLU 0.1; statistics in float32, output in the type of the input.

    Attributes:
      scale_init: initial scale.
      norm: see `MultitaskNet`.
    """

    scale_init: float = 1.0
    norm: Normalisation = batch_norm_leaky

    @nn.compact
    def __call__(self, y_BxHxWxC: Array, *, train: bool) -> Array:
        """Applies both; `train` as in `ConvBN`."""
        channels = (y_BxHxWxC.shape[-1],)
        scale = self.param(
            "scale", nn.initializers.constant(self.scale_init), channels, jnp.float32
        )
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if train:
            z, batch_mean, batch_var = self.norm(y_BxHxWxC, scale, bias, BN_EPSILON, LEAKY_SLOPE)
            if not self.is_initializing():
                mean.value = BN_MOMENTUM * mean.value + (1 - BN_MOMENTUM) * batch_mean
                var.value = BN_MOMENTUM * var.value + (1 - BN_MOMENTUM) * batch_var
            return z
        factor = norm_factor(scale, var.value)
        shift = bias - mean.value * factor
        z = y_BxHxWxC.astype(jnp.float32) * factor.reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)
        return nn.leaky_relu(z, LEAKY_SLOPE).astype(y_BxHxWxC.dtype)


class LinearConv(nn.Module):
    """1x1 convolution with bias and nothing after it: the last layer of a branch.

    Attributes:
      features: output channels.
      bias_init: initialiser of the bias.
      dtype: compute type of the product; the sum with the bias and the output are float32.
      conv: see `MultitaskNet`.
    """

    features: int
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = jnp.float32
    conv: Convolution = conv2d

    @nn.compact
    def __call__(self, x_BxHxWxC: Array) -> Array:
        """Applies the layer: (B, H, W, C) -> (B, H, W, features) float32."""
        shape_HWIO = (1, 1, x_BxHxWxC.shape[-1], self.features)
        # Small weights: an untrained net predicts its anchors and its bias, and no wild boxes.
        kernel = self.param("kernel", nn.initializers.normal(0.01), shape_HWIO, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        y = self.conv(x_BxHxWxC.astype(self.dtype), kernel.astype(self.dtype), 1)
        return y.astype(jnp.float32) + bias.reshape(1, 1, 1, -1)
