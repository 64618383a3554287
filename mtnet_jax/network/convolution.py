"""The convolution every layer of the network is built on, and how to compile it for the CPU.

GPUs and TPUs run XLA's convolution. On x86 CPUs the same sums go to oneDNN, gradients included,
written as the convolutions and products it is fast at: this file is the one place where a platform
makes a difference to the network.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mtnet_jax.network import onednn

Array = jax.Array


def conv2d(x_BxHxWxC: Array, kernel_HxWxIxO: Array, stride: int = 1) -> Array:
    """2-D convolution with Darknet's padding, (k - 1) // 2 on every side at every stride.

    Args:
      x_BxHxWxC: maps.
      kernel_HxWxIxO: 1x1 or 3x3.
      stride: 1, or 2 with a 3x3 kernel.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), O).
    """
    if onednn.usable(x_BxHxWxC, kernel_HxWxIxO):
        return _onednn_conv2d(x_BxHxWxC, kernel_HxWxIxO, stride)
    return xla_conv2d(x_BxHxWxC, kernel_HxWxIxO, stride)


def xla_conv2d(x_BxHxWxC: Array, kernel_HxWxIxO: Array, stride: int = 1) -> Array:
    """`conv2d` as XLA computes it on every platform."""
    pads = [((size - 1) // 2, (size - 1) // 2) for size in kernel_HxWxIxO.shape[:2]]
    return jax.lax.conv_general_dilated(
        x_BxHxWxC,
        kernel_HxWxIxO,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _onednn_conv2d(x: Array, kernel: Array, stride: int) -> Array:
    return onednn.convolution(x, kernel, stride, (kernel.shape[0] - 1) // 2)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _onednn_conv2d(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Of the two gradients the compiler drops the one that nobody reads.
    x, kernel = saved
    if stride == 2:
        # In blocks of 2x2 pixels a 3x3 convolution of stride 2 is one of 2x2 blocks and stride 1.
        blocks = _to_blocks(x, dy.shape)
        dx = onednn.convolution(dy, _turned(_block_kernel(kernel)), 1, 1)
        return _from_blocks(dx, x.shape), _from_block_kernel(_kernel_gradient(blocks, dy))
    padding = (kernel.shape[0] - 1) // 2
    dx = onednn.convolution(dy, _turned(kernel), 1, padding)
    side = (padding, padding)
    return dx, _kernel_gradient(jnp.pad(x, ((0, 0), side, side, (0, 0))), dy)


_onednn_conv2d.defvjp(_forward, _backward)


def _turned(kernel_HxWxIxO: Array) -> Array:
    """The kernel that takes gradients of outputs to gradients of inputs: half a turn, I and O."""
    return kernel_HxWxIxO[::-1, ::-1].swapaxes(2, 3)


def _kernel_gradient(x_BxHxWxI: Array, dy_BxYxXxO: Array) -> Array:
    """Gradient of the kernel of a convolution of stride 1 and no padding, (k, k, I, O).

    A single product over all pixels: what lies beside each other in a row of the kernel is stacked
    in the channels of x, what lies below each other in those of dy. Copies grow with k, not k^2.
    """
    batch, rows, columns, features = dy_BxYxXxO.shape
    height, channels = x_BxHxWxI.shape[1], x_BxHxWxI.shape[3]
    size = height - rows + 1
    beside = [x_BxHxWxI[:, :, j : j + columns] for j in range(size)]
    below = [jnp.pad(dy_BxYxXxO, ((0, 0), (i, size - 1 - i), (0, 0), (0, 0))) for i in range(size)]
    pixels = batch * height * columns
    product = onednn.transposed_product(
        jnp.concatenate(beside, axis=-1).reshape(pixels, size * channels),
        jnp.concatenate(below, axis=-1).reshape(pixels, size * features),
    )
    return product.reshape(size, channels, size, features).transpose(2, 0, 1, 3)


def _to_blocks(x_BxHxWxC: Array, out_shape: tuple[int, ...]) -> Array:
    """Maps with padding 1 as blocks of 2x2 pixels: (B, Y + 1, X + 1, 4 C) for Y x X outputs."""
    batch, height, width, channels = x_BxHxWxC.shape
    rows, columns = out_shape[1] + 1, out_shape[2] + 1
    pads = ((0, 0), (1, 2 * rows - 1 - height), (1, 2 * columns - 1 - width), (0, 0))
    x = jnp.pad(x_BxHxWxC, pads).reshape(batch, rows, 2, columns, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, 4 * channels)


def _from_blocks(x_BxYxXx4C: Array, shape: tuple[int, ...]) -> Array:
    """Takes `_to_blocks` back to maps of this shape, without the padding."""
    batch, rows, columns, _ = x_BxYxXx4C.shape
    x = x_BxYxXx4C.reshape(batch, rows, columns, 2, 2, shape[3]).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, 2 * rows, 2 * columns, shape[3])
    return x[:, 1 : 1 + shape[1], 1 : 1 + shape[2]]


def _block_kernel(kernel_3x3xIxO: Array) -> Array:
    """The kernel for `_to_blocks`: (2, 2, 4 I, O), with zeros where blocks reach too far."""
    _, _, channels, features = kernel_3x3xIxO.shape
    kernel = jnp.pad(kernel_3x3xIxO, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(2, 2, 4 * channels, features)


def _from_block_kernel(kernel_2x2x4IxO: Array) -> Array:
    """The 3x3 part of a gradient of `_block_kernel`."""
    channels, features = kernel_2x2x4IxO.shape[2] // 4, kernel_2x2x4IxO.shape[3]
    kernel = kernel_2x2x4IxO.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(4, 4, channels, features)[:3, :3]


def compiler_options() -> dict[str, str]:
    """Options every `jax.jit` round the network passes on: `jax.jit(f, compiler_options=...)`.

    On the CPU, jax 0.10 hands convolutions to the YNNPACK library, which runs them at half the rate
    of XLA's own (Eigen) kernels, and their gradients at less. These options leave it reductions and
    matrix products alone. Other backends keep their defaults.

    Returns:
      Names and values of XLA options for the default backend.
    """
    if jax.default_backend() != "cpu":
        return {}
    libraries = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT"
    return {"xla_cpu_experimental_ynn_fusion_type": libraries}
