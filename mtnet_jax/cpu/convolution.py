"""The convolution every layer of the network is built on, and how to compile it for the CPU.

GPUs and TPUs run XLA's convolution. On x86 CPUs the same sums go to oneDNN, gradients included,
written as the convolutions and products it is fast at: this file is the one place where a platform
makes a difference to the network.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mtnet_jax.cpu import onednn

Array = jax.Array

# Of one tap. Where 3x3 kernels of stride 1 have more, XLA's gradient of them is the faster one.
MOST_WEIGHTS_FOR_ONE_PRODUCT = 128 * 256


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
    return jax.lax.conv_general_dilated(
        x_BxHxWxC,
        kernel_HxWxIxO,
        window_strides=(stride, stride),
        padding=_padding(kernel_HxWxIxO),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _padding(kernel_HxWxIxO: Array) -> tuple[tuple[int, int], ...]:
    return tuple(2 * ((size - 1) // 2,) for size in kernel_HxWxIxO.shape[:2])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _onednn_conv2d(x: Array, kernel: Array, stride: int) -> Array:
    return onednn.convolution(x, kernel, stride, _padding(kernel))


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _onednn_conv2d(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Of the two gradients the compiler drops the one that nobody reads. Without the barrier it
    # computes dy anew for each part of a stack.
    x, kernel = saved
    x, dy = jax.lax.optimization_barrier((x, dy))
    if stride == 2:
        return _strided_maps_gradient(kernel, dy, x.shape), _strided_kernel_gradient(x, dy)
    turned = kernel[::-1, ::-1]
    dx = onednn.convolution(dy, turned, 1, _padding(kernel), inputs_last=True)
    return dx, _kernel_gradient(x, kernel, dy)


_onednn_conv2d.defvjp(_forward, _backward)


def _kernel_gradient(x_BxHxWxI: Array, kernel_HxWxIxO: Array, dy_BxHxWxO: Array) -> Array:
    """Gradient of the kernel of a convolution of stride 1.

    A single product over all pixels: what lies beside each other in a row of the kernel is stacked
    in the channels of x, what lies below each other in those of dy. Copies grow with the size of
    the kernel, not with its square. Wide layers, of few pixels, are left to XLA.
    """
    size, _, channels, features = kernel_HxWxIxO.shape
    if size > 1 and channels * features > MOST_WEIGHTS_FOR_ONE_PRODUCT:
        _, pull = jax.vjp(partial(xla_conv2d, x_BxHxWxI), kernel_HxWxIxO)
        return pull(dy_BxHxWxO)[0]
    width, last = x_BxHxWxI.shape[2], size - 1
    x = jnp.pad(x_BxHxWxI, ((0, 0), *_padding(kernel_HxWxIxO), (0, 0)))
    beside = [x[:, :, j : j + width] for j in range(size)]
    below = [jnp.pad(dy_BxHxWxO, ((0, 0), (i, last - i), (0, 0), (0, 0))) for i in range(size)]
    product = onednn.transposed_product(_pixels(_stack(beside)), _pixels(_stack(below)))
    return product.reshape(size, channels, size, features).transpose(2, 0, 1, 3)


def _strided_kernel_gradient(x_BxHxWxI: Array, dy_BxYxXxO: Array) -> Array:
    """Gradient of the 3x3 kernel of a convolution of stride 2, (3, 3, I, O).

    A single product, with the nine neighbours stacked in the channels of x: at a quarter of the
    pixels. Seen in pairs of columns, two neighbours of a row are one part.
    """
    batch, height, width, channels = x_BxHxWxI.shape
    rows, columns, features = dy_BxYxXxO.shape[1:]
    pads = ((0, 0), (1, 2 * rows + 1 - height), (1, 2 * columns + 1 - width), (0, 0))
    shape = (batch, rows + 1, 2, columns + 1, 2 * channels)
    pairs = jnp.pad(x_BxHxWxI, pads).reshape(shape)
    parts = []
    for pair, row in ((0, 0), (0, 1), (1, 0)):
        line = pairs[:, pair : pair + rows, row]
        parts += [line[:, :, :columns], line[:, :, 1:, :channels]]
    product = onednn.transposed_product(_pixels(_stack(parts)), _pixels(dy_BxYxXxO))
    return product.reshape(3, 3, channels, features)


def _stack(parts: list[Array]) -> Array:
    """Concatenates channels.

    As a sum of padded parts, which XLA makes in one loop on all cores: twice as fast on the CPU as
    its own concatenation, which copies a few channels at a time.
    """
    total, start = sum(part.shape[-1] for part in parts), 0
    padded = []
    for part in parts:
        end = start + part.shape[-1]
        padded.append(jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(start, total - end)]))
        start = end
    return sum(padded[1:], padded[0])


def _pixels(x_BxHxWxC: Array) -> Array:
    return x_BxHxWxC.reshape(-1, x_BxHxWxC.shape[-1])


def _strided_maps_gradient(
    kernel_3x3xIxO: Array, dy_BxYxXxO: Array, shape: tuple[int, ...]
) -> Array:
    """Gradient of the maps, of this shape, of a convolution of stride 2.

    Rows and columns are made in pairs. The first row of a pair was seen by the middle row of the
    kernel alone, the second by its last row and, one step further down, its first. With columns it
    is the same; both columns of a pair are made at once, as twice the channels.
    """
    _, _, channels, features = kernel_3x3xIxO.shape
    batch, rows, columns, _ = dy_BxYxXxO.shape
    here = kernel_3x3xIxO[:, 1:].reshape(3, 1, 2 * channels, features)
    further = jnp.pad(kernel_3x3xIxO[:, :1], ((0, 0), (0, 0), (channels, 0), (0, 0)))
    pairs = jnp.concatenate([here, further], axis=1)
    first = onednn.convolution(dy_BxYxXxO, pairs[1:2], 1, ((0, 0), (0, 1)), inputs_last=True)
    second = onednn.convolution(dy_BxYxXxO, pairs[::-2], 1, ((0, 1), (0, 1)), inputs_last=True)
    dx = jnp.stack([first, second], axis=2).reshape(batch, 2 * rows, 2 * columns, channels)
    return dx[:, : shape[1], : shape[2]]


def compiler_options() -> dict[str, str]:
    """Options every `jax.jit` round the network passes on: `jax.jit(f, compiler_options=...)`.

    On the CPU, jax 0.10 hands convolutions to the YNNPACK library, which runs them at half the rate
    of XLA's own (Eigen) kernels, and their gradients at less. These options leave it reductions and
    matrix products alone. The compiler pass that takes optimisation barriers out before operations
    are fused is turned off: `_backward` and rematerialisation count on them. Other backends keep
    their defaults.

    Returns:
      Names and values of XLA options for the default backend.
    """
    if jax.default_backend() != "cpu":
        return {}
    libraries = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT"
    return {
        "xla_cpu_experimental_ynn_fusion_type": libraries,
        "xla_disable_hlo_passes": "cse_barrier_expander",
    }
