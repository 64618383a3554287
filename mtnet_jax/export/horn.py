"""The nearest rotation of a 3x3 matrix without SVD, for formats that have none.

The nearest rotation of M is that of the unit quaternion q with the largest q^T K q, K being linear
in M (Horn 1987, Closed-form solution of absolute orientation using unit quaternions, section 4).
That eigenvector is a column of (K + s I)^(2^24), which 24 squarings give: s, at least the sum of
M's singular values, makes all eigenvalues positive. Where M is a reflection the result is the
nearest rotation all the same. It agrees with SVD in float32 to some 1e-5 degrees.
"""

import jax
import jax.numpy as jnp
import numpy as np

SQUARINGS = 24
# Between two divisions by the trace: of eigenvalues that sum to 1 the largest is at least 1/4, and
# its 16th power 2e-10, far above what float32 can hold.
SQUARINGS_A_DIVISION = 4
TINY = 1e-30
LEAST_SHIFT = 1e-6  # a matrix of zeros gives the identity


def nearest_rotation(columns: jax.Array) -> jax.Array:
    """(..., 9), three columns one after another -> (..., 3, 3), by additions and products alone."""
    columns = columns / jnp.maximum(jnp.abs(columns).max(axis=-1, keepdims=True), TINY)
    # sqrt(3) times the Frobenius norm bounds the sum of the singular values.
    shift = jnp.sqrt(3 * (columns**2).sum(axis=-1, keepdims=True))
    k = _product(columns, horn_of_columns())
    k = k + jnp.maximum(shift, LEAST_SHIFT) * jnp.eye(4).reshape((1,) * (k.ndim - 1) + (16,))
    power = k.reshape(*k.shape[:-1], 4, 4)
    for _ in range(SQUARINGS // SQUARINGS_A_DIVISION):
        power = power / jnp.trace(power, axis1=-2, axis2=-1)[..., None, None]
        for _ in range(SQUARINGS_A_DIVISION):
            power = jnp.matmul(power, power, precision="highest")
    # The columns are parallel; the one with the largest entry on the diagonal is the longest.
    power = power / jnp.trace(power, axis1=-2, axis2=-1)[..., None, None]
    longest = jnp.diagonal(power, axis1=-2, axis2=-1).argmax(axis=-1)
    q = (power * jax.nn.one_hot(longest, 4)[..., None, :]).sum(axis=-1)
    q = q / jnp.sqrt((q**2).sum(axis=-1, keepdims=True))
    products = (q[..., :, None] * q[..., None, :]).reshape(*q.shape[:-1], 16)
    return _product(products, rotation_of_products()).reshape(*q.shape[:-1], 3, 3)


def _product(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    return jnp.matmul(x, matrix, precision="highest")


def horn_of_columns() -> np.ndarray:
    """(9, 16): three columns of M one after another -> Horn's K, row by row; for q = w, x, y, z."""
    maps = np.zeros((9, 16), np.float32)
    for number in range(9):
        m = np.zeros((3, 3), np.float32)
        m.T.flat[number] = 1
        trace = np.trace(m)
        k = np.empty((4, 4), np.float32)
        k[0, 0] = trace
        k[0, 1:] = k[1:, 0] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
        k[1:, 1:] = m + m.T - trace * np.eye(3)
        maps[number] = k.ravel()
    return maps


def rotation_of_products() -> np.ndarray:
    """(16, 9): products q_i q_j of a unit quaternion w, x, y, z -> its rotation, row by row."""
    maps = np.zeros((4, 4, 3, 3), np.float32)
    maps[0, 0] = np.eye(3)
    for i in range(3):
        maps[i + 1, i + 1] = -np.eye(3)
        maps[i + 1, i + 1, i, i] = 1
        j, k = (i + 1) % 3, (i + 2) % 3
        maps[i + 1, j + 1, i, j] = maps[i + 1, j + 1, j, i] = 2  # x y
        maps[0, k + 1, i, j], maps[0, k + 1, j, i] = -2, 2  # w z
    return maps.reshape(16, 9)
