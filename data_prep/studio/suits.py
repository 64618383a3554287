"""Suits and hats of MakeHuman: meshes that fit any shape, in colours of their own.

Their files bring no textures here, so every piece of cloth that hangs together (a jacket, a tie, a
sleeve, a button) has one colour, or two where it is top and trousers in one; pieces of the same
size, such as two shoes, have the same.
"""

import functools

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_prep.studio.assets import Garment
from data_prep.studio.figure import Figure
from data_prep.studio.wear import Piece, random_colour

_HAT = "Hats"  # the tag of garments that are worn on the head
_SHOULDERS, _HIPS = 4.0, -1.0  # dm, heights of the base mesh: a suit reaches from one to the other
_WAIST = 0.9  # dm
_HAT_PLANE = np.array([7.62, 0.0])  # see `wear.headgear`


def suits_for(figure: Figure, kind: str) -> list[Garment]:
    """The suits that somebody of this kind ("male", "female", "child") may wear."""
    other = {"male": "Female", "female": "Male"}.get(kind, "")
    return [garment for garment in _suits(figure) if other not in garment.tags]


def hats(figure: Figure) -> list[Garment]:
    """The hats among the assets."""
    return [garment for garment in figure.assets.clothes if _HAT in garment.tags]


@functools.lru_cache(maxsize=1)
def _suits(figure: Figure) -> tuple[Garment, ...]:
    """What dresses the whole body: not shoes, a shirt or a hat alone."""
    heights = [(garment, figure.vertices[garment.anchors, 1]) for garment in figure.assets.clothes]
    return tuple(g for g, y in heights if y.max() > _SHOULDERS and y.min() < _HIPS)


def suit(garment: Garment, shape: np.ndarray, rng: np.random.Generator) -> tuple[Piece, np.ndarray]:
    """A suit on a person.

    Args:
      garment: one of `suits_for`.
      shape: (19158, 3) vertices of the person.
      rng: source of the draw.

    Returns:
      The piece, and (19158,) bool: vertices whose skin it hides.
    """
    hidden = np.zeros(len(shape), bool)
    hidden[garment.covers] = True
    points, triangles, colours = _coloured(garment, shape, rng)
    return Piece(points, triangles, np.zeros(len(points)), colours, 0.05), hidden


def hat(
    garment: Garment, shape: np.ndarray, rng: np.random.Generator
) -> tuple[list[Piece], np.ndarray]:
    """A hat, as `wear.headgear` gives it: the pieces, and the plane below which hair is seen."""
    points, triangles, colours = _coloured(garment, shape, rng)
    return [Piece(points, triangles, np.ones(len(points)), colours, 0.1)], _HAT_PLANE


def _coloured(
    garment: Garment, shape: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and triangles on a person, and the colour of each point: the same where points hang
    together, or pieces are as large."""
    triangles = np.concatenate(list(garment.mesh.faces.values()))
    points = garment.fit(shape)
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(points), len(points)))
    _, piece = connected_components(graph, directed=False)
    alike = np.bincount(piece)[piece]
    # A mesh from the shoulders to the legs is a top and trousers.
    height = points[:, 1]
    ends_of = (height > _SHOULDERS, height < _HIPS)
    high, low = (np.bincount(piece, weights=mask)[piece] > 0 for mask in ends_of)
    kinds, kind = np.unique(2 * alike + (high & low & (height < _WAIST)), return_inverse=True)
    return points, triangles, np.stack([random_colour(rng) for _ in kinds])[kind]
