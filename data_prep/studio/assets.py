"""MakeHuman's assets: base mesh, eyes, hair and skins, read from a folder.

The folder is laid out like this (all CC0; docs/studio.md says where the full packs are):

    3dobjs/base.obj                  the base mesh hm08
    eyes/low-poly.obj, .mhclo        eyeballs, or in eyes/low-poly;  eyes/*.png  their textures, or
                                     eyes/materials/*_eye.png
    hair/NAME/NAME.obj, .mhclo, and the texture that its .mhmat names
    skins/*.jpg                      diffuse textures of the body, or skins/textures/*.png
    clothes/NAME/NAME.obj, .mhclo    suits and hats, tinted without textures; may be absent
"""

import functools
import math
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mtnet_jax.errors import BadInput, MissingFile

BODY, LEFT_EYE, RIGHT_EYE = "body", "helper-l-eye", "helper-r-eye"
VERTICES_OF_HM08 = 19158
_TEXTURE_SIZE = 1024
# Where MakeHuman and its packs have them, after the places of a folder that was put together.
_EYES = ("eyes/low-poly.mhclo", "eyes/low-poly/low-poly.mhclo")
_EYE_TEXTURES = ("eyes/*.png", "eyes/*.jpg", "eyes/materials/*_eye.png", "eyes/materials/*_eye.jpg")
_SKINS = tuple(
    f"skins/{name}.{kind}"
    for name in ("*", "textures/*", "*/*_diffuse*")
    for kind in ("jpg", "png")
)


@dataclass(frozen=True)
class Mesh:
    """A mesh as its file has it: units and axes of MakeHuman (decimetres, y up, z to the front).

    Attributes:
      vertices: (n, 3).
      uv: (k, 2).
      faces: group -> (m, 3) vertex indices.
      uv_faces: group -> (m, 3) indices into `uv`.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: dict[str, np.ndarray]
    uv_faces: dict[str, np.ndarray]


@dataclass(frozen=True)
class Garment:
    """A mesh that is fitted to the base mesh by its .mhclo.

    Attributes:
      name: of the asset.
      mesh: as its file has it; the vertices are placed by `fit`.
      anchors: (n, 3) indices of base vertices.
      weights: (n, 3) of the anchors.
      offsets: (n, 3) added, in units of the head's size along each axis.
      scales: for each axis, two base vertices and the distance between them that means 1.
      texture: path of its texture, or None.
      tags: words that say what it is.
      covers: (m,) base vertices that it hides.
    """

    name: str
    mesh: Mesh
    anchors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scales: tuple[tuple[int, int, float], ...]
    texture: Path | None
    tags: frozenset[str] = frozenset()
    covers: np.ndarray = field(default_factory=lambda: np.empty(0, int))

    def fit(self, base: np.ndarray) -> np.ndarray:
        """(n, 3) vertices on a base mesh of the shape `base`, (19158, 3)."""
        scale = [abs(base[a, k] - base[b, k]) / size for k, (a, b, size) in enumerate(self.scales)]
        return (base[self.anchors] * self.weights[:, :, None]).sum(axis=1) + self.offsets * scale


@dataclass(frozen=True)
class Assets:
    """What a folder of assets holds. Textures are read when they are first asked for."""

    folder: Path
    base: Mesh
    eyes: Garment
    eye_textures: tuple[Path, ...]
    hair: tuple[Garment, ...]
    skins: tuple[Path, ...]
    clothes: tuple[Garment, ...] = ()


def read_assets(folder: Path) -> Assets:
    """Reads a folder of assets.

    Raises:
      FileNotFoundError: something is missing; the message says what and where it belongs.
      ValueError: a file is damaged, or the base mesh is another one than hm08.
    """
    base = read_obj(_one(folder, "3dobjs/base.obj", "the base mesh"))
    if len(base.vertices) != VERTICES_OF_HM08:
        raise BadInput(
            f"{folder / '3dobjs/base.obj'} has {len(base.vertices)} vertices, the base mesh hm08 "
            f"of MakeHuman has {VERTICES_OF_HM08}"
        )
    eyes = next((name for name in _EYES if (folder / name).is_file()), _EYES[0])
    hair = tuple(_usable(_some(folder, ("hair/*/*.mhclo",), "at least one hair")))
    if not hair:
        raise MissingFile(
            f"No hair in {folder / 'hair'} can be used: --assets must hold MakeHuman's files, see "
            "docs/studio.md"
        )
    return Assets(
        folder=folder,
        base=base,
        eyes=read_garment(_one(folder, eyes, "the eyeballs"), textured=False),
        eye_textures=_some(folder, _EYE_TEXTURES, "a texture of an eye"),
        hair=hair,
        skins=_some(folder, _SKINS, "at least one skin"),
        clothes=tuple(_usable(sorted(folder.glob("clothes/*/*.mhclo")), textured=False)),
    )


def _usable(paths: Sequence[Path], *, textured: bool = True) -> Iterator[Garment]:
    """Garments of .mhclo files; packs hold some without mesh or texture, which are left out."""
    for path in paths:
        try:
            garment = read_garment(path, textured=textured)
            if textured:
                read_hair_texture(garment.texture)
        except (BadInput, MissingFile) as error:
            if multiprocessing.parent_process() is None:  # workers read the same again
                print(f"left out of the assets: {error}", file=sys.stderr)
        else:
            yield garment


def read_obj(path: Path) -> Mesh:
    """A Wavefront file; polygons are cut into triangles.

    Raises:
      ValueError: a line cannot be read.
    """
    vertices, uv = [], []
    faces: dict[str, list] = {}
    uv_faces: dict[str, list] = {}
    group = BODY
    for number, line in enumerate(_lines(path), start=1):
        kind, *words = line.split() or ["#"]
        try:
            if kind == "v":
                vertices.append(_floats(words[:3], 3))
            elif kind == "vt":
                uv.append(_floats(words[:2], 2))
            elif kind == "g":
                group = words[0]
            elif kind == "f":
                pairs = [(word.split("/") + ["", ""])[:2] for word in words]
                ids = [int(pair[0]) - 1 for pair in pairs]
                uv_ids = [int(pair[1] or 1) - 1 for pair in pairs]
                for k in range(2, len(ids)):
                    faces.setdefault(group, []).append([ids[0], ids[k - 1], ids[k]])
                    uv_faces.setdefault(group, []).append([uv_ids[0], uv_ids[k - 1], uv_ids[k]])
        except (ValueError, IndexError):
            raise BadInput(f"{path}, line {number}: cannot read {line.strip()!r}") from None
    for named, there in ((faces, vertices), (uv_faces, uv)):
        corners = np.array([corner for group in named.values() for corner in group], int)
        if there and corners.size and not 0 <= corners.min() <= corners.max() < len(there):
            raise BadInput(f"{path}: a face names a point that is not among its {len(there)}")
    return Mesh(
        np.array(vertices),
        np.array(uv),
        {name: np.array(group_faces) for name, group_faces in faces.items()},
        {name: np.array(group_faces) for name, group_faces in uv_faces.items()},
    )


def read_garment(path: Path, *, textured: bool = True) -> Garment:
    """A .mhclo with its mesh, and its texture if that is wanted.

    Raises:
      FileNotFoundError: the mesh or the texture is missing.
      ValueError: the .mhclo lacks a field, has a row that cannot be read, names a vertex that the
        base mesh does not have, or fits another number of vertices than its mesh has.
    """
    fields: dict[str, list[str]] = {}
    rows: list[list[float]] = []
    covered: list[str] = []
    tags: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if not words or words[0] == "#":
            continue
        if "delete_verts" in fields:  # the last field, ranges of vertices follow it
            covered += words
        elif not words[0].isdigit():
            fields[words[0]] = words[1:]
            tags.update(words[1:] if words[0] == "tag" else ())
        else:
            rows.append(_fitted(words, f"{path}, line {number}"))
    try:
        mesh = read_obj(_one(path.parent, fields["obj_file"][0], f"the mesh of {path.name}"))
        scales = tuple(
            (int(fields[key][0]), int(fields[key][1]), float(fields[key][2]))
            for key in ("x_scale", "y_scale", "z_scale")
        )
        covers = _ranges(covered)
    except (KeyError, IndexError, ValueError) as error:
        raise BadInput(f"{path}: a field is missing or damaged: {error}") from error
    if len(rows) != len(mesh.vertices) or not rows:
        raise BadInput(f"{path} fits {len(rows)} vertices, its mesh has {len(mesh.vertices)}")
    full = np.array(rows)
    anchors = full[:, :3].astype(int)
    named = [*anchors.flat, *covers, *(vertex for *ends, _ in scales for vertex in ends)]
    if beyond := [vertex for vertex in named if not 0 <= vertex < VERTICES_OF_HM08]:
        raise BadInput(
            f"{path} names the vertex {beyond[0]}, the base mesh hm08 has {VERTICES_OF_HM08}: is "
            "it of another base mesh?"
        )
    return Garment(
        name=path.stem,
        mesh=mesh,
        anchors=anchors,
        weights=full[:, 3:6],
        offsets=full[:, 6:],
        scales=scales,
        texture=_texture(path, " ".join(fields.get("material", ()))) if textured else None,
        tags=frozenset(tags),
        covers=covers,
    )


def _lines(path: Path) -> list[str]:
    """The lines of a file of MakeHuman; of other encodings, in names and comments, what is text."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _fitted(words: list[str], place: str) -> list[float]:
    """Three base vertices, their weights and the offset of a row, as MakeHuman reads it.

    A row is one base vertex, or three with their weights and an offset, or without one: 0 then.
    """
    try:
        numbers = _floats(words, len(words))
    except ValueError as error:
        raise BadInput(f"{place}: {error}") from None
    if len(numbers) == 1:
        return [*3 * numbers, 1, 0, 0, 0, 0, 0]
    if len(numbers) == 6:
        return [*numbers, 0, 0, 0]
    if len(numbers) != 9:
        raise BadInput(
            f"{place}: {len(numbers)} numbers, expected a vertex, or three, their weights and an "
            "offset (9), or those without the offset (6)"
        )
    return numbers


def _floats(words: list[str], count: int) -> list[float]:
    """So many finite numbers; ValueError where they are not."""
    numbers = [float(word) for word in words]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected {count} finite numbers, found {' '.join(words)!r}")
    return numbers


def _ranges(words: list[str]) -> np.ndarray:
    """The numbers of "3 7 - 9": 3, 7, 8, 9."""
    numbers: list[int] = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "-":
            numbers += range(numbers[-1] + 1, int(word) + 1)
        elif word != "-":
            numbers.append(int(word))
    return np.array(numbers, int)


@functools.lru_cache(maxsize=64)
def read_texture(path: Path) -> np.ndarray:
    """(H, W, 3 or 4) uint8 RGB or RGBA, at most 1024 pixels wide."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadInput(f"{path} is not an image")
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    scale = _TEXTURE_SIZE / image.shape[1]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def read_hair_texture(path: Path | None) -> np.ndarray:
    """(H, W, 4) uint8 RGBA of hair, transparent between its strands."""
    if path is None:
        raise BadInput("Hair needs a texture, a PNG that is transparent between its strands")
    texture = read_texture(path)
    if texture.shape[2] != 4:
        raise BadInput(f"{path} has no transparency, which hair needs between its strands: a PNG")
    return texture


def _texture(mhclo: Path, named: str) -> Path:
    """The texture that the .mhmat beside a .mhclo names, or the one that it names, or any there."""
    for material in (mhclo.with_suffix(".mhmat"), mhclo.parent / named):
        if not material.is_file():
            continue
        for line in _lines(material):
            kind, _, name = line.strip().partition(" ")
            if kind == "diffuseTexture" and name.strip():
                return _one(material.parent, name.strip(), "the texture")
    return _some(mhclo.parent, ("*.png", "materials/*diffuse*.png"), "the texture")[0]


def _one(folder: Path, name: str, what: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise MissingFile(
            f"{path} ({what}) is missing: --assets must hold MakeHuman's files, see docs/studio.md"
        )
    return path


def _some(folder: Path, patterns: Sequence[str], what: str) -> tuple[Path, ...]:
    """The files that follow a pattern, those of the first one first; each once."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    paths = tuple(dict.fromkeys(found))
    if not paths:
        raise MissingFile(
            f"No {folder / patterns[0]} ({what}): --assets must hold MakeHuman's files, see "
            "docs/studio.md"
        )
    return paths
