"""BatchNorm with LeakyReLU as one function, plain, and with a gradient of its own.

Differentiating the two layers as they stand keeps the normalised map, the map before the LeakyReLU
and a mask for the backward pass, and reads them all again. The gradient written here keeps the
input alone and computes the rest from it, which takes a third off the memory of a training step;
but a function with such a gradient has no forward derivative (`jax.jvp`).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

Array = jax.Array


# (maps, scale, bias, eps, slope) -> (maps, mean, variance): the two functions below.
Normalisation = Callable[[Array, Array, Array, float, float], tuple[Array, Array, Array]]


def batch_norm_leaky(
    x_BxHxWxC: Array, scale_C: Array, bias_C: Array, eps: float, slope: float
) -> tuple[Array, Array, Array]:
    """Normalises with the statistics of the batch, scales, shifts, applies LeakyReLU.

    Equations: Ioffe and Szegedy, Batch Normalization, Algorithm 1 and the gradients of section 3.

    Args:
      x_BxHxWxC: maps, float32 or bfloat16.
      scale_C: float32 factor of the normalised values.
      bias_C: float32 summand after it.
      eps: added to the variance.
      slope: of the LeakyReLU for negative values, between 0 and 1.

    Returns:
      The maps in the type of x, and the mean (C,) and biased variance (C,) of x in float32. The two
      are meant for running averages: no gradient flows through them.
    """
    y, mean, variance = _forward(x_BxHxWxC, scale_C, bias_C, eps, slope)[0]
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def lean_batch_norm_leaky(
    x_BxHxWxC: Array, scale_C: Array, bias_C: Array, eps: float, slope: float
) -> tuple[Array, Array, Array]:
    """The same values as `batch_norm_leaky`; its gradient keeps the input alone."""
    return _forward(x_BxHxWxC, scale_C, bias_C, eps, slope)[0]


def _forward(x_BxHxWxC, scale_C, bias_C, eps, slope):
    x = x_BxHxWxC.astype(jnp.float32)
    mean = jnp.mean(x, axis=(0, 1, 2))
    # One pass over x; rounding can take the difference below zero.
    variance = jnp.maximum(jnp.mean(x * x, axis=(0, 1, 2)) - mean * mean, 0)
    inverse = jax.lax.rsqrt(variance + eps)
    z = _affine(x, mean, inverse * scale_C, bias_C)
    # Not the maximum of the two: its gradient asks which of them equals it, and compiled, where
    # each may be computed anew and rounded otherwise, neither does.
    y = jnp.where(z >= 0, z, slope * z).astype(x_BxHxWxC.dtype)
    return (y, mean, variance), (x_BxHxWxC, mean, inverse, scale_C, bias_C)


def _backward(eps, slope, saved, gradients):
    x_BxHxWxC, mean, inverse, scale, bias = saved
    x = x_BxHxWxC.astype(jnp.float32)
    dy = gradients[0].astype(jnp.float32)
    factor = inverse * scale
    dz = jnp.where(_affine(x, mean, factor, bias) >= 0, dy, slope * dy)
    dbias = jnp.sum(dz, axis=(0, 1, 2))
    # The sum of dz times the normalised x, without storing either product.
    dscale = inverse * (jnp.sum(dz * x, axis=(0, 1, 2)) - mean * dbias)
    # dx = factor (dz - mean(dz) - normalised x * mean(dz * normalised x))
    count = x.size // x.shape[-1]
    through_statistics = _affine(x, mean, inverse * dscale / count, dbias / count)
    dx = _row(factor) * (dz - through_statistics)
    return dx.astype(x_BxHxWxC.dtype), dscale, dbias


def _row(values_C):
    return values_C.reshape(1, 1, 1, -1)


def _affine(x_BxHxWxC, mean_C, factor_C, bias_C):
    # Subtracting the mean first keeps digits where it is large beside the deviation.
    return (x_BxHxWxC - _row(mean_C)) * _row(factor_C) + _row(bias_C)


lean_batch_norm_leaky.defvjp(_forward, _backward)
