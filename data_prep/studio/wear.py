"""What people wear, made of simple meshes: clothes, headgear, glasses.

A piece is a `Piece` in the units and axes of the base mesh (decimetres, y up, z to the front).
"""

from dataclasses import dataclass

import numpy as np

from data_prep.studio.figure import (
    LANDMARKS,
    Figure,
    cut_mesh,
    smooth_step,
)

_LEFT_BROW = LANDMARKS[22:27]
_BEFORE_EAR = 12069  # a vertex of the base mesh
HEADGEAR = ("cap", "helmet", "beanie", "hood", "scarf")


@dataclass(frozen=True)
class Piece:
    """A mesh that somebody wears.

    Attributes:
      points: (n, 3).
      triangles: (m, 3) indices.
      head_share: (n,) how far the points follow the head.
      colours: (n, 3) RGB from 0 to 1.
      gloss: 0 dull to 1 shiny.
    """

    points: np.ndarray
    triangles: np.ndarray
    head_share: np.ndarray
    colours: np.ndarray
    gloss: float = 0.1


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) RGB from 0 to 1: greys, darks and strong colours, as clothes have them."""
    import colorsys

    hue, kind = rng.random(), rng.random()
    if kind < 0.35:
        return np.clip(np.full(3, rng.uniform(0.03, 0.95)) + rng.normal(0, 0.03, 3), 0, 1)
    saturation = rng.uniform(0.2, 0.6) if kind < 0.7 else rng.uniform(0.6, 1.0)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.15, 0.95)))


def clothes(
    figure: Figure, shape: np.ndarray, normals: np.ndarray, rng: np.random.Generator
) -> tuple[Piece, np.ndarray]:
    """A top with trousers, as a layer over the body.

    Args:
      figure: the base figure.
      shape: (19158, 3) vertices of the person.
      normals: (19158, 3) unit normals of the person.
      rng: source of the draw.

    Returns:
      The piece, and (19158,) bool: vertices whose skin it hides.
    """
    base = figure.vertices
    bare = figure.assets.base.vertices
    reach = np.where(bare[:, 1] < 0, 0, abs(bare[:, 0]))  # along the arms, none on the legs
    sleeve = rng.choice([1.9, 2.7, 4.0, 4.0])
    drop = rng.choice([-0.45, 0.0, 0.1, 0.25])
    low_front = rng.choice([0.0, 0.0, 0.35, 0.8])
    # The edge of the cloth runs round the neck; it never leaves the shoulders.
    collar = 5.72 - 0.3 * base[:, 2] - drop + 1.2 * np.maximum(abs(base[:, 0]) - 0.62, 0)
    front = np.exp(-((base[:, 0] / 0.35) ** 2)) * smooth_step(base[:, 2] / 0.6)
    inside = np.minimum(collar - low_front * front - base[:, 1], sleeve - reach)
    inside[figure.triangles.max() + 1 :] = -1
    thickness = rng.uniform(0.06, 0.25)
    wrinkles = sum(
        rng.uniform(0.01, 0.03) * np.sin(base @ rng.normal(0, 4, 3) + rng.uniform(0, 6))
        for _ in range(4)
    )
    layer = 0.04 + thickness * smooth_step(inside / 0.35 + 0.25) + wrinkles * (inside > 0.1)
    cut = cut_mesh(figure.triangles, inside)
    points = cut.take(shape + normals * layer[:, None])
    place = cut.take(base)
    top, trousers = random_colour(rng), random_colour(rng) * 0.7
    colours = np.where(place[:, 1:2] < 0.9, trousers, top)
    pattern = rng.random()
    if pattern < 0.2:  # stripes
        other = random_colour(rng)
        stripes = np.sin(place[:, 1] * rng.uniform(6, 25)) > rng.uniform(-0.5, 0.5)
        colours = np.where((stripes & (place[:, 1] > 0.9))[:, None], other, colours)
    elif pattern < 0.35:  # an open jacket
        under = random_colour(rng)
        width = 0.12 + 0.5 * np.clip((place[:, 1] - 2) / 4, 0, 1)
        gap = (abs(place[:, 0]) < width * rng.uniform(0.5, 1.2)) & (place[:, 2] > 0.1)
        colours = np.where((gap & (place[:, 1] > 0.9))[:, None], under, colours)
    share = cut.take(figure.head_share)
    return Piece(points, cut.triangles, share, colours, 0.05), inside > 0.3


def headgear(
    kind: str, figure: Figure, shape: np.ndarray, normals: np.ndarray, rng: np.random.Generator
) -> tuple[list[Piece], np.ndarray]:
    """Something on the head.

    Args:
      kind: one of HEADGEAR.
      figure: the base figure.
      shape: (19158, 3) vertices of the person.
      normals: (19158, 3) unit normals of the person.
      rng: source of the draw.

    Returns:
      The pieces, and the plane (a, b) below which hair is seen: y < a + b z. Hair above
      it is under the headgear.
    """
    colour = random_colour(rng)
    base = figure.vertices
    if kind == "cap":
        plane = np.array([7.56, 0.08])
        dome = _shell(figure, shape, normals, base[:, 1] - 7.5 - 0.08 * base[:, 2], 0.1, colour)
        visor_colour = colour if rng.random() < 0.6 else random_colour(rng)
        pieces = [dome, _visor(shape, visor_colour, rng)]
        if rng.random() < 0.2:  # worn backwards
            turned = pieces[1].points * [1, 1, -1] + [0, -0.15, 2 * 0.42]
            pieces[1] = _replace_points(pieces[1], turned)
        return pieces, plane
    if kind == "helmet":
        strong = np.array(
            [
                [0.95, 0.8, 0.1],
                [0.95, 0.95, 0.95],
                [0.9, 0.35, 0.05],
                [0.1, 0.3, 0.8],
                [0.8, 0.1, 0.1],
            ]
        )
        colour = strong[rng.integers(len(strong))] if rng.random() < 0.8 else colour
        return [_helmet(shape, figure, colour, rng)], np.array([7.62, 0.0])
    if kind == "beanie":
        plane = np.array([7.38, 0.22])
        above = base[:, 1] - 7.36 - 0.22 * base[:, 2]
        piece = _shell(figure, shape, normals, above, rng.uniform(0.08, 0.16), colour)
        height = smooth_step((piece.points[:, 1] - 8.0) / 0.6)
        piece.points[:, 1] += rng.uniform(0, 0.35) * height
        if rng.random() < 0.4:
            rim = piece.points[:, 1] < 7.75 + 0.15 * piece.points[:, 2]
            piece.colours[rim] = random_colour(rng)
        return [piece], plane
    # A hood or a scarf leaves the face free and goes down to the shoulders.
    wide = kind == "hood"
    # The opening is an ellipse before the face.
    half_width, top, bottom = (0.66, 8.0, 6.0) if wide else (0.6, 7.9, 6.22)
    middle = (top + bottom) / 2
    opening = 1 - (base[:, 0] / half_width) ** 2 - ((base[:, 1] - middle) / (top - middle)) ** 2
    face = np.minimum(opening, (base[:, 2] - 0.55) * 3)
    if wide:
        face = np.maximum(face, np.minimum(base[:, 2] - 0.4, 6.15 - base[:, 1]))
    collar = base[:, 1] - 5.5 + 0.3 * base[:, 2] - 0.8 * np.maximum(abs(base[:, 0]) - 0.62, 0)
    field = np.minimum(-face, collar)
    piece = _shell(figure, shape, normals, field, 0.26 if wide else 0.12, colour)
    return [piece], np.array([-100.0, 0.0])


@dataclass(frozen=True)
class Beard:
    """A beard.

    Attributes:
      cover: how dense it is, 0 to 1.
      length: dm; 0 for one that is only a colour of the skin.
      chin, moustache, cheeks: whether it covers them.
    """

    cover: float
    length: float
    chin: bool
    moustache: bool
    cheeks: bool


def random_beard(rng: np.random.Generator) -> Beard | None:
    """A beard for a man, or none."""
    kind = rng.random()
    if kind < 0.5:
        return None
    if kind < 0.7:
        return Beard(rng.uniform(0.15, 0.5), 0.0, True, True, True)
    chin, moustache, cheeks = ((1, 1, 1), (1, 1, 0), (0, 1, 0))[rng.choice(3, p=[0.6, 0.25, 0.15])]
    length = rng.uniform(0.03, 0.16) if rng.random() < 0.7 else 0.0
    return Beard(rng.uniform(0.7, 0.95), length, bool(chin), bool(moustache), bool(cheeks))


def _beard_field(figure: Figure, beard: Beard) -> np.ndarray:
    """(19158,) positive where a beard grows, about its distance (dm) from the beard's edge."""
    x, y, z = abs(figure.vertices[:, 0]), figure.vertices[:, 1], figure.vertices[:, 2]
    lips = np.hypot(x / 0.3, (y - 6.61) / 0.13) - 1
    jaw = np.minimum.reduce([6.5 + 0.75 * x**2 - y + 0.12, z - 0.5, y - 6.02 - 0.1 * x])
    if not beard.cheeks:
        jaw = np.minimum(jaw, 0.24 - x)
    above_lip = np.minimum.reduce([6.84 - y, y - 6.6, 0.33 - x, z - 1.2])
    field = np.full(len(x), -1.0)
    if beard.chin:
        field = np.maximum(field, jaw)
    if beard.moustache:
        field = np.maximum(field, above_lip)
    field = np.minimum(field, 0.25 * lips)
    return np.where(np.arange(len(x)) <= figure.triangles.max(), field, -1.0)


def beard_cover(figure: Figure, beard: Beard) -> np.ndarray:
    """(19158,) from 0 to 1: how far the beard colours the skin."""
    return beard.cover * smooth_step(_beard_field(figure, beard) / 0.1 + 0.3)


def full_beard(
    figure: Figure,
    shape: np.ndarray,
    normals: np.ndarray,
    beard: Beard,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> Piece:
    """The volume of a beard: a layer that is thickest at its middle, rough as hair is."""
    field = _beard_field(figure, beard) - 0.02
    cut = cut_mesh(figure.triangles, field)
    rough = 1 + 0.35 * rng.standard_normal(len(field))
    height = beard.length * smooth_step(field / 0.25) * rough
    points = cut.take(shape + normals * height[:, None])
    low = np.clip((6.4 - cut.take(figure.vertices)[:, 1]) / 0.4, 0, 1)
    points[:, 1] -= 1.2 * beard.length * low
    colours = colour * (1 + 0.15 * rng.standard_normal((len(points), 1)))
    return Piece(points, cut.triangles, cut.take(figure.head_share), np.clip(colours, 0, 1), 0.1)


def eyebrows(
    figure: Figure, shape: np.ndarray, normals: np.ndarray, colour: np.ndarray, thick: float
) -> Piece:
    """Eyebrows: a thin layer over the brows, `thick` dm high at the nose and thinner outwards."""
    base = figure.vertices
    face = np.flatnonzero((base[:, 2] > 0.9) & (base[:, 1] > 7.2) & (base[:, 1] < 7.7))
    face = face[face <= figure.triangles.max()]
    place = np.stack([abs(base[face, 0]), base[face, 1]], axis=1)
    line = base[_LEFT_BROW, :2]
    inside = np.full(len(face), -1.0)
    for k in range(len(line) - 1):
        ahead = line[k + 1] - line[k]
        along = np.clip((place - line[k]) @ ahead / (ahead @ ahead), 0, 1)
        aside = place - line[k] - along[:, None] * ahead
        taper = 1 - 0.6 * (k + along) / (len(line) - 1)
        inside = np.maximum(inside, 0.5 * thick * taper - np.hypot(*aside.T))
    field = np.full(len(base), -1.0)
    field[face] = inside
    cut = cut_mesh(figure.triangles, field)
    points = cut.take(shape + 0.012 * normals)
    return Piece(
        points, cut.triangles, np.ones(len(points)), np.tile(colour, (len(points), 1)), 0.0
    )


def glasses(shape: np.ndarray, figure: Figure, rng: np.random.Generator) -> list[Piece]:
    """Glasses or sunglasses on the nose of a person of this shape."""
    frame = np.zeros(3) + rng.uniform(0, 0.15) if rng.random() < 0.6 else random_colour(rng) * 0.7
    wide, high = rng.uniform(0.19, 0.27), rng.uniform(0.13, 0.22)
    squareness = rng.uniform(2, 5)
    thick = rng.uniform(0.008, 0.03)
    # How far the eyes of this person have moved from those of the base mesh.
    bridge = shape[134] + [0, -0.02, 0.07]
    front = bridge[2] - 0.04
    pieces = []
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    c, s = np.cos(angles), np.sin(angles)
    rim = np.c_[
        wide * np.sign(c) * abs(c) ** (2 / squareness),
        high * np.sign(s) * abs(s) ** (2 / squareness),
        -0.10 * (c + 1) * 0.5,
    ]
    dark = rng.random() < 0.3
    for side in (-1, 1):
        middle = np.array([(0.065 + wide) * side, bridge[1] - 0.05, front])
        ring = middle + rim * [side, 1, 1]
        pieces.append(_tube(ring, thick, frame, closed=True))
        hinge = middle + np.array([wide * side, 0.06, -0.1])
        ear = np.array([side * abs(shape[_BEFORE_EAR, 0]) * 1.1, bridge[1] - 0.02, 0.35])
        pieces.append(
            _tube(np.array([hinge, (hinge + ear) / 2 + [0.04 * side, 0, 0], ear]), thick, frame)
        )
        if dark:
            fan = np.array([[i, (i + 1) % 24, 24] for i in range(24)])
            tint = np.full((25, 3), rng.uniform(0.01, 0.12))
            pieces.append(Piece(np.vstack([ring, ring.mean(axis=0)]), fan, np.ones(25), tint, 0.9))
    ends = np.array([[-0.08, bridge[1], front + 0.01], [0, bridge[1] + 0.02, front + 0.04]])
    pieces.append(_tube(np.vstack([ends, ends[:1] * [-1, 1, 1]]), thick, frame))
    return pieces


def _shell(
    figure: Figure,
    shape: np.ndarray,
    normals: np.ndarray,
    field: np.ndarray,
    thickness: float,
    colour: np.ndarray,
) -> Piece:
    """A layer over the skin where a field is positive; ears are smoothed over."""
    base = figure.vertices
    field = np.where(np.arange(len(base)) <= figure.triangles.max(), field, -1.0)
    ears = np.exp(-((abs(base[:, 0]) - 0.88) ** 2) / 0.02)
    ears *= (base[:, 1] > 6.8) & (base[:, 1] < 7.5)
    cut = cut_mesh(figure.triangles, field)
    layer = shape + normals * (thickness * (1 - ears))[:, None]
    cheek = abs(shape[_BEFORE_EAR, 0]) + thickness
    layer[:, 0] = np.where(ears > 0.02, np.clip(layer[:, 0], -cheek, cheek), layer[:, 0])
    points = cut.take(layer)
    colours = np.tile(colour, (len(points), 1))
    return Piece(points, cut.triangles, cut.take(figure.head_share), colours, 0.05)


def _visor(shape: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> Piece:
    across, outward = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(0, 1, 6))
    length, width = rng.uniform(0.5, 0.85), 0.66
    forehead = shape[:13380][abs(shape[:13380, 1] - 7.7) < 0.2][:, 2].max()
    start = forehead - 0.05 - 0.55 * across**2
    x = width * across * (1 + 0.05 * outward)
    y = 7.66 - 0.06 * across**2 - rng.uniform(0.05, 0.4) * outward * (1 + 0.3 * across**2)
    z = start + outward * length * np.sqrt(np.maximum(1 - 0.55 * across**2, 0))
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    triangles = grid_triangles(6, 15)
    return Piece(points, triangles, np.ones(len(points)), np.tile(colour, (len(points), 1)), 0.1)


def _helmet(
    shape: np.ndarray, figure: Figure, colour: np.ndarray, rng: np.random.Generator
) -> Piece:
    skull = shape[figure.outline]
    skull = skull[skull[:, 1] > 7.6]
    low, high = skull.min(axis=0), skull.max(axis=0)
    centre = np.array([0, 7.6, (low[2] + high[2]) / 2])
    radii = np.array([high[0] + 0.2, high[1] - 7.6 + 0.28, (high[2] - low[2]) / 2 + 0.2])
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, 33), np.linspace(0, np.pi / 2, 10))
    unit = np.stack([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)], -1)
    ridge = 1 + 0.05 * np.exp(-((unit[..., :1] / 0.12) ** 2)) * (unit[..., 1:2] > 0.2)
    dome = centre + unit * radii * ridge
    peak = np.clip(np.cos(around[:1]), 0, 1)[..., None] ** 3
    brim = centre + unit[:1] * (radii * [1.08, 0, 1.08] + [0, 0, 0])
    brim = brim + unit[:1] * peak * rng.uniform(0.15, 0.45) - [0, 0.04, 0]
    points = np.concatenate([brim, dome]).reshape(-1, 3)
    colours = np.tile(colour, (len(points), 1))
    return Piece(points, grid_triangles(11, 33), np.ones(len(points)), colours, 0.6)


def _tube(line: np.ndarray, radius: float, colour: np.ndarray, *, closed: bool = False) -> Piece:
    """A tube of six sides round a line of points."""
    ahead = np.roll(line, -1, axis=0) - np.roll(line, 1, axis=0)
    if not closed:
        ahead[0], ahead[-1] = line[1] - line[0], line[-1] - line[-2]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead, [0.3, 0.9, 0.1])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, ahead)
    angles = np.linspace(0, 2 * np.pi, 7)[:, None, None]
    points = line + radius * (np.cos(angles) * side + np.sin(angles) * up)  # (7, n, 3)
    if closed:
        points = np.concatenate([points, points[:, :1]], axis=1)
    triangles = grid_triangles(*points.shape[:2])
    points = points.reshape(-1, 3)
    return Piece(points, triangles, np.ones(len(points)), np.tile(colour, (len(points), 1)), 0.5)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of points, stored row by row."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
    return np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])


def _replace_points(piece: Piece, points: np.ndarray) -> Piece:
    return Piece(points, piece.triangles, piece.head_share, piece.colours, piece.gloss)
