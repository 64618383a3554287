"""3x3 convolutions of stride 1 with 4 products where the plain sum takes 9.

Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, Fast Algorithms for Convolutional Neural
Networks, section 4.1): Y = A^T [(G k G^T) * (B^T d B)] A for every 4x4 tile d of the input, which
gives a 2x2 tile of the output. Summed over input channels, the product in the middle is one matrix
product for each of the 16 places in a tile. All matrices hold 0, 1, -1 and 1/2: little is rounded.
"""

import jax
import jax.numpy as jnp
import numpy as np

_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)  # G


def transform_kernel(kernel_3x3xIxO: jax.Array) -> jax.Array:
    """G k G^T: (3, 3, I, O) -> (4, 4, I, O), once for each set of weights."""
    return jnp.einsum("ia,jb,abco->ijco", _KERNEL, _KERNEL, kernel_3x3xIxO)


def winograd_conv(x_BxHxWxC: jax.Array, kernel_4x4xIxO: jax.Array) -> jax.Array:
    """The convolution with padding 1 and stride 1.

    Args:
      x_BxHxWxC: maps.
      kernel_4x4xIxO: from `transform_kernel`.

    Returns:
      (B, H, W, O).
    """
    b, h, w, channels = x_BxHxWxC.shape
    rows, columns = -(-h // 2), -(-w // 2)  # of tiles
    # One more row and column where the side is odd.
    pads = ((0, 0), (1, 2 * rows + 1 - h), (1, 2 * columns + 1 - w), (0, 0))
    x = jnp.pad(x_BxHxWxC, pads)
    tiles = [
        [column.reshape(-1, channels) for column in _transform_input(row, columns, axis=2)]
        for row in _transform_input(x, rows, axis=1)
    ]
    stacked = jnp.stack([jnp.stack(row) for row in tiles])  # (4, 4, tiles, I)
    products = jnp.einsum("ijtc,ijco->ijto", stacked, kernel_4x4xIxO)
    outputs = [_transform_output(row) for row in _transform_output(products)]  # 2 x 2 of (tiles, O)
    y = jnp.stack([jnp.stack(row, axis=1) for row in outputs], axis=1)  # (tiles, 2, 2, O)
    y = y.reshape(b, rows, columns, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * rows, 2 * columns, -1)[:, :h, :w]


def _transform_input(x: jax.Array, count: int, *, axis: int) -> tuple[jax.Array, ...]:
    """B^T d along one axis: every second entry starts a tile of four."""
    d0, d1, d2, d3 = (
        jax.lax.slice_in_dim(x, first, first + 2 * count - 1, 2, axis) for first in range(4)
    )
    return d0 - d2, d1 + d2, d2 - d1, d1 - d3


def _transform_output(m: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A^T m along the first axis."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
