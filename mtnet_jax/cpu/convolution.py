"""The convolution of the network by oneDNN, gradients included, on x86 CPUs.

The same sums as `mtnet_jax.network.convolution`, written as the convolutions and products that
oneDNN is fast at.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mtnet_jax.cpu import onednn
from mtnet_jax.network.convolution import conv2d, darknet_padding

Array = jax.Array

# Of one tap. Where 3x3 kernels of stride 1 have more, XLA's gradient of them is the faster one.
MOST_WEIGHTS_FOR_ONE_PRODUCT = 128 * 256


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def onednn_conv2d(x: Array, kernel: Array, stride: int) -> Array:
    """As `conv2d`, where `onednn.usable`; it has a gradient and no other transformation."""
    return onednn.convolution(x, kernel, stride, darknet_padding(kernel))


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return onednn_conv2d(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Of the two gradients the compiler drops the one that nobody reads. Without the barrier it
    # computes dy anew for each part of a stack.
    x, kernel = saved
    x, dy = jax.lax.optimization_barrier((x, dy))
    if stride == 2:
        return _strided_maps_gradient(kernel, dy, x.shape), _strided_kernel_gradient(x, dy)
    turned = kernel[::-1, ::-1]
    dx = onednn.convolution(dy, turned, 1, darknet_padding(kernel), inputs_last=True)
    return dx, _kernel_gradient(x, kernel, dy)


onednn_conv2d.defvjp(_forward, _backward)


def _kernel_gradient(x_BxHxWxI: Array, kernel_HxWxIxO: Array, dy_BxHxWxO: Array) -> Array:
    """Gradient of the kernel of a convolution of stride 1.

    A single product over all pixels: what lies beside each other in a row of the kernel is stacked
    in the channels of x, what lies below each other in those of dy. Copies grow with the size of
    the kernel, not with its square. Wide layers, of few pixels, are left to XLA.
    """
    size, _, channels, features = kernel_HxWxIxO.shape
    exact = x_BxHxWxI.dtype == jnp.float32
    if exact and size > 1 and channels * features > MOST_WEIGHTS_FOR_ONE_PRODUCT:
        _, pull = jax.vjp(partial(conv2d, x_BxHxWxI), kernel_HxWxIxO)
        return pull(dy_BxHxWxO)[0]
    width, last = x_BxHxWxI.shape[2], size - 1
    x = jnp.pad(_movable(x_BxHxWxI), ((0, 0), *darknet_padding(kernel_HxWxIxO), (0, 0)))
    beside = [x[:, :, j : j + width] for j in range(size)]
    dy = _movable(dy_BxHxWxO)
    below = [jnp.pad(dy, ((0, 0), (i, last - i), (0, 0), (0, 0))) for i in range(size)]
    product = _transposed_product(_stack(beside), _stack(below), x_BxHxWxI.dtype)
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
    pairs = jnp.pad(_movable(x_BxHxWxI), pads).reshape(shape)
    parts = []
    for pair, row in ((0, 0), (0, 1), (1, 0)):
        line = pairs[:, pair : pair + rows, row]
        parts += [line[:, :, :columns], line[:, :, 1:, :channels]]
    product = _transposed_product(_stack(parts), dy_BxYxXxO, x_BxHxWxI.dtype)
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


def _transposed_product(a_BxHxWxM: Array, b_BxHxWxN: Array, dtype: jnp.dtype) -> Array:
    """(M, N) sum of products over all pixels of maps that may be `_movable`."""
    a, b = (_numbers(x, dtype).reshape(-1, x.shape[-1]) for x in (a_BxHxWxM, b_BxHxWxN))
    return onednn.transposed_product(a, b)


def _movable(x: Array) -> Array:
    """Values that are only copied and put beside zeros; `_numbers` is the way back.

    bfloat16 as the integers of its bits: XLA's CPU backend turns what it pads and slices in
    bfloat16 to float32 and back.
    """
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _numbers(x: Array, dtype: jnp.dtype) -> Array:
    return jax.lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint16 else x


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
    dx = jnp.stack([_movable(first), _movable(second)], axis=2)
    dx = dx.reshape(batch, 2 * rows, 2 * columns, channels)[:, : shape[1], : shape[2]]
    return _numbers(dx, dy_BxYxXxO.dtype)
