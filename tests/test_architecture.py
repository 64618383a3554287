"""Imports run one way: a room knows the rooms below it, and predicting needs no training."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import REPOSITORY

# From the ground up. A module may import what stands on lower floors or in its own room; modules
# of the paper stand beside each other.
PAPER = "rotations boxes camera heads representations anchors targets losses decode"
FLOORS = (
    ("mtnet_jax.version",),
    ("mtnet_jax.errors",),
    (
        "mtnet_jax.columns",
        "mtnet_jax.hosts",
        "mtnet_jax.places",
        "mtnet_jax.workers",
    ),
    ("mtnet_jax.outputs", "mtnet_jax.mirror"),
    ("mtnet_jax.shipped",),
    tuple(f"mtnet_jax.{name}" for name in PAPER.split()),
    ("mtnet_jax.option_types",),
    ("mtnet_jax.network",),
    ("mtnet_jax.cpu",),
    ("mtnet_jax.data",),
    ("mtnet_jax.config", "mtnet_jax.saved_config", "mtnet_jax.sums"),
    ("mtnet_jax.system", "mtnet_jax.run_metrics"),
    ("mtnet_jax.fingerprints",),
    ("mtnet_jax.checkpoints",),
    ("mtnet_jax.weights",),
    ("mtnet_jax.export",),
    ("mtnet_jax.predict",),
    ("mtnet_jax.page",),
    ("mtnet_jax.evaluation",),
    ("mtnet_jax.training",),
    ("mtnet_jax.inspection",),
    ("mtnet_jax.ablation",),
    ("data_prep.engine",),
    ("data_prep.own",),
    ("data_prep.sets",),
    ("data_prep.panoptic",),
    ("data_prep.studio",),
    ("data_prep.convert",),
    ("mtnet_jax.protocols",),
    ("mtnet_jax.cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PACKAGES = ("mtnet_jax", "data_prep")
UNWANTED = ("grain", "jax", "matplotlib", "mtnet_jax.training", "optax", "orbax", "scipy")
UNWANTED += ("tensorflow_datasets",)


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the two packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules of the two packages that a file imports, also those that wait in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inside]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def room(module: str) -> str:
    """The room a module stands in."""
    return ".".join(module.split(".")[:2])


def test_every_room_has_its_floor():
    standing = {room(name) for name in MODULES} - set(PACKAGES)
    assert standing - set(FLOOR) == set()


def test_imports_run_one_way():
    upward = [
        f"{name} imports {imported}"
        for name, path in MODULES.items()
        if name not in PACKAGES  # `mtnet_jax.Predictor` opens the house from outside
        for imported in set(imports(path))
        if room(imported) != room(name)
        and FLOOR.get(room(imported), len(FLOORS)) > FLOOR[room(name)]
    ]
    assert upward == []


def python_files() -> Iterator[Path]:
    """Those of the repository: not in environments, and not in what git ignores."""
    ignored = (REPOSITORY / ".gitignore").read_text("utf-8").split()
    for path in REPOSITORY.iterdir():
        if path.is_dir() and not path.name.startswith(".") and f"{path.name}/" not in ignored:
            yield from path.rglob("*.py")
    yield from REPOSITORY.glob("*.py")


def test_no_file_is_long():
    lines = {
        str(path.relative_to(REPOSITORY)): len(path.read_text("utf-8").splitlines())
        for path in python_files()
    }
    assert {"mtnet_jax/version.py", "tests/conftest.py"} <= lines.keys()
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_modules_import_each_other():
    graph = {
        name: set(imports(path)) - {name}
        for name, path in MODULES.items()
        if name not in PACKAGES and path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_predicting_needs_no_training():
    code = "import sys, mtnet_jax.predict.files; mtnet_jax.Predictor; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    loaded = run.stdout.split()
    assert "mtnet_jax.predict.predictor" in loaded
    assert [name for name in loaded if any(f"{name}.".startswith(f"{u}.") for u in UNWANTED)] == []
