"""Makes people: a number -> the person of that number, always the same."""

import dataclasses
import functools

import cv2
import numpy as np

from data_prep.studio import paint, suits, wear
from data_prep.studio.figure import (
    LANDMARKS,
    Figure,
    Hair,
    point_normals,
    smooth_step,
    split_seams,
    to_head_axes,
    used_points,
)
from data_prep.studio.person import SHINY, Part, Person
from data_prep.studio.shape import random_shape

_BALD, _HEADGEAR, _GLASSES = 0.12, 0.25, 0.2  # shares of people
_SUIT, _HAT = 0.6, 0.2  # shares of people and of headgear, where the assets have suits and hats
_MOUTH_COLOURS = np.array([[0.9, 0.87, 0.8], [0.6, 0.25, 0.25]])  # teeth, tongue
_PEOPLE_KEPT = 64  # in memory, about 1 MB each
_CHEST = 0.35  # metres below the middle of the head
_UNDER_A_HAT = 0.3  # dm that hair may stand off the skin
_SKULL = np.array([0.0, 7.45, 0.4])
# Of the base mesh: where the sphere of CMU Panoptic's box rule stands, (0, 5, -5) of its reference
# face after the similarity fit of that face to the landmarks (docs/data.md).
_SPHERE_CENTRE = np.array([0.0, 7.148, 0.502])


@functools.lru_cache(maxsize=_PEOPLE_KEPT)
def make_person(figure: Figure, identity: int, seed: int) -> Person:
    """A person.

    Args:
      figure: the base figure.
      identity: number of the person.
      seed: of the set; another seed makes other people.

    Returns:
      The person; the same figure, identity and seed always give the same one.
    """
    rng = np.random.default_rng([seed, 1, identity])
    shape, size, kind = random_shape(figure, rng)
    body = figure.triangles
    normals = np.zeros_like(shape)
    normals[: body.max() + 1] = point_normals(shape[: body.max() + 1], body)
    look = paint.random_look(figure.assets, rng)
    beard = wear.random_beard(rng) if kind == "male" else None

    dress, hidden = _dress(figure, shape, normals, kind, rng)
    pieces = [dress]
    worn: list[wear.Piece] = []
    plane = None
    if rng.random() < _HEADGEAR:
        worn, plane = _headgear(figure, shape, normals, rng)
    if rng.random() < _GLASSES:
        pieces += wear.glasses(shape, figure, rng)

    parts = [_eyes(figure, shape, look, rng)]
    scalp = np.zeros(len(shape))
    outline = [to_head_axes(shape[figure.outline])]
    outline_triangles = [figure.outline_triangles]
    covered = plane is not None and plane[0] < 0
    if rng.random() >= _BALD and not covered:
        flat = [hair for hair in figure.hair if hair.bulk < _UNDER_A_HAT] or figure.hair
        choice = figure.hair if plane is None else flat
        # Few people see the world through their hair.
        seen = np.array([max(1 - 2 * hair.fringe, 0.1) for hair in choice])
        hair = choice[rng.choice(len(choice), p=seen / seen.sum())]
        scalp = hair.scalp
        part = _hair(hair, shape, plane, look)
        parts.append(part)
        outline.append(part.points)
        triangles = part.triangles
        outline_triangles.append(triangles[hair.in_outline[triangles].all(axis=1)])
    for piece in worn:
        outline.append(to_head_axes(piece.points))
        above = piece.head_share[piece.triangles].min(axis=1) >= 1
        outline_triangles.append(piece.triangles[above])
    if rng.random() < 0.85:
        brow = look.hair_colour / 255 * 0.6 + 0.1 * look.tint
        pieces.append(wear.eyebrows(figure, shape, normals, brow, rng.uniform(0.04, 0.11)))
    hairy = scalp
    if beard is not None:
        hairy = np.maximum(scalp, wear.beard_cover(figure, beard))
        if beard.length > 0:
            pieces.append(
                wear.full_beard(figure, shape, normals, beard, look.hair_colour / 255, rng)
            )
    parts.append(
        _skin(figure, shape - 0.1 * scalp[:, None] * normals, normals, hidden, hairy, look)
    )
    for triangles, colour in zip(figure.mouth, _MOUTH_COLOURS, strict=True):
        if figure.targets is None:
            break  # no expression opens the mouth
        used, triangles = used_points(triangles)
        inner = wear.Piece(
            shape[used], triangles, np.ones(len(used)), np.tile(colour, (len(used), 1)), 0.3
        )
        pieces.append(inner)
    # Few meshes render faster than many: what is dull becomes one, what is shiny another.
    for shiny in (False, True):
        alike = [piece for piece in pieces + worn if (piece.gloss > SHINY) == shiny]
        if alike:
            parts.append(_merged([_part(piece) for piece in alike]))

    starts = np.cumsum([0, *(len(points) for points in outline)])
    joined = np.concatenate(
        [triangles + start for triangles, start in zip(outline_triangles, starts, strict=False)]
    )
    used, joined = used_points(joined)
    return Person(
        identity=identity,
        parts=tuple(_scaled(piece, size) for part in parts for piece in _halves(part)),
        landmarks=to_head_axes(shape[LANDMARKS]) * size,
        outline=(np.concatenate(outline) * size)[used],
        outline_triangles=joined,
        sphere_centre=to_head_axes(_SPHERE_CENTRE),
    )


def _dress(
    figure: Figure, shape: np.ndarray, normals: np.ndarray, kind: str, rng: np.random.Generator
) -> tuple[wear.Piece, np.ndarray]:
    """What the body wears, and (19158,) bool: vertices whose skin it hides."""
    choice = suits.suits_for(figure, kind)
    if choice and rng.random() < _SUIT:
        return suits.suit(choice[rng.integers(len(choice))], shape, rng)
    return wear.clothes(figure, shape, normals, rng)


def _headgear(
    figure: Figure, shape: np.ndarray, normals: np.ndarray, rng: np.random.Generator
) -> tuple[list[wear.Piece], np.ndarray]:
    """As `wear.headgear`, hats included."""
    choice = suits.hats(figure)
    if choice and rng.random() < _HAT:
        return suits.hat(choice[rng.integers(len(choice))], shape, rng)
    gear = str(rng.choice(wear.HEADGEAR, p=[0.3, 0.25, 0.2, 0.15, 0.1]))
    return wear.headgear(gear, figure, shape, normals, rng)


def _skin(
    figure: Figure,
    shape: np.ndarray,
    normals: np.ndarray,
    hidden: np.ndarray,
    hairy: np.ndarray,
    look: paint.Look,
) -> Part:
    """The skin that clothes do not hide; where it is hairy it has the hair's colour."""
    seen = ~np.logical_and.reduce([hidden[figure.triangles[:, k]] for k in range(3)])
    used, triangles = used_points(figure.skin_triangles[seen])
    at = figure.skin[used]
    return Part(
        points=to_head_axes(shape[at]),
        normals=normals[at] * [1, -1, -1],
        triangles=triangles,
        head_share=figure.head_share[at],
        colours=look.skin_colours(hairy[at]),
        uv=figure.skin_uv[used],
        texture=look.skin_texture,
        gloss=look.gloss,
    )


def _eyes(figure: Figure, shape: np.ndarray, look: paint.Look, rng: np.random.Generator) -> Part:
    garment = figure.assets.eyes
    points = garment.fit(shape)
    gaze = np.deg2rad(np.clip(rng.normal(0, (7, 12)), -20, 20))  # up and down, left and right
    turn = cv2.Rodrigues(np.array([gaze[0], gaze[1], 0.0]))[0]
    for vertices in figure.eyes:
        centre = shape[vertices].mean(axis=0)
        this = np.sign(points[:, 0]) == np.sign(centre[0])
        points[this] = (points[this] - centre) @ turn.T + centre
    faces, uv_faces = _all_faces(garment.mesh)
    at, uv_at, triangles = split_seams(faces, uv_faces)
    return Part(
        points=to_head_axes(points[at]),
        normals=point_normals(points, faces)[at] * [1, -1, -1],
        triangles=triangles,
        head_share=np.ones(len(at)),
        uv=garment.mesh.uv[uv_at],
        texture=look.eye_texture,
        gloss=0.9,
    )


def _hair(hair: Hair, shape: np.ndarray, plane: np.ndarray | None, look: paint.Look) -> Part:
    garment = hair.garment
    points = garment.fit(shape)
    if plane is not None:  # what is under the headgear lies flat
        above = points[:, 1] - plane[0] - plane[1] * points[:, 2]
        flat = 0.22 * smooth_step(above / 0.3 + 0.5)[:, None]
        points = points - flat * (points - _SKULL)
    faces, uv_faces = _all_faces(garment.mesh)
    # Hair keeps one point a vertex: its meshes have few seams and the outline refers to vertices.
    uv = np.zeros((len(points), 2))
    uv[faces.ravel()] = garment.mesh.uv[uv_faces.ravel()]
    return Part(
        points=to_head_axes(points),
        normals=point_normals(points, faces) * [1, -1, -1],
        triangles=faces,
        head_share=hair.head_share,
        colours=np.tile(look.hair_colour, (len(points), 1)),
        uv=uv,
        texture=("hair", garment.texture),
        gloss=0.25,
    )


def _part(piece: wear.Piece) -> Part:
    normals = point_normals(piece.points, piece.triangles)
    return Part(
        points=to_head_axes(piece.points),
        normals=normals * [1, -1, -1],
        triangles=piece.triangles,
        head_share=piece.head_share,
        colours=np.clip(piece.colours * 255, 0, 255).astype(np.uint8),
        gloss=piece.gloss,
    )


def _merged(parts: list[Part]) -> Part:
    """Parts without textures as one, with the gloss of the last."""
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    triangles = [part.triangles + start for part, start in zip(parts, starts, strict=False)]
    return Part(
        points=np.concatenate([part.points for part in parts]),
        normals=np.concatenate([part.normals for part in parts]),
        triangles=np.concatenate(triangles),
        head_share=np.concatenate([part.head_share for part in parts]),
        colours=np.concatenate([part.colours for part in parts]),
        gloss=parts[-1].gloss,
    )


def _all_faces(mesh) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(list(mesh.faces.values())), np.concatenate(list(mesh.uv_faces.values()))


def _halves(part: Part) -> list[Part]:
    """A part of the whole body as two, above and below the chest: often only one is in sight."""
    if part.points[:, 1].max() < _CHEST or (part.texture and part.texture[0] != "skin"):
        return [part]
    low = part.points[part.triangles[:, 0], 1] > _CHEST
    halves = []
    for triangles in (part.triangles[low], part.triangles[~low]):
        used, triangles = used_points(triangles)
        fields = {
            name: values[used]
            for name, values in vars(part).items()
            if isinstance(values, np.ndarray) and name != "triangles"
        }
        halves.append(dataclasses.replace(part, **{**fields, "triangles": triangles}))
    if part.texture is not None:  # hands need none, and what has none is drawn together
        tone = paint.mean_colour(part.texture)
        colours = (halves[0].colours * tone).astype(np.uint8)
        halves[0] = dataclasses.replace(halves[0], colours=colours, uv=None, texture=None)
    return halves


def _scaled(part: Part, size: float) -> Part:
    return dataclasses.replace(part, points=part.points * size)
