"""Shapes of faces, heads and bodies, drawn at random.

With MakeHuman's targets (targets.py): sex, age, origin, weight, features and an expression. Without
them: smooth deformations of the base mesh alone. Both end in the same zero pose, see `align_head`.
"""

import numpy as np

from data_prep.studio.figure import (
    ORIGIN,
    Figure,
    align_head,
    arms_down,
    bump_at,
    smooth_step,
)

_CHILDREN = 0.15  # share of people
_SHRINK_TO = np.array([0.0, 5.9, 0.1])  # the collar


def random_shape(figure: Figure, rng: np.random.Generator) -> tuple[np.ndarray, float, str]:
    """A person's shape.

    Args:
      figure: the base figure.
      rng: source of the draw.

    Returns:
      (19158, 3) vertices in the place of the base mesh, arms down; the size by which the whole
      person is then scaled; and "male", "female" or "child".
    """
    base = figure.assets.base.vertices
    if figure.targets is None:
        kind = str(rng.choice(["male", "female"]))
        young = float(rng.random() < _CHILDREN) * rng.uniform(0.4, 1.0)
        shape = _deformed(figure, figure.vertices, rng, strength=1.0, young=young)
        size = (1 - 0.12 * young) * (1 + 0.035 * float(np.clip(rng.normal(), -2.5, 2.5)))
        return (
            align_head(shape, figure.vertices, figure.outline),
            size,
            "child" if young > 0.5 else kind,
        )
    shape = base.copy()
    kind = figure.targets.add_person(shape, rng)
    shape = arms_down(align_head(shape, base, figure.outline))
    shape = _deformed(figure, shape, rng, strength=0.4, young=0.0)
    shape = align_head(shape, figure.vertices, figure.outline)
    figure.targets.add_expression(shape, rng)
    return shape, float(rng.uniform(0.96, 1.04)), kind


def _deformed(
    figure: Figure, shape: np.ndarray, rng: np.random.Generator, *, strength: float, young: float
) -> np.ndarray:
    """Smooth deformations, symmetric but for a small part of the bumps without a name.

    Args:
      figure: the base figure.
      shape: (19158, 3) vertices to start from.
      rng: source of the draw.
      strength: 1 for the full range.
      young: 0 grown up to 1 child.
    """
    on_head = figure.on_head
    base, share = figure.vertices[on_head], figure.head_share[on_head]
    v = shape[on_head]

    def draw(sd: float) -> float:
        return strength * float(np.clip(rng.normal(0, sd), -2.5 * sd, 2.5 * sd))

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
    v[:, 2] += draw(0.06) * figure.bump((0, 6.2, 1.4), 0.3)

    # Nose, brow, eyes, mouth, ears.
    nose = figure.bump((0, 6.98, 1.62), 0.2)
    v[:, 2] += (draw(0.07) - 0.07 * young) * nose + draw(0.05) * figure.bump((0, 7.2, 1.5), 0.16)
    v[:, 1] += draw(0.05) * nose
    v[:, 0] *= 1 + draw(0.16) * figure.bump((0, 6.93, 1.5), 0.2)
    for side in (-1, 1):
        at_brow = figure.bump((0.3 * side, 7.47, 1.4), 0.2)
        at_eye = figure.bump((0.31 * side, 7.28, 1.3), 0.3)
        at_ear = figure.bump((0.88 * side, 7.1, 0.3), 0.25)
        if side < 0:
            brow, brow_height, apart, ear = draw(0.04), draw(0.02), draw(0.025), draw(0.06)
            ear_size = draw(0.1)
        v[:, 2] += brow * at_brow
        v[:, 1] += brow_height * at_brow
        v[:, 0] += side * apart * at_eye
        v[:, 0] += side * ear * at_ear
        v += ear_size * at_ear[:, None] * (base - [0.85 * side, 7.1, 0.3])
    mouth = figure.bump((0, 6.6, 1.5), 0.3)
    v[:, 0] *= 1 + draw(0.10) * mouth
    v[:, 1] += draw(0.12) * mouth * (base[:, 1] - 6.6)  # fullness of the lips
    v[:, 1] += draw(0.03) * mouth
    smile = draw(0.035)
    for side in (-1, 1):
        corner = figure.bump((0.27 * side, 6.62, 1.35), 0.12)
        v[:, 1] += smile * corner
        v[:, 0] += side * 0.5 * smile * corner

    # Bumps without a name, a quarter of each on one side only.
    for _ in range(5):
        centre = rng.uniform((0.0, 6.2, 0.0), (0.8, 8.4, 1.5))
        move, lopsided = strength * rng.normal(0, 0.025, 3), rng.uniform(0.75, 1.0)
        for side, part in ((-1, 1.0), (1, lopsided)):
            bump = bump_at(base, centre * [side, 1, 1], 0.45)
            v += part * (bump * share)[:, None] * move * [side, 1, 1]

    neck = 4 * share * (1 - share)
    thick = draw(0.08) - 0.06 * young
    v[:, 0] *= 1 + thick * neck
    v[:, 2] += thick * neck * (base[:, 2] - 0.2)
    whole = shape.copy()
    whole[on_head] = v

    body = 1 - figure.head_share
    stout = draw(0.12)
    trunk = body * smooth_step((2.2 - abs(figure.vertices[:, 0])) / 1.0)
    whole[:, 0] *= 1 + (0.5 * stout + draw(0.04)) * body
    whole[:, 2] *= 1 + stout * trunk
    # Children have small bodies under large heads.
    return _SHRINK_TO + (whole - _SHRINK_TO) * (1 - 0.38 * young * body[:, None])


def _band(y: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((y - centre) / width) ** 2)
