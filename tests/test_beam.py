"""Conversion as an Apache Beam pipeline.

Beam lives in an environment of its own; requirements-beam-test.txt says how to make it.
"""

import functools
import importlib.util
import subprocess

import pytest

from data_prep.engine.builder import write_record_set
from tests.conftest import REPOSITORY
from tests.conversions import assert_same_files, read_but, tiny

BEAM_PYTHON = REPOSITORY / ".venv-beam" / "bin" / "python"
needs_beam = pytest.mark.skipif(
    not BEAM_PYTHON.exists(), reason="needs .venv-beam, made as requirements-beam-test.txt says"
)
BEGIN = """
import functools
from data_prep.engine.builder import write_record_set
from tests.conversions import read_but, tiny
ONE_WORKER = ("--direct_running_mode=in_memory", "--direct_num_workers=1")
"""


def with_beam(*lines: str) -> subprocess.CompletedProcess:
    """Runs some lines where Beam is."""
    command = [BEAM_PYTHON, "-W", "ignore", "-c", "\n".join([BEGIN, *lines])]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@needs_beam
def test_beam_gives_the_same_bytes(tmp_path):
    write_record_set(tiny(), tmp_path / "one")
    run = with_beam(
        f"out = {str(tmp_path / 'out')!r}",
        "write_record_set(tiny(), out, beam_runner='DirectRunner', beam_options=ONE_WORKER)",
    )
    assert run.returncode == 0, run.stderr
    assert_same_files(tmp_path / "one", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out"]


@pytest.mark.slow
@needs_beam
def test_beam_with_several_processes_gives_the_same_bytes(tmp_path):
    write_record_set(tiny(), tmp_path / "one")
    run = with_beam(
        f"out = {str(tmp_path / 'out')!r}",
        "write_record_set(tiny(), out, beam_runner='DirectRunner', processes=2)",
    )
    assert run.returncode == 0, run.stderr
    assert_same_files(tmp_path / "one", tmp_path / "out")


@needs_beam
def test_an_error_on_beam_is_told_and_the_parts_serve_the_next_run(tmp_path):
    run = with_beam(
        f"out = {str(tmp_path / 'out')!r}",
        "fails = tiny(read=functools.partial(read_but, bad=7, message='damaged'))",
        "try:",
        "    write_record_set(fails, out, beam_runner='DirectRunner', beam_options=ONE_WORKER)",
        "except ChildProcessError as error:",
        "    print(error)",
    )
    assert run.stdout.strip() == "image 7: damaged", run.stderr
    assert not (tmp_path / "out").exists()
    works = tiny({"train": range(6)}, functools.partial(read_but, bad=7, message="damaged"))
    write_record_set(works, tmp_path / "out")


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Beam is here")
def test_without_beam_the_cure_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'mtnet-jax\[beam\]'"):
        write_record_set(tiny(), tmp_path / "out", beam_runner="DirectRunner")
    assert list(tmp_path.iterdir()) == []
