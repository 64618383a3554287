"""What ships beside the code: configurations, demo data, trained weights.

In a clone they lie at the top of the repository, where people look for them. A wheel holds them in
this folder (pyproject.toml, force-include), so that nothing called `configs` or `demo` comes to the
top level of anyone's environment.
"""

from pathlib import Path
from typing import Any

from mtnet_jax.errors import MissingFile
from mtnet_jax.places import Place, place

_INSIDE = Path(__file__).resolve().parent
_BESIDE = _INSIDE.parents[1]

DEFAULT_WEIGHTS = "release"


def shipped(name: str) -> Path:
    """A file or folder that ships, such as "demo/images".

    Args:
      name: path as in the repository, beginning with "configs", "demo" or "weights".

    Raises:
      MissingFile: nothing of that name ships.
    """
    # An installed package looks in itself alone: beside it lie other people's packages.
    root = _INSIDE if (_INSIDE / "configs").is_dir() else _BESIDE
    path = root / name
    if not path.exists():
        raise MissingFile(f"mtnet-jax ships no {name!r} ({path} does not exist).")
    return path


def shipped_names(kind: str) -> tuple[str, ...]:
    """Names of what ships of a kind: "configs" (without .py) or "weights"."""
    found = shipped(kind).iterdir()
    if kind == "configs":
        return tuple(sorted(p.stem for p in found if p.suffix == ".py" and p.stem != "__init__"))
    return tuple(sorted(path.name for path in found if path.is_dir()))


def weights_folder(weights: Any = None) -> Place:
    """What is meant: this place, or what ships by this name; None: the default weights.

    Names are those of `weights/`, and of the files there, such as "release/heads-int8.onnx".
    """
    if weights is None:  # whatever lies in the working directory
        return shipped(f"weights/{DEFAULT_WEIGHTS}")
    folder = place(weights)
    if isinstance(folder, Path) and not folder.exists():
        first, *rest = folder.parts or ("",)
        if first in shipped_names("weights") and ".." not in rest:
            inside = shipped(f"weights/{first}").joinpath(*rest)
            return inside if inside.exists() else folder
    return folder
