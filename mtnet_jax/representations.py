"""What the network predicts for a rotation: Euler angles, three vectors, 6D, or a quaternion.

All share one interface, so the network, the losses and the decoder never ask which one it is:

* `encode(R) -> target`   (..., 3, 3) -> (..., size)
* `decode(raw) -> R`      (..., size) -> (..., 3, 3), always a rotation for finite input
* `loss(raw, R) -> loss`  (...), one value an object; its gradient is finite for finite input

A raw output with NaN or infinity decodes to NaN in all nine entries, so it is seen and never taken
for a pose. Other degenerate outputs (zeros, parallel vectors) decode to a stated rotation, see
each.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax import rotations
from mtnet_jax.errors import BadInput

# Below this length a predicted direction carries no information and is replaced by a stated one.
TINY = 1e-6
# Larger outputs are taken as this: scaling them would leave the range of float32.
HUGE = 1e30


class Representation(NamedTuple):
    """One way to write a rotation as network outputs; see the module docstring."""

    size: int
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    facing: Callable[[jax.Array], jax.Array]


VECTOR_LOSSES = ("squared", "norm", "geodesic")


def make_representation(
    name: str, *, vector_loss: str = "squared", orthogonality: float = 1.0
) -> Representation:
    """The representation of a name.

    Args:
      name: "euler" (3), "vectors" (9), "sixd" (6) or "quaternion" (4).
      vector_loss: for "vectors" only. "squared": eq. 2 of the paper; "norm": its square root for
        each vector; "geodesic": the angle in radians between the truth and the rotation that
        Gram-Schmidt makes of the first two vectors (the SVD is kept out of the loss, its gradient
        is unstable), and the squared distance of the third vector, which the decoder reads as
        well, to that of this rotation.
      orthogonality: weight of eq. 3 with its three unordered pairs of vectors; 2.0 is the same as
        counting ordered pairs.

    Raises:
      ValueError: unknown name or loss.
    """
    if vector_loss not in VECTOR_LOSSES:
        raise BadInput(f"Unknown vector loss {vector_loss!r}: choose one of {VECTOR_LOSSES}.")
    table = {
        "euler": Representation(3, encode_euler, decode_euler, euler_loss, euler_facing),
        "vectors": Representation(
            9,
            encode_vectors,
            decode_vectors,
            partial(vectors_loss, kind=vector_loss, orthogonality=orthogonality),
            vectors_facing,
        ),
        "sixd": Representation(6, encode_sixd, decode_sixd, sixd_loss, sixd_facing),
        "quaternion": Representation(
            4, encode_quaternion, decode_quaternion, quaternion_loss, quaternion_facing
        ),
    }
    if name not in table:
        raise BadInput(f"Unknown representation {name!r}: choose one of {sorted(table)}.")
    return table[name]


# --- Euler angles: yaw / 180, pitch / 90, roll / 90, canonical convention -------------------------

EULER_SCALE = np.array([180.0, 90.0, 90.0], np.float32)  # degrees of yaw, pitch, roll for output 1


def encode_euler(rotation: jax.Array) -> jax.Array:
    """(..., 3, 3) -> (..., 3) scaled canonical yaw, pitch, roll."""
    angles = rotations.rotation_to_euler(rotation, convention="canonical")
    return angles / jnp.broadcast_to(EULER_SCALE, angles.shape)


def decode_euler(raw: jax.Array) -> jax.Array:
    """(..., 3) -> (..., 3, 3). Every finite output is a rotation; zeros are the identity."""
    raw = jnp.where(_finite(raw), raw, jnp.nan)
    angles = jnp.clip(raw, -HUGE, HUGE) * jnp.broadcast_to(EULER_SCALE, raw.shape)
    rotation = rotations.euler_to_rotation(angles, convention="canonical")
    # One NaN angle leaves some entries of the product finite; poison them all.
    return jnp.where(_finite(raw)[..., None], rotation, jnp.nan)


def euler_loss(raw: jax.Array, rotation: jax.Array) -> jax.Array:
    """Sum of squared scaled differences, yaw and roll wrapped: min(d^2, (turn - |d|)^2).

    Both go all the way round: rolls of heads that are upside down lie on either side of 180
    degrees. Canonical pitch stays within 90.
    """
    d = jnp.abs(raw - encode_euler(rotation))
    yaw, pitch, roll = d[..., 0], d[..., 1], d[..., 2]
    return _smaller(yaw**2, (2 - yaw) ** 2) + pitch**2 + _smaller(roll**2, (4 - roll) ** 2)


def euler_facing(raw: jax.Array) -> jax.Array:
    """(..., 3) -> (..., 3), the third column."""
    return decode_euler(raw)[..., 2]


# --- Vectors: the three columns of R, one after another (section 3.2) -----------------------------


def encode_vectors(rotation: jax.Array) -> jax.Array:
    """(..., 3, 3) -> (..., 9): first, second, third column."""
    return jnp.swapaxes(rotation, -1, -2).reshape(*rotation.shape[:-2], 9)


def decode_vectors(raw: jax.Array) -> jax.Array:
    """(..., 9) -> (..., 3, 3), the nearest rotation by SVD; see `rotations.nearest_rotation`."""
    return rotations.nearest_rotation(_columns(raw, 3))


def vectors_loss(
    raw: jax.Array, rotation: jax.Array, *, kind: str, orthogonality: float
) -> jax.Array:
    """Eq. 4: distance of each vector to its truth, plus the orthogonality of the three (eq. 3)."""
    predicted = _columns(raw, 3)
    if kind == "geodesic":
        of_two = gram_schmidt(predicted[..., 0], predicted[..., 1])
        # |A - B|_F = 2 sqrt(2) sin(angle / 2): no acos, whose slope is infinite at the truth.
        half_sine = _safe_sqrt(jnp.sum((of_two - rotation) ** 2, axis=(-2, -1)) / 8)
        angle = 2 * jnp.arcsin(jnp.clip(half_sine, 0, 1 - 1e-6))
        # The angle says nothing of the third vector, and orthogonality neither its sign nor its
        # length. It is taught by the other two, and does not pull at them.
        third = jax.lax.stop_gradient(of_two[..., 2])
        distance = angle + jnp.sum((predicted[..., 2] - third) ** 2, axis=-1)
    else:
        squared = jnp.sum((predicted - rotation) ** 2, axis=-2)  # (..., 3), one a column
        distance = jnp.sum(squared if kind == "squared" else _safe_sqrt(squared), axis=-1)
    x, y, z = predicted[..., 0], predicted[..., 1], predicted[..., 2]
    dots = (jnp.sum(a * b, axis=-1) ** 2 for a, b in ((x, y), (x, z), (y, z)))
    return distance + orthogonality * sum(dots)


def vectors_facing(raw: jax.Array) -> jax.Array:
    """(..., 9) -> (..., 3), the third vector as it is."""
    return raw[..., 6:]


# --- 6D: the first two columns of R (Zhou et al. [21]) --------------------------------------------


def encode_sixd(rotation: jax.Array) -> jax.Array:
    """(..., 3, 3) -> (..., 6): first and second column."""
    return encode_vectors(rotation)[..., :6]


def decode_sixd(raw: jax.Array) -> jax.Array:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt. Zeros are the identity; see `gram_schmidt`."""
    columns = _columns(raw, 2)
    rotation = gram_schmidt(columns[..., 0], columns[..., 1])
    return jnp.where(_finite(raw)[..., None], rotation, jnp.nan)


def sixd_loss(raw: jax.Array, rotation: jax.Array) -> jax.Array:
    """Sum of squared differences of the two columns."""
    return jnp.sum((raw - encode_sixd(rotation)) ** 2, axis=-1)


def sixd_facing(raw: jax.Array) -> jax.Array:
    """(..., 6) -> (..., 3), the third column."""
    return decode_sixd(raw)[..., 2]


def gram_schmidt(first: jax.Array, second: jax.Array) -> jax.Array:
    """The rotation whose first two columns come from two vectors (..., 3) -> (..., 3, 3).

    A first vector of no length is taken as the x axis. Where the second one adds no direction to
    the first, the coordinate axis y (or x, where the first lies along y) stands in for it.
    """
    x = _unit(first, jnp.array([1.0, 0.0, 0.0], first.dtype))
    along_y = jnp.abs(x[..., 1]) > 0.9
    spare = jnp.stack([along_y, ~along_y, jnp.zeros_like(along_y)], axis=-1).astype(x.dtype)
    # Scaled first, so that what counts as no direction is an angle and not a length.
    second = _unit(second, x)
    y = _unit(_reject(second, x), _reject(spare, x))
    y = _unit(_reject(y, x), y)  # once more: the first rejection of a near-parallel pair is inexact
    return jnp.stack([x, y, jnp.cross(x, y)], axis=-1)


# --- Quaternion: w, x, y, z -----------------------------------------------------------------------


def encode_quaternion(rotation: jax.Array) -> jax.Array:
    """(..., 3, 3) -> (..., 4) unit quaternion w, x, y, z with its largest component positive."""
    r = rotation
    # 4 q q^T has a row for each component; the row of the largest one is the best conditioned.
    m = lambda i, j: r[..., i, j]  # noqa: E731
    rows = [
        [1 + m(0, 0) + m(1, 1) + m(2, 2), m(2, 1) - m(1, 2), m(0, 2) - m(2, 0), m(1, 0) - m(0, 1)],
        [m(2, 1) - m(1, 2), 1 + m(0, 0) - m(1, 1) - m(2, 2), m(0, 1) + m(1, 0), m(0, 2) + m(2, 0)],
        [m(0, 2) - m(2, 0), m(0, 1) + m(1, 0), 1 - m(0, 0) + m(1, 1) - m(2, 2), m(1, 2) + m(2, 1)],
        [m(1, 0) - m(0, 1), m(0, 2) + m(2, 0), m(1, 2) + m(2, 1), 1 - m(0, 0) - m(1, 1) + m(2, 2)],
    ]
    table = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)  # (..., 4, 4)
    largest = jnp.argmax(jnp.diagonal(table, axis1=-2, axis2=-1), axis=-1)
    q = jnp.take_along_axis(table, largest[..., None, None], axis=-2)[..., 0, :]
    return q / jnp.linalg.norm(q, axis=-1, keepdims=True)


def decode_quaternion(raw: jax.Array) -> jax.Array:
    """(..., 4) w, x, y, z of any length -> (..., 3, 3). Zeros are the identity."""
    q = _unit(raw, jnp.array([1.0, 0.0, 0.0, 0.0], raw.dtype))
    w, x, y, z = (q[..., i] for i in range(4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    rotation = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return jnp.where(_finite(raw)[..., None], rotation, jnp.nan)


def quaternion_loss(raw: jax.Array, rotation: jax.Array) -> jax.Array:
    """Sum of squared differences to the nearer of q and -q, which are the same rotation."""
    target = encode_quaternion(rotation)
    same, opposite = (jnp.sum((raw - q) ** 2, axis=-1) for q in (target, -target))
    return _smaller(same, opposite)


def quaternion_facing(raw: jax.Array) -> jax.Array:
    """(..., 4) -> (..., 3), the third column."""
    return decode_quaternion(raw)[..., 2]


# --- Small helpers --------------------------------------------------------------------------------


def _columns(raw: jax.Array, count: int) -> jax.Array:
    """(..., 3 * count) -> (..., 3, count): consecutive triples become columns."""
    return jnp.swapaxes(raw.reshape(*raw.shape[:-1], count, 3), -1, -2)


def _smaller(a: jax.Array, b: jax.Array) -> jax.Array:
    """The smaller one, with the gradient of that one; see `network.normalisation` for why."""
    return jnp.where(a <= b, a, b)


def _finite(raw: jax.Array) -> jax.Array:
    """(..., n) -> (..., 1): whether every entry of an output is finite."""
    return jnp.all(jnp.isfinite(raw), axis=-1, keepdims=True)


def _unit(vector: jax.Array, fallback: jax.Array) -> jax.Array:
    """`vector` at length 1, or `fallback` at length 1 where it has none."""
    vector = jnp.clip(vector, -HUGE, HUGE)
    # Dividing by the largest entry first keeps huge float32 outputs from overflowing when squared.
    scale = jnp.max(jnp.abs(vector), axis=-1, keepdims=True)
    tiny = ~(scale > TINY)
    safe = jnp.where(tiny, jnp.broadcast_to(fallback, vector.shape), vector)
    safe = safe / jnp.max(jnp.abs(safe), axis=-1, keepdims=True)
    return safe / jnp.linalg.norm(safe, axis=-1, keepdims=True)


def _reject(vector: jax.Array, axis: jax.Array) -> jax.Array:
    """The part of `vector` at right angles to the unit vector `axis`."""
    return vector - jnp.sum(vector * axis, axis=-1, keepdims=True) * axis


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """sqrt whose gradient at 0 is 0 instead of infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
