"""The convolution of the network, as XLA computes it on every platform."""

from collections.abc import Callable

import jax

Array = jax.Array

# (maps (B, H, W, I), kernel (h, w, I, O), stride) -> maps: `conv2d`, or something that computes the
# same faster where it can (`mtnet_jax.cpu`).
Convolution = Callable[[Array, Array, int], Array]


def conv2d(x_BxHxWxC: Array, kernel_HxWxIxO: Array, stride: int = 1) -> Array:
    """2-D convolution with Darknet's padding, (k - 1) // 2 on every side at every stride.

    Args:
      x_BxHxWxC: maps.
      kernel_HxWxIxO: 1x1 or 3x3.
      stride: 1, or 2 with a 3x3 kernel.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), O).
    """
    return jax.lax.conv_general_dilated(
        x_BxHxWxC,
        kernel_HxWxIxO,
        window_strides=(stride, stride),
        padding=darknet_padding(kernel_HxWxIxO),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def darknet_padding(kernel_HxWxIxO: Array) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right)) in pixels."""
    return tuple(2 * ((size - 1) // 2,) for size in kernel_HxWxIxO.shape[:2])
