"""Conversion on a distributed runner of Apache Beam: Dask, with several workers, one killed.

Beam and Dask live in an environment of their own; requirements-beam-test.txt says how to make it.
"""

import subprocess

import pytest

from data_prep.engine.builder import write_record_set
from tests import conversions
from tests.conftest import REPOSITORY
from tests.conversions import assert_same_files
from tests.test_beam import BEAM_PYTHON, needs_beam


@pytest.mark.slow
@needs_beam
def test_a_killed_worker_changes_no_byte(tmp_path):
    whole = conversions.tiny({"train": range(36), "test": range(36, 48)})
    write_record_set(whole, tmp_path / "one")
    run = subprocess.run(
        [BEAM_PYTHON, "-W", "ignore", "-m", "tests.dask_conversion", tmp_path / "dask"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "killed one of 3 workers" in run.stdout
    assert_same_files(tmp_path / "one", tmp_path / "dask")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dask", "one"]
