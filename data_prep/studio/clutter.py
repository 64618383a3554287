"""Things that stand about, many of them round like heads: balls, lamps, vases, boxes, poles."""

import numpy as np

from data_prep.studio.scene import Thing
from data_prep.studio.wear import grid_triangles, random_colour

_SKIN_LIKE = np.array([[0.85, 0.65, 0.52], [0.55, 0.38, 0.28], [0.3, 0.2, 0.15], [0.1, 0.08, 0.07]])


def random_thing(rng: np.random.Generator, place: np.ndarray) -> Thing:
    """A thing of the size of a head or of furniture.

    Args:
      rng: source of the draw.
      place: (3,) its middle in the world, metres.
    """
    kind = rng.choice(["ball", "vase", "lamp", "box", "pole"], p=[0.3, 0.2, 0.2, 0.2, 0.1])
    if kind == "ball":
        radius = rng.uniform(0.06, 0.2)
        turn = np.linspace(0, np.pi, 14)
        profile = np.c_[radius * np.sin(turn), -radius * np.cos(turn) * rng.uniform(0.8, 1.4)]
    elif kind == "vase":
        heights = np.linspace(-0.2, 0.2, 14) * rng.uniform(0.7, 1.5)
        waves = 1 + 0.5 * np.sin(rng.uniform(5, 12) * heights + rng.uniform(0, 6))
        profile = np.c_[rng.uniform(0.05, 0.12) * waves, heights]
    elif kind == "lamp":
        shade = rng.uniform(0.08, 0.22)
        profile = np.array(
            [
                [0.02, 0.9],
                [0.02, 0.12],
                [shade, 0.12],
                [shade * rng.uniform(0.4, 1), -0.14],
                [0, -0.14],
            ]
        )
    elif kind == "pole":
        radius = rng.uniform(0.02, 0.12)
        profile = np.array([[radius, -1.5], [radius, 1.5]])
    else:
        return _box(rng, place)
    return _lathe(rng, profile, place)


def _lathe(rng: np.random.Generator, profile: np.ndarray, place: np.ndarray) -> Thing:
    """A profile (radius, height downwards) turned about the vertical."""
    around = np.linspace(0, 2 * np.pi, 21)
    rows = np.stack(
        [
            profile[:, :1] * np.cos(around),
            np.repeat(profile[:, 1:], len(around), axis=1),
            profile[:, :1] * np.sin(around),
        ],
        axis=-1,
    )
    points = rows.reshape(-1, 3) + place
    colours = np.tile(_colour(rng), (len(points), 1))
    if rng.random() < 0.3:  # the upper part in another colour, as hair is
        colours[points[:, 1] < place[1] + rng.normal(0, 0.05)] = _colour(rng)
    return Thing(points, grid_triangles(*rows.shape[:2]), colours, float(rng.random()))


def _box(rng: np.random.Generator, place: np.ndarray) -> Thing:
    half = np.exp(rng.uniform(np.log(0.04), np.log(0.35), 3))
    angle = rng.uniform(0, np.pi)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    faces = []
    for axis in range(3):
        for side in (-1, 1):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            square = np.zeros((4, 3))
            square[:, axis] = side
            square[:, a] = [-1, 1, -1, 1]
            square[:, b] = [-1, -1, 1, 1]
            faces.append(square)
    points = np.concatenate(faces) * half @ turn.T + place
    triangles = np.concatenate([grid_triangles(2, 2) + 4 * face for face in range(6)])
    return Thing(points, triangles, np.tile(_colour(rng), (len(points), 1)), 0.1)


def _colour(rng: np.random.Generator) -> np.ndarray:
    skin = rng.random() < 0.3
    colour = _SKIN_LIKE[rng.integers(len(_SKIN_LIKE))] if skin else random_colour(rng)
    return np.clip(255 * colour * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
