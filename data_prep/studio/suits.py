"""Suits and hats of MakeHuman: meshes that fit any shape, in colours of their own.

Their files bring no textures here, so every piece of cloth that hangs together (a jacket, a tie, a
sleeve, a button) has one colour, or two where it is top and trousers in one; pieces of the same
size, such as two shoes, have the same.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_prep.studio.assets import Garment
from data_prep.studio.figure import Figure
from data_prep.studio.wear import Piece, random_colour

HAT = "Hats"  # the tag of garments that are worn on the head
_WAIST = 0.9  # dm, height of the base mesh
_UNDER_A_HAT = np.array([7.62, 0.0])  # see `wear.headgear`


def suits_for(figure: Figure, kind: str) -> list[Garment]:
    """The suits that somebody of this kind ("male", "female", "child") may wear."""
    other = {"male": "Female", "female": "Male"}.get(kind, "")
    return [g for g in figure.assets.clothes if HAT not in g.tags and other not in g.tags]


def hats(figure: Figure) -> list[Garment]:
    """The hats among the assets."""
    return [garment for garment in figure.assets.clothes if HAT in garment.tags]


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
    points, triangles, piece_of = _of_pieces(garment, shape)
    colours = np.stack([random_colour(rng) for _ in range(piece_of.max() + 1)])[piece_of]
    return Piece(points, triangles, np.zeros(len(points)), colours, 0.05), hidden


def hat(
    garment: Garment, shape: np.ndarray, rng: np.random.Generator
) -> tuple[list[Piece], np.ndarray]:
    """A hat, as `wear.headgear` gives it: the pieces, and the plane below which hair is seen."""
    points, triangles, piece_of = _of_pieces(garment, shape)
    colours = np.stack([random_colour(rng) for _ in range(piece_of.max() + 1)])[piece_of]
    piece = Piece(points, triangles, np.ones(len(points)), colours, 0.1)
    return [piece], _UNDER_A_HAT


def _of_pieces(garment: Garment, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and triangles on a person, and a number for each point: the same where points hang
    together, or pieces are as large."""
    triangles = np.concatenate(list(garment.mesh.faces.values()))
    points = garment.fit(shape)
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(points), len(points)))
    _, piece = connected_components(graph, directed=False)
    alike = np.bincount(piece)[piece]
    # A mesh from the shoulders to the legs is a top and trousers.
    height = points[:, 1]
    reaches = [np.bincount(piece, weights=mask)[piece] > 0 for mask in (height > 3, height < -3)]
    trousers = reaches[0] & reaches[1] & (height < _WAIST)
    return points, triangles, np.unique(2 * alike + trousers, return_inverse=True)[1]
