"""The base figure: MakeHuman's mesh made ready for people, once, before any of them is drawn.

All fields are in the units and axes of the file (decimetres, y up, z to the front); `to_head_axes`
leads to head axes.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from data_prep.studio.assets import BODY, LEFT_EYE, RIGHT_EYE, Assets, Garment, read_hair_texture
from data_prep.studio.targets import Targets

# The middle of the skull of the base mesh: the origin of head axes.
ORIGIN = np.array([0.0, 7.3, 0.4])
TEETH = ("upper", "lower")
SHOULDERS = {-1: slice(14486, 14494), 1: slice(14046, 14054)}  # joint cubes, right and left
_WRIST = 3.9  # dm along the arms
_BODY_CELL, _HAND_CELL = 0.3, 0.2  # dm
EAR_LOBES = 6.9  # height; hair above belongs to the outline of a head, hair below hangs
_HAIR_OF_OUTLINE = 0.6  # dm; hair further away from the skin does not belong to the outline

# Vertices of the base mesh at the 68 points of iBUG and, as CMU Panoptic has them, the pupils of
# the subject's right and left eye (front of the eyeball helpers). Chosen by eye on the mesh.
LANDMARKS = np.array(
    [
        *(5470, 5456, 866, 895, 894, 3697, 922, 918, 5296),  # jaw, right ear to chin
        *(7620, 7624, 10365, 7596, 7597, 7571, 12055, 12069),  # chin to left ear
        *(261, 225, 204, 205, 208, 6983, 6980, 6979, 6999, 7030),  # brows
        *(134, 5063, 291, 5054, 358, 285, 317, 7054, 7119),  # bridge of the nose, nostrils
        *(4854, 4849, 4865, 6769, 4862, 4859),  # right eye
        *(13365, 11483, 11467, 11472, 11477, 11480),  # left eye
        *(402, 410, 456, 455, 7215, 7170, 7162, 7166, 7245, 496, 490, 406),  # lips, outer
        *(422, 471, 474, 7227, 7182, 7236, 493, 481),  # lips, inner
        *(14670, 14598),
    ]
)


@dataclass(frozen=True, eq=False)  # one figure a process: compared and hashed by identity
class Figure:
    """The base mesh, ready for use.

    Attributes:
      assets: where it comes from.
      vertices: (19158, 3) with the arms let down.
      head_share: (19158,) how far each vertex follows the head, 0 to 1.
      triangles: (m, 3) of the body's skin, vertex indices.
      skin: (s,) vertex of each point of the skin; where the texture has a seam, a vertex has
        several points.
      skin_uv: (s, 2) place of each point in the texture.
      skin_triangles: (m, 3) indices of points.
      outline: (k,) indices of the head's vertices: face, skull and ears, down to the chin.
      outline_triangles: (j, 3) indices into `outline`.
      eyes: vertices of the right and of the left eyeball helper.
      hair: garments with what is known of each, see `Hair`.
      mouth: triangles of the teeth and of the tongue, vertex indices.
      targets: MakeHuman's shape targets, or None.
      on_head: vertices that follow the head at least a little.
    """

    assets: Assets
    vertices: np.ndarray
    head_share: np.ndarray
    triangles: np.ndarray
    skin: np.ndarray
    skin_uv: np.ndarray
    skin_triangles: np.ndarray
    outline: np.ndarray
    outline_triangles: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    hair: tuple["Hair", ...]
    mouth: tuple[np.ndarray, np.ndarray]
    targets: Targets | None
    on_head: np.ndarray
    _bumps: dict[tuple, np.ndarray] = field(default_factory=dict)

    def bump(self, centre: tuple[float, float, float], width: float) -> np.ndarray:
        """`bump_at` the vertices `on_head` of the base mesh; kept, since it is asked for often."""
        key = (*centre, width)
        if key not in self._bumps:
            self._bumps[key] = bump_at(self.vertices[self.on_head], centre, width)
        return self._bumps[key]


@dataclass(frozen=True)
class Hair:
    """A garment of hair.

    Attributes:
      garment: its mesh and fit.
      head_share: (n,) how far its vertices follow the head.
      in_outline: (n,) bool, vertices that belong to the outline of the head.
      scalp: (19158,) from 0 to 1, how far it covers each vertex of the base mesh.
      bulk: dm, how far it stands off the skin; little enough goes under a hat.
      fringe: 0 to 1, how much of brows, eyes, nose and mouth it hides from the front.
    """

    garment: Garment
    head_share: np.ndarray
    in_outline: np.ndarray
    scalp: np.ndarray
    bulk: float
    fringe: float


def make_figure(assets: Assets, targets: Targets | None = None) -> Figure:
    """Prepares the base mesh; takes about a second."""
    vertices = assets.base.vertices.copy()
    triangles, uv_triangles = _simplified(assets)
    head_share = head_share_of(vertices)
    on_head = (head_share >= 1) & (np.arange(len(vertices)) <= triangles.max())
    outline, outline_triangles = used_points(triangles[on_head[triangles].all(axis=1)])
    skin, uv_index, skin_triangles = split_seams(triangles, uv_triangles)
    hair = []
    for garment in assets.hair:
        fitted = garment.fit(vertices)
        share = np.maximum(head_share_of(fitted), 0.75)  # long hair slides over the shoulders
        distance = _distance(fitted, vertices[outline])
        above = fitted[:, 1] > EAR_LOBES
        in_outline = above & (distance < _HAIR_OF_OUTLINE) & (opacity(garment) > 0.2)
        bulk = float(np.quantile(distance[above], 0.9))
        scalp = _covered(vertices, triangles, outline, fitted)
        fringe = _hides(vertices[LANDMARKS[17:]], fitted, garment)
        hair.append(Hair(garment, share, in_outline, scalp, bulk, fringe))
    return Figure(
        assets=assets,
        vertices=arms_down(vertices),
        head_share=head_share,
        triangles=triangles,
        skin=skin,
        skin_uv=assets.base.uv[uv_index],
        skin_triangles=skin_triangles,
        outline=outline,
        outline_triangles=outline_triangles,
        eyes=(np.unique(assets.base.faces[RIGHT_EYE]), np.unique(assets.base.faces[LEFT_EYE])),
        hair=tuple(hair),
        mouth=(
            np.concatenate([assets.base.faces[f"helper-{side}-teeth"] for side in TEETH]),
            assets.base.faces["helper-tongue"],
        ),
        targets=targets,
        on_head=np.flatnonzero(head_share > 0),
    )


def to_head_axes(points: np.ndarray) -> np.ndarray:
    """(..., 3) head axes in metres of (..., 3) points as the base mesh has them."""
    return (points - ORIGIN) * np.array([0.1, -0.1, -0.1])


def head_share_of(vertices: np.ndarray) -> np.ndarray:
    """How far points at rest follow the head: 0 up to the collar, 1 from jaw and nape upwards."""
    collar = 5.72 - 0.3 * vertices[:, 2]
    nape = 6.72 - 0.42 * vertices[:, 2]
    return smooth_step((vertices[:, 1] - collar) / (nape - collar))


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth in between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def bump_at(
    points: np.ndarray, centre: tuple[float, float, float] | np.ndarray, width: float
) -> np.ndarray:
    """(n,) Gaussian of the distance of points from a centre, 1 at the centre."""
    x, y, z = (points[:, k] - centre[k] for k in range(3))
    return np.exp((x * x + y * y + z * z) * (-0.5 / width**2))


def used_points(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices that triangles use, sorted, and the triangles in terms of these."""
    is_used = np.zeros(triangles.max() + 1, bool)
    is_used[triangles.ravel()] = True
    return np.flatnonzero(is_used), (np.cumsum(is_used) - 1)[triangles]


def split_seams(
    triangles: np.ndarray, uv_triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a mesh whose vertices may have several places in a texture.

    Returns:
      The vertex and the place of each point, and the triangles in terms of points.
    """
    pairs = np.stack([triangles.ravel(), uv_triangles.ravel()], axis=1)
    pairs, points = np.unique(pairs, axis=0, return_inverse=True)
    return pairs[:, 0], pairs[:, 1], points.reshape(-1, 3)


@dataclass(frozen=True)
class Cut:
    """The part of a mesh where a field is positive: its border runs across triangles.

    Attributes:
      ends: (k, 2) the vertices that each new point lies between; twice the same for an old one.
      along: (k,) where between them.
      triangles: (m, 3) indices of new points.
    """

    ends: np.ndarray
    along: np.ndarray
    triangles: np.ndarray

    def take(self, values: np.ndarray) -> np.ndarray:
        """(k, ...) values at the new points, of (n, ...) values at the vertices."""
        along = self.along.reshape(-1, *[1] * (values.ndim - 1))
        return values[self.ends[:, 0]] * (1 - along) + values[self.ends[:, 1]] * along


def cut_mesh(triangles: np.ndarray, field: np.ndarray) -> Cut:
    """Cuts a mesh along the line where a field, (n,) at the vertices, is zero."""
    inside = field > 0
    count = sum(inside[triangles[:, k]].astype(np.int8) for k in range(3))
    whole = triangles[count == 3]

    def rolled(chosen: np.ndarray, first: np.ndarray) -> np.ndarray:
        return np.take_along_axis(chosen, (first[:, None] + np.arange(3)) % 3, axis=1)

    # On the border a new point is named by the two vertices that it lies between.
    number = len(field)
    one = triangles[count == 1]
    a, b, c = rolled(one, inside[one].argmax(axis=1)).T
    tips = np.stack([a * number + a, a * number + b, a * number + c], axis=1)
    two = triangles[count == 2]
    a, b, c = rolled(two, (~inside[two]).argmax(axis=1)).T
    stumps = np.stack(
        [
            b * number + a,
            b * number + b,
            c * number + c,
            b * number + a,
            c * number + c,
            c * number + a,
        ],
        axis=1,
    ).reshape(-1, 3)
    names, border = np.unique(np.concatenate([tips, stumps]), return_inverse=True)
    kept = np.zeros(number, bool)
    kept[whole.ravel()] = True
    place = np.cumsum(kept) - 1
    old = np.flatnonzero(kept)
    ends = np.concatenate([np.stack([old, old], axis=1), np.stack(divmod(names, number), axis=1)])
    inner, outer = field[ends[:, 0]], field[ends[:, 1]]
    along = np.where(ends[:, 0] == ends[:, 1], 0.0, inner / np.maximum(inner - outer, 1e-9))
    cut = np.concatenate([place[whole], border.reshape(-1, 3) + len(old)])
    return Cut(ends, along, cut)


def point_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(n, 3) unit normals of the points of a mesh, averaged over triangles by their area."""
    ax, ay, az = points[triangles[:, 0]].T
    bx, by, bz = points[triangles[:, 1]].T
    cx, cy, cz = points[triangles[:, 2]].T
    bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    flat = triangles.ravel()
    summed = np.stack(
        [
            np.bincount(flat, np.repeat(area, 3), minlength=len(points))
            for area in (by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx)
        ],
        axis=1,
    )
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-30)


def arms_down(vertices: np.ndarray) -> np.ndarray:
    """Lets the arms of a mesh like the base mesh hang: turned about the shoulders, sideways."""
    result = vertices.copy()
    for side in (-1, 1):
        shoulder = vertices[SHOULDERS[side]].mean(axis=0)
        reach = side * vertices[:, 0] / abs(shoulder[0])  # 1 at the shoulder
        arm = (reach > 0.6) & (vertices[:, 1] > 0.0)
        angle = np.deg2rad(-38.0) * side * smooth_step((reach - 0.6) / 0.65)
        x, y = vertices[:, 0] - 0.92 * shoulder[0], vertices[:, 1] - shoulder[1] + 0.1
        turned_x = np.cos(angle) * x - np.sin(angle) * y + 0.92 * shoulder[0]
        turned_y = np.sin(angle) * x + np.cos(angle) * y + shoulder[1] - 0.1
        result[:, 0] = np.where(arm, turned_x, result[:, 0])
        result[:, 1] = np.where(arm, turned_y, result[:, 1])
    return result


def align_head(shape: np.ndarray, base: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Moves a shape rigidly so that its head lies on that of the base mesh.

    This defines the zero pose of every shape: no rigid motion brings the vertices of its head
    nearer (in the sum of squares) to the same vertices of the base mesh.

    Args:
      shape: (n, 3) vertices.
      base: (n, 3) vertices of the base mesh.
      head: indices of the vertices of the head.

    Returns:
      (n, 3) vertices.
    """
    middle, wanted = shape[head].mean(axis=0), base[head].mean(axis=0)
    u, _, vt = np.linalg.svd((base[head] - wanted).T @ (shape[head] - middle))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return (shape - middle) @ turn.T + wanted


def _simplified(assets: Assets) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the skin, vertex and uv indices, with hands, feet and body made coarser.

    Vertices that share a cell of a grid are drawn together into one of them. Heads and necks stay
    as they are.
    """
    vertices = assets.base.vertices
    triangles, uv_triangles = assets.base.faces[BODY], assets.base.uv_faces[BODY]
    cell = np.where(vertices[:, 1] < 5.0, _BODY_CELL, 0.0)
    cell[abs(vertices[:, 0]) > _WRIST] = _HAND_CELL
    coarse = cell > 0
    places = np.floor(vertices / np.where(coarse, cell, 1)[:, None]).astype(int)
    names = np.c_[places, (cell * 1000).astype(int)]
    names[~coarse] = np.c_[
        np.flatnonzero(~coarse), np.full((~coarse).sum(), -1).repeat(3).reshape(-1, 3)
    ]
    _, first, which = np.unique(names, axis=0, return_index=True, return_inverse=True)
    keeper = first[which.ravel()]
    uv_of = np.zeros(len(vertices), int)
    uv_of[triangles.ravel()] = uv_triangles.ravel()
    kept = keeper[triangles]
    moved = kept != triangles
    whole = (kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 0] != kept[:, 2])
    return kept[whole], np.where(moved, uv_of[kept], uv_triangles)[whole]


def opacity(garment: Garment) -> np.ndarray:
    """(n,) from 0 to 1: how opaque the texture is round each vertex."""
    alpha = cv2.blur(read_hair_texture(garment.texture)[..., 3].astype(np.float32) / 255, (7, 7))
    mesh = garment.mesh
    uv = np.zeros((len(mesh.vertices), 2))
    for group, faces in mesh.faces.items():
        uv[faces.ravel()] = mesh.uv[mesh.uv_faces[group].ravel()]
    place = np.mod(uv * [1, -1] + [0, 1], 1) * alpha.shape[::-1]
    columns, rows = np.minimum(place.astype(int), np.array(alpha.shape[::-1]) - 1).T
    return alpha[rows, columns]


def _hides(points: np.ndarray, fitted: np.ndarray, garment: Garment) -> float:
    """Share of the points (n, 3) that opaque hair lies before, seen from the front."""
    triangles = np.concatenate(list(garment.mesh.faces.values()))
    triangles = triangles[(opacity(garment)[triangles] > 0.5).all(axis=1)]
    corner, right, left = np.moveaxis(fitted[triangles], 1, 0)
    right, left = right - corner, left - corner
    across = right[:, 0] * left[:, 1] - right[:, 1] * left[:, 0]  # 0: seen from its edge
    across = np.where(np.abs(across) > 1e-12, across, np.inf)
    aside = points[:, None] - corner  # (n, m, 3)
    u = (aside[..., 0] * left[:, 1] - aside[..., 1] * left[:, 0]) / across
    v = (right[:, 0] * aside[..., 1] - right[:, 1] * aside[..., 0]) / across
    before = u * right[:, 2] + v * left[:, 2] - aside[..., 2] > 0
    hidden = (u > 0) & (v > 0) & (u + v < 1) & before
    return float(hidden.any(axis=1).mean())


def _covered(
    vertices: np.ndarray, triangles: np.ndarray, outline: np.ndarray, hair: np.ndarray
) -> np.ndarray:
    """(19158,) how far hair covers the skin: hair stands before it, along its normal."""
    skin = vertices[outline].astype(np.float32)
    normals = point_normals(vertices[: triangles.max() + 1], triangles)[outline].astype(np.float32)
    step = max(1, len(hair) // 1000)  # a part of the hair's vertices will do
    hair = hair[::step].astype(np.float32)
    squares = (skin**2).sum(axis=1)[:, None] + (hair**2).sum(axis=1) - 2 * skin @ hair.T
    height = normals @ hair.T - (normals * skin).sum(axis=1)[:, None]
    near = squares - height**2 < 0.22**2
    before = step * ((height > -0.12) & (height < 0.6) & near).sum(axis=1)
    result = np.zeros(len(vertices))
    ears = (abs(skin[:, 0]) > 0.74) & (skin[:, 1] > 6.85) & (skin[:, 1] < 7.45)
    face = (skin[:, 2] > 0.8) & (skin[:, 1] < 7.85)
    result[outline] = smooth_step((before - 2) / 4) * ~(ears | face)
    return result


def _distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance from each point to the nearest of others."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0))
