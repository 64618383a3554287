"""The convolution every layer of the network is built on."""

import jax


def conv2d(x_BxHxWxC: jax.Array, kernel_HxWxIxO: jax.Array, stride: int = 1) -> jax.Array:
    """2-D convolution with Darknet's padding, (k - 1) // 2 on every side at every stride."""
    pads = [((size - 1) // 2, (size - 1) // 2) for size in kernel_HxWxIxO.shape[:2]]
    return jax.lax.conv_general_dilated(
        x_BxHxWxC,
        kernel_HxWxIxO,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
