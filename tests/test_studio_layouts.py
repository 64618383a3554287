"""The studio's raw layouts: the command, and the same files for any number of processes."""

from pathlib import Path

import pytest

from data_prep.studio.layouts.w300_lp import W300Lp
from mtnet_jax.cli import main
from tests.studio_raw import written

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def studio(assets_dir, out, layout, *options) -> int:
    return main(
        ["studio", "--assets", str(assets_dir), "--out", str(out), "--layout", layout, *options]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("panoptic", ["--frames", "2", "--test-frames", "1", "--cameras", "2", "--people", "2"]),
        ("panoptic", ["--frames", "2", "--cameras", "2", "--every", "4", "--video"]),
        ("biwi", ["--frames", "24"]),
        ("w300lp", ["--frames", "3"]),
    ],
)
def test_the_same_seed_gives_the_same_files_for_any_number_of_processes(
    assets_dir, tmp_path, capsys, layout, options
):
    for processes in ("1", "2"):
        options = [*options, "--size", "128x72", "--processes", processes]
        assert studio(assets_dir, tmp_path / processes, layout, *options) == 0
        assert "mtnet data convert" in capsys.readouterr().out
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert len(one) > 6
    assert one == two
    assert studio(assets_dir, tmp_path / "3", layout, *options, "--seed", "9") == 0
    assert not set(files(tmp_path / "3").values()) & {
        value for name, value in one.items() if name.endswith((".jpg", ".png", ".mp4"))
    }


def test_the_command_refuses_what_it_cannot_do(assets_dir, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for layout, out, options, word in (
        ("biwi", "new", ["--frames", "5"], "--frames 5"),
        ("biwi", "new", ["--frames", "24", "--test-frames", "2"], "--test-frames"),
        ("panoptic", "new", ["--cameras", "32"], "--cameras 32"),
        ("w300lp", "mine", [], "--overwrite"),
        ("w300lp", "mine", ["--overwrite"], "studio.json"),
    ):
        assert studio(assets_dir, tmp_path / out, layout, *options) == 1
        assert word in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing_behind(assets_dir, tmp_path):
    layout = W300Lp(assets_dir, 2, backgrounds=(tmp_path / "no image.jpg",) * 2, size=(64, 64))
    with pytest.raises(FileNotFoundError, match=r"no image\.jpg"):
        written(layout, tmp_path / "raw")
    assert not list(tmp_path.iterdir())
