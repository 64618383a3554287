"""Rotations of heads: named Euler conventions, nearest rotation, distance, flip and turn.

One matrix means one thing in the whole package: R takes head axes to camera axes, and
v_camera = R v_head.

* Camera axes: x to the right of the image, y down, z forward (into the scene).
* Head axes of a face that looks straight into the camera: x to the right of the image (the
  subject's left), y down, z to the back of the head. R is then the identity, and the face normal
  (out of the nose) is minus the third column of R.

Euler angles exist only at the edges (labels, printed numbers, the Euler variant of the network) and
always carry the name of a convention. They are in degrees, in the order yaw, pitch, roll.

Every function takes NumPy arrays or JAX arrays (also under jit) and returns the same kind.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from mtnet_jax.errors import BadInput

Array = Any  # numpy.ndarray or jax.Array

# Below this length of (cos yaw) the axes of pitch and roll coincide: gimbal lock. It is about the
# rounding error of a float32 rotation; the error made by treating such a pose as exactly locked is
# of the same size.
GIMBAL_LOCK = 1e-6


def axis_rotation(axis: str, degrees: Array) -> Array:
    """Right-handed rotation about one coordinate axis.

    Args:
      axis: "x", "y" or "z".
      degrees: angles, any shape (...).

    Returns:
      Rotation matrices (..., 3, 3). In camera axes (y down, z forward) a positive turn about z is
      clockwise in the image.
    """
    xp = _namespace(degrees)
    angle = xp.deg2rad(xp.asarray(degrees))
    c, s = xp.cos(angle), xp.sin(angle)
    one, zero = xp.ones_like(c), xp.zeros_like(c)
    rows = {
        "x": ((one, zero, zero), (zero, c, -s), (zero, s, c)),
        "y": ((c, zero, s), (zero, one, zero), (-s, zero, c)),
        "z": ((c, -s, zero), (s, c, zero), (zero, zero, one)),
    }[axis]
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def euler_to_rotation(angles: Array, *, convention: str) -> Array:
    """Rotation matrices of Euler angles.

    Args:
      angles: (..., 3) yaw, pitch, roll in degrees.
      convention: a name in `CONVENTIONS`.

    Returns:
      (..., 3, 3) head-to-camera rotations.

    Raises:
      ValueError: unknown convention.
    """
    xp = _namespace(angles)
    angles = xp.asarray(angles)
    return _convention(convention).encode(angles[..., 0], angles[..., 1], angles[..., 2])


def rotation_to_euler(rotation: Array, *, convention: str) -> Array:
    """Euler angles of rotation matrices; see `CONVENTIONS` for the range of each convention.

    Args:
      rotation: (..., 3, 3) head-to-camera rotations.
      convention: a name in `CONVENTIONS`.

    Returns:
      (..., 3) yaw, pitch, roll in degrees.

    Raises:
      ValueError: unknown convention.
    """
    xp = _namespace(rotation)
    rotation = xp.asarray(rotation)
    yaw, pitch, roll = _convention(convention).decode(rotation)
    return xp.rad2deg(xp.stack([yaw, pitch, roll], axis=-1))


def nearest_rotation(matrix: Array) -> Array:
    """The rotation nearest to a 3x3 matrix in the Frobenius norm, by SVD (section 3.2).

    R' = U diag(1, 1, det(U V^T)) V^T. The formula printed in the paper, diag(1, 1, -1) always, is
    the case det(U V^T) = -1 of this one; used always it would turn rotations into reflections.

    Stated behaviour on bad input: all zeros give the identity; a matrix of rank 1 or 2 gives one of
    the equally near rotations, the same each time; a matrix with NaN or infinity gives NaN in all
    nine entries, so that it is seen and not taken for a pose. Meant for decoding and evaluation:
    its gradient is unstable where singular values meet.

    Args:
      matrix: (..., 3, 3).

    Returns:
      (..., 3, 3), orthonormal with determinant +1.
    """
    xp = _namespace(matrix)
    matrix = xp.asarray(matrix)
    finite = xp.all(xp.isfinite(matrix), axis=(-2, -1), keepdims=True)
    zero = xp.all(matrix == 0, axis=(-2, -1), keepdims=True)
    eye = xp.broadcast_to(xp.eye(3, dtype=matrix.dtype), matrix.shape)
    safe = xp.where(finite & ~zero, matrix, eye)
    # Scaling changes no singular vector and keeps tiny or huge float32 entries from under/overflow.
    safe = safe / xp.max(xp.abs(safe), axis=(-2, -1), keepdims=True)
    u, _, vt = xp.linalg.svd(safe)
    sign = xp.sign(xp.linalg.det(_product(u, vt)))[..., None]
    u = xp.concatenate([u[..., :2], u[..., 2:] * sign[..., None]], axis=-1)
    return xp.where(finite, _product(u, vt), xp.full_like(matrix, xp.nan))


def geodesic_degrees(a: Array, b: Array) -> Array:
    """Angle of the rotation between two rotations, in degrees (0 to 180).

    Uses atan2 of the sine and cosine parts, which stays exact near 0 and 180 where acos does not.

    Args:
      a: (..., 3, 3).
      b: (..., 3, 3).

    Returns:
      (...) degrees.
    """
    xp = _namespace(a, b)
    # |a - b|_F = 2 sqrt(2) sin(angle / 2), and the trace of a^T b is 1 + 2 cos(angle).
    sine = xp.sqrt(xp.sum((a - b) ** 2, axis=(-2, -1)) / 8)
    cosine = xp.sqrt(xp.maximum(xp.sum(a * b, axis=(-2, -1)) + 1, 0)) / 2
    return xp.rad2deg(2 * xp.arctan2(sine, cosine))


def heading_degrees(rotation: Array) -> Array:
    """Where a face looks, seen from above: (..., 3, 3) -> (...), degrees within +-180.

    0 is into the camera, +90 to the left of the image, +-180 away: the canonical yaw of a level
    head, but for nods beyond 90 degrees. A face that looks straight up or down has none (0 or 180
    by rounding).
    """
    xp = _namespace(rotation)
    return xp.rad2deg(xp.arctan2(rotation[..., 0, 2], rotation[..., 2, 2]))


def angle_from(a: Array, b: Array) -> Array:
    """Directions (...) in degrees seen from others, -180 to 180: -179 from 179 is 2."""
    return (a - b + 180) % 360 - 180


def angles_apart(a: Array, b: Array) -> Array:
    """How far directions (...) in degrees lie apart, 0 to 180: 179 and -179 differ by 2."""
    return abs(angle_from(a, b))


def mirror(rotation: Array) -> Array:
    """R of the head in the horizontally flipped image: M R M with M = diag(-1, 1, 1)."""
    xp = _namespace(rotation)
    signs = xp.asarray([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], dtype=rotation.dtype)
    return rotation * xp.broadcast_to(signs, rotation.shape)


def turn(rotation: Array, degrees: Array) -> Array:
    """R of the head after the image is turned clockwise by `degrees`: Rz(t) R."""
    return _product(axis_rotation("z", degrees), rotation)


def rotation_faults(rotation: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """Which matrices are not rotations: True where R^T R is not I, det is not +1, or not finite.

    Args:
      rotation: (..., 3, 3) NumPy array.
      tolerance: largest allowed deviation of an entry of R^T R and of the determinant.

    Returns:
      (...) bool.
    """
    rotation = np.asarray(rotation, np.float64)
    finite = np.isfinite(rotation).all(axis=(-2, -1))
    safe = np.where(finite[..., None, None], rotation, 0.0)
    gram = np.swapaxes(safe, -1, -2) @ safe
    skew = np.abs(gram - np.eye(3)).max(axis=(-2, -1)) > tolerance
    return ~finite | skew | (np.abs(np.linalg.det(safe) - 1) > tolerance)


class Convention(NamedTuple):
    """An Euler convention. `encode(yaw, pitch, roll)` in degrees; `decode(R)` in radians."""

    encode: Callable[[Array, Array, Array], Array]
    decode: Callable[[Array], tuple[Array, Array, Array]]
    description: str


def _encode_canonical(yaw: Array, pitch: Array, roll: Array) -> Array:
    return _product(
        _product(axis_rotation("x", -pitch), axis_rotation("y", yaw)), axis_rotation("z", roll)
    )


def _decode_canonical(r: Array) -> tuple[Array, Array, Array]:
    xp = _namespace(r)
    sin_yaw, cos_yaw = r[..., 0, 2], xp.hypot(r[..., 0, 0], r[..., 0, 1])
    solutions = [
        (
            xp.arctan2(sin_yaw, s * cos_yaw),
            xp.arctan2(s * r[..., 1, 2], s * r[..., 2, 2]),
            xp.arctan2(-s * r[..., 0, 1], s * r[..., 0, 0]),
        )
        for s in (1, -1)
    ]
    # At yaw = +-90 only roll -+ pitch is known; half for each keeps both within 90 degrees.
    half = xp.arctan2(r[..., 1, 0], r[..., 1, 1]) / 2
    yaw = xp.arctan2(sin_yaw, cos_yaw)
    return _choose_solution(solutions, cos_yaw, (yaw, -xp.sign(sin_yaw) * half, half))


def _encode_paper(yaw: Array, pitch: Array, roll: Array) -> Array:
    return _product(
        _product(axis_rotation("x", roll), axis_rotation("y", pitch)), axis_rotation("z", yaw)
    )


def _decode_paper(r: Array) -> tuple[Array, Array, Array]:
    xp = _namespace(r)
    cos_pitch = xp.hypot(r[..., 0, 0], r[..., 0, 1])
    pitch = xp.arctan2(r[..., 0, 2], cos_pitch)  # asin R02, exact near +-90 too
    locked = cos_pitch < GIMBAL_LOCK
    yaw = xp.where(locked, 0.0, xp.arctan2(-r[..., 0, 1], r[..., 0, 0]))
    # At pitch = +-90 only roll +- yaw is known; yaw is then reported as 0.
    roll = xp.where(
        locked,
        xp.arctan2(r[..., 2, 1], r[..., 1, 1]),
        xp.arctan2(-r[..., 1, 2], r[..., 2, 2]),
    )
    return yaw, pitch, roll


def _encode_sixdrepnet(yaw: Array, pitch: Array, roll: Array) -> Array:
    return _product(
        _product(axis_rotation("z", roll), axis_rotation("y", yaw)), axis_rotation("x", pitch)
    )


def _decode_sixdrepnet(r: Array) -> tuple[Array, Array, Array]:
    xp = _namespace(r)
    sin_yaw, cos_yaw = -r[..., 2, 0], xp.hypot(r[..., 0, 0], r[..., 1, 0])
    solutions = [
        (
            xp.arctan2(sin_yaw, s * cos_yaw),
            xp.arctan2(s * r[..., 2, 1], s * r[..., 2, 2]),
            xp.arctan2(s * r[..., 1, 0], s * r[..., 0, 0]),
        )
        for s in (1, -1)
    ]
    # At yaw = +-90 only pitch -+ roll is known: sin and cos of it are (sin_yaw R01, R11).
    half = xp.arctan2(xp.sign(sin_yaw) * r[..., 0, 1], r[..., 1, 1]) / 2
    yaw = xp.arctan2(sin_yaw, cos_yaw)
    return _choose_solution(solutions, cos_yaw, (yaw, half, -xp.sign(sin_yaw) * half))


def _encode_opal(yaw: Array, pitch: Array, roll: Array) -> Array:
    return _encode_canonical(-yaw, pitch, roll)


def _decode_opal(r: Array) -> tuple[Array, Array, Array]:
    yaw, pitch, roll = _decode_canonical(r)
    return -yaw, pitch, roll


_UPRIGHT = (
    "Of the two solutions the one with |pitch| < 90 and |roll| < 90 is returned (on that border "
    "the one with |yaw| <= 90); it exists for upright heads, any yaw. An upside-down "
    "head has none: the solution with |pitch| <= 90 is returned and its |roll| exceeds 90. At "
    "yaw = +-90 (gimbal lock) what is known, a combination of pitch and roll, is halved."
)

CONVENTIONS: dict[str, Convention] = {
    "canonical": Convention(
        _encode_canonical,
        _decode_canonical,
        "R = Rx(-pitch) Ry(yaw) Rz(roll). +yaw turns the face to the left of the image, +pitch "
        "looks up, +roll turns clockwise in the image. Used by BIWI, 300W-LP, AFLW2000, Hopenet, "
        "FSA-Net, WHENet, DirectMHP, img2pose. " + _UPRIGHT,
    ),
    "paper": Convention(
        _encode_paper,
        _decode_paper,
        "R = Rx(roll) Ry(pitch) Rz(yaw), section 3.2 of the paper with its letters R_x and R_z "
        "swapped. Pitch within +-90, yaw and roll within +-180.",
    ),
    "sixdrepnet": Convention(
        _encode_sixdrepnet,
        _decode_sixdrepnet,
        "R = Rz(roll) Ry(yaw) Rx(pitch), as 6DRepNet computes it. " + _UPRIGHT,
    ),
    "opal": Convention(
        _encode_opal, _decode_opal, "Canonical with the sign of yaw turned. " + _UPRIGHT
    ),
}


def _choose_solution(
    solutions: list[tuple[Array, Array, Array]],
    cos_yaw: Array,
    locked_solution: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    """The reported one of the two Euler solutions, by the rule in `_UPRIGHT`."""
    xp = _namespace(cos_yaw)
    first, second = solutions  # |yaw| <= 90 and |yaw| >= 90
    # The slack makes the first one win where both lie on the border but for rounding.
    quarter = np.pi / 2 + 1e-4
    first_upright = (xp.abs(first[1]) < quarter) & (xp.abs(first[2]) < quarter)
    second_upright = (xp.abs(second[1]) < quarter) & (xp.abs(second[2]) < quarter)
    use_first = first_upright | (~second_upright & (xp.abs(first[1]) < quarter))
    locked = cos_yaw < GIMBAL_LOCK
    return tuple(
        xp.where(locked, c, xp.where(use_first, a, b))
        for a, b, c in zip(first, second, locked_solution, strict=True)
    )


def _product(a: Array, b: Array) -> Array:
    """The matrix product of rotations (..., 3, 3)."""
    xp = _namespace(a, b)
    # Where they are not asked for more, TPUs multiply float32 in bfloat16 and GPUs in TensorFloat:
    # a product of two rotations that is off by up to 1e-2 is no rotation.
    return a @ b if xp is np else xp.matmul(a, b, precision="highest")


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise BadInput(f"Unknown Euler convention {name!r}: choose one of {sorted(CONVENTIONS)}.")
    return CONVENTIONS[name]


def _namespace(*arrays: Array) -> Any:
    """jax.numpy when any argument is a JAX array, else NumPy."""
    if not any(hasattr(a, "aval") for a in arrays):
        return np
    import jax.numpy as jnp  # here: reading and converting data needs no JAX

    return jnp


def radians_warning(angles: Iterable[Iterable[float]]) -> str:
    """Says that angles in degrees look like radians; empty where they do not."""
    found = [angle for three in angles for angle in three]
    largest = max(map(abs, found), default=0.0)
    if not 0 < largest <= math.pi + 0.01 or all(angle == int(angle) for angle in found):
        return ""
    return (
        f"WARNING: angles are read as degrees, and the largest of {len(found)} is {largest:g}: if "
        f"they are radians, multiply them by 57.2958 (that one is {math.degrees(largest):.1f} "
        "degrees)"
    )
