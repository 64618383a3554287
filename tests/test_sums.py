"""An exported folder knows what its files were."""

import shutil
import subprocess

import pytest

from mtnet_jax.errors import BadInput
from mtnet_jax.outputs import Outputs
from mtnet_jax.sums import SUMS, check_sum, write_sums
from mtnet_jax.weights import load_weights, write_weights
from tests.tiny import write_random_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder / "random")
    write_weights(folder / "exported", *load_weights(folder / "random"))
    return folder / "exported"


def checked(folder) -> list[str]:
    command = ["sha256sum", "--check", "--strict", SUMS]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_the_system_reads_it_too(weights):
    assert checked(weights) == ["config.json: OK", "weights.npz: OK"]


@pytest.mark.parametrize("name", ["config.json", "weights.npz"])
def test_a_flipped_bit_is_named(weights, tmp_path, name):
    folder = shutil.copytree(weights, tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name} is not the file that was exported"):
        load_weights(folder)


def test_the_cure_for_a_change_on_purpose(weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "copy")
    changed = (
        (folder / "config.json").read_text().replace('"iou_threshold": ', '"iou_threshold": 0')
    )
    (folder / "config.json").write_text(changed.replace("00.", "0.1"))
    lines = (folder / SUMS).read_text().splitlines()
    (folder / SUMS).write_text("\n".join(line for line in lines if "config" not in line))
    load_weights(folder)


def test_files_inside_of_folders_are_noted_as_they_are(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "model" / "inside").mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / "inside" / name).write_text(name)
    write_sums(Outputs("export"), tmp_path, ["model"])
    (tmp_path / "model" / "inside" / "two").unlink()
    (tmp_path / "model" / "inside" / "one").write_text("anew")
    write_sums(Outputs("export"), tmp_path, ["model"])
    assert checked(tmp_path) == ["model/inside/one: OK"]


def test_files_that_were_noted_before_stay_noted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        write_sums(Outputs("export"), tmp_path, [name])
    (tmp_path / "a").write_text("changed")
    check_sum(tmp_path / "b")
    check_sum(tmp_path / "not noted")
    with pytest.raises(BadInput, match="a is not the file"):
        check_sum(tmp_path / "a")
