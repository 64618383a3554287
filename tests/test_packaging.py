"""The package: what ships, versions from one place, pins that the metadata allow."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mtnet_jax
from mtnet_jax import shipped
from mtnet_jax.cli import main
from mtnet_jax.errors import MissingFile
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """Package -> version of a requirements file."""
    lines = (REPOSITORY / name).read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {package.lower(): version for package, version in pairs}


@pytest.mark.parametrize(
    ("extra", "file"),
    [
        (None, "requirements.txt"),
        ("track", "requirements-track.txt"),
        ("export", "requirements-export.txt"),
        ("studio", "requirements-studio.txt"),
        ("beam", "requirements-beam.txt"),
        ("docs", "requirements-docs.txt"),
        ("test", "requirements-test.txt"),
    ],
)
def test_pins_lie_in_the_ranges(extra, file):
    listed = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    ranges = {r.name.lower(): r.specifier for r in map(Requirement, listed)}
    ranges.pop("mtnet-jax", None)
    pinned = pins(file)
    assert pinned.keys() == ranges.keys()
    assert [name for name, version in pinned.items() if version not in ranges[name]] == []


def test_documented_commands_need_no_clone_for_the_weights():
    """An installed package has no folder `weights`: what ships goes by its name."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    lines = [line.strip() for page in pages for line in page.read_text("utf-8").splitlines()]
    commands = [line for line in lines if line.startswith("mtnet ")]
    assert len(commands) > 50
    assert [line for line in commands if "weights/release" in line] == []


def test_the_version_has_one_place(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mtnet {mtnet_jax.__version__}\n"
    assert metadata.version("mtnet-jax") == mtnet_jax.__version__


def test_the_citation_names_the_version():
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {mtnet_jax.__version__}\n" in citation


def test_what_ships_is_found_by_name():
    assert "small" in shipped.shipped_names("configs")
    assert shipped.DEFAULT_WEIGHTS in shipped.shipped_names("weights")
    assert (shipped.weights_folder(shipped.DEFAULT_WEIGHTS) / "weights.npz").is_file()
    assert shipped.weights_folder("runs/mine") == Path("runs/mine")
    assert shipped.weights_folder(f"{shipped.DEFAULT_WEIGHTS}/heads-int8.onnx").is_file()
    assert shipped.weights_folder("release/nothing.onnx") == Path("release/nothing.onnx")
    assert shipped.weights_folder("release/../release") == Path("release/../release")
    with pytest.raises(MissingFile, match="demo/nothing"):
        shipped.shipped("demo/nothing")


def test_a_folder_wins_over_shipped_weights_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shipped.weights_folder("small") == Path("small")


@pytest.mark.slow
def test_a_wheel_works_far_from_the_clone(tmp_path):
    """Built, unpacked and run where there is no repository."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(REPOSITORY)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"mtnet_jax", "data_prep"}

    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # Dependencies come from the environment of the tests. Its editable install of the clone does
    # not: -S reads no .pth files.
    paths = [str(site), str(Path(pytest.__file__).parents[1])]
    code = (
        f"import sys; sys.path += {paths}; import mtnet_jax\n"
        "from mtnet_jax.config import load_config\n"
        "from mtnet_jax.shipped import shipped\n"
        "from mtnet_jax.cli import main\n"
        f"assert mtnet_jax.__file__.startswith({str(site)!r})\n"
        "for name in ('small', 'paper', 'quickstart', 'rendered', 'release'):\n"
        "    assert load_config(name).phases\n"
        "records = load_config('quickstart').data.demo.path\n"
        "assert main(['data', 'check', records]) == 0\n"
        "images = str(shipped('demo/images'))\n"
        "assert main(['predict', images, '--json', 'heads.json']) == 0\n"
        "from data_prep.convert import add_arguments\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=elsewhere)
    assert (elsewhere / "heads.json").stat().st_size > 1000
