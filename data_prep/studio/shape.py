"""Shapes of faces, heads and bodies: smooth deformations of the base mesh, drawn at random.

Everything is symmetric about x = 0 but a small part of the random bumps, and nothing turns the
head: a change of shape keeps the zero pose.
"""

import numpy as np

from data_prep.studio.figure import ORIGIN, Figure, smooth_step

_CHILDREN = 0.15  # share of people
_SHRINK_TO = np.array([0.0, 5.9, 0.1])  # the collar


def random_shape(figure: Figure, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A person's shape.

    Args:
      figure: the base figure.
      rng: source of the draw.

    Returns:
      (19158, 3) vertices as the base mesh has them, and the size by which the whole person is then
      scaled (1 is a person of 1.70 m).
    """
    on_head = np.flatnonzero(figure.head_share > 0)
    base, share = figure.vertices[on_head], figure.head_share[on_head]
    v = base.copy()
    draw = lambda sd: float(np.clip(rng.normal(0, sd), -2.5 * sd, 2.5 * sd))  # noqa: E731
    young = float(rng.random() < _CHILDREN) * rng.uniform(0.4, 1.0)

    # The skull.
    v[:, 0] *= 1 + (draw(0.045)) * share
    v[:, 2] += share * draw(0.05) * (base[:, 2] - ORIGIN[2])
    crown = smooth_step((base[:, 1] - 7.45) / 1.0)
    v[:, 1] += (draw(0.09) + 0.10 * young) * crown
    front = smooth_step((base[:, 2] - 0.4) / 0.7)
    v[:, 2] += draw(0.05) * crown * front * share
    v[:, 2] -= draw(0.06) * share * (1 - front) * crown

    # Jaw, cheeks, chin.
    v[:, 0] *= 1 + (draw(0.07) - 0.03 * young) * _band(base[:, 1], 6.4, 0.35) * share
    v[:, 0] *= 1 + (draw(0.05) + 0.04 * young) * _band(base[:, 1], 6.85, 0.25) * front * share
    below = smooth_step((7.1 - base[:, 1]) / 0.9) * share
    v[:, 1] -= (draw(0.07) - 0.12 * young) * below * smooth_step((base[:, 2] + 0.2) / 0.8)
    v[:, 2] += draw(0.06) * _bump(base, (0, 6.2, 1.4), 0.3)

    # Nose, brow, eyes, mouth, ears.
    nose = _bump(base, (0, 6.98, 1.62), 0.2)
    v[:, 2] += (draw(0.07) - 0.07 * young) * nose + draw(0.05) * _bump(base, (0, 7.2, 1.5), 0.16)
    v[:, 1] += draw(0.05) * nose
    v[:, 0] *= 1 + draw(0.16) * _bump(base, (0, 6.93, 1.5), 0.2)
    for side in (-1, 1):
        at_brow = _bump(base, (0.3 * side, 7.47, 1.4), 0.2)
        at_eye = _bump(base, (0.31 * side, 7.28, 1.3), 0.3)
        at_ear = _bump(base, (0.88 * side, 7.1, 0.3), 0.25)
        if side < 0:
            brow, brow_height, apart, ear = draw(0.04), draw(0.02), draw(0.025), draw(0.06)
            ear_size = draw(0.1)
        v[:, 2] += brow * at_brow
        v[:, 1] += brow_height * at_brow
        v[:, 0] += side * apart * at_eye
        v[:, 0] += side * ear * at_ear
        v += ear_size * at_ear[:, None] * (base - [0.85 * side, 7.1, 0.3])
    mouth = _bump(base, (0, 6.6, 1.5), 0.3)
    v[:, 0] *= 1 + draw(0.10) * mouth
    v[:, 1] += draw(0.12) * mouth * (base[:, 1] - 6.6)  # fullness of the lips
    v[:, 1] += draw(0.03) * mouth
    smile = draw(0.035)
    for side in (-1, 1):
        corner = _bump(base, (0.27 * side, 6.62, 1.35), 0.12)
        v[:, 1] += smile * corner
        v[:, 0] += side * 0.5 * smile * corner

    # Bumps without a name, a quarter of each on one side only.
    for _ in range(8):
        centre = rng.uniform((0.0, 6.2, 0.0), (0.8, 8.4, 1.5))
        move, lopsided = rng.normal(0, 0.02, 3), rng.uniform(0.75, 1.0)
        for side, strength in ((-1, 1.0), (1, lopsided)):
            bump = _bump(base, centre * [side, 1, 1], 0.45)
            v += strength * (bump * share)[:, None] * move * [side, 1, 1]

    neck = 4 * share * (1 - share)
    thick = draw(0.08) - 0.06 * young
    v[:, 0] *= 1 + thick * neck
    v[:, 2] += thick * neck * (base[:, 2] - 0.2)
    whole = figure.vertices.copy()
    whole[on_head] = v

    body = 1 - figure.head_share
    stout = draw(0.12)
    trunk = body * smooth_step((2.2 - abs(figure.vertices[:, 0])) / 1.0)
    whole[:, 0] *= 1 + (0.5 * stout + draw(0.04)) * body
    whole[:, 2] *= 1 + stout * trunk
    # Children have small bodies under large heads.
    shrink = 1 - 0.38 * young * body[:, None]
    whole = _SHRINK_TO + (whole - _SHRINK_TO) * shrink
    return whole, float((1 - 0.12 * young) * (1 + draw(0.035)))


def _band(y: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((y - centre) / width) ** 2)


def _bump(points: np.ndarray, centre: tuple, width: float) -> np.ndarray:
    x, y, z = (points[:, k] - centre[k] for k in range(3))
    return np.exp((x * x + y * y + z * z) * (-0.5 / width**2))
