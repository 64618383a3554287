"""Faults on purpose, a small part of `python -m benchmarks.faults` (docs/reliability.md)."""

import pickle
import subprocess
import sys

import pytest

from benchmarks.faults.attacks.attack import Attack
from benchmarks.faults.hostile import attacks
from data_prep.engine import units
from mtnet_jax.data.tfrecord import framed_data
from mtnet_jax.errors import MtnetError
from tests.conftest import REPOSITORY
from tests.conversions import tiny

# What takes long to write, or needs a limit of memory around it, is left to the campaign.
QUICK = [attack for attack in attacks() if " GB " not in attack.name]


@pytest.mark.parametrize("attack", QUICK, ids=[attack.name for attack in QUICK])
@pytest.mark.filterwarnings("ignore:Starting field name with a underscore")
def test_hostile_files_are_refused(tmp_path, attack: Attack):
    work = tmp_path / "a" / "work"
    work.mkdir(parents=True)
    attack.write(work)
    if attack.name.startswith("a pickle among"):
        attack.read(work)  # the parts are not taken, and converted again
    else:
        with pytest.raises(MtnetError):
            attack.read(work)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["work"]


def test_the_pickle_would_have_been_executed(tmp_path):
    """What `data_prep.engine.units` refuses to load does harm where it is loaded."""
    (attack,) = (a for a in attacks() if a.name.startswith("a pickle among"))
    work = tmp_path / "a" / "work"
    work.mkdir(parents=True)
    attack.write(work)
    payload = framed_data((work / ".records.parts/000000.pickle").read_bytes())
    assert payload
    pickle.loads(payload)
    assert (tmp_path / "executed").exists()


def test_parts_of_our_own_are_loaded(tmp_path):
    write = units.UnitWriter(tiny(), tmp_path)
    for unit in units.plan_units(tiny()):
        assert not write(unit).found
        assert write(unit).found


def campaign(tmp_path, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.faults", "--work", str(tmp_path), *arguments]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "FAULT" not in run.stdout
    return run.stdout


@pytest.mark.slow
def test_kills_and_flipped_bits(tmp_path):
    said = campaign(tmp_path, "--only", "train", "convert", "flips", "--count", "4")
    assert "training: 4 kills" in said
    assert "1 runs ended as the one that was not killed" in said
    assert "converting: 4 kills" in said


@pytest.mark.slow
def test_full_disks(tmp_path):
    assert "0 faults" in campaign(tmp_path, "--only", "disk", "--count", "1")
