"""Conversion as an Apache Beam pipeline (needs requirements-beam.txt)."""

import functools
import importlib.util
import subprocess
import sys

import pytest

from data_prep.engine.builder import write_record_set
from tests.conftest import REPOSITORY
from tests.conversions import assert_same_files, read_but, tiny

has_beam = importlib.util.find_spec("apache_beam") is not None
ONE_WORKER = ("--direct_running_mode=in_memory", "--direct_num_workers=1")


def in_another_process(*lines: str) -> subprocess.CompletedProcess:
    """Beam warns of much, and changes the process it runs in."""
    code = "\n".join(["from tests.test_beam import *", *lines])
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )


@pytest.mark.skipif(not has_beam, reason="needs apache-beam")
def test_beam_gives_the_same_bytes(tmp_path):
    write_record_set(tiny(), tmp_path / "one")
    run = in_another_process(
        f"out = {str(tmp_path / 'out')!r}",
        "write_record_set(tiny(), out, beam_runner='DirectRunner', beam_options=ONE_WORKER)",
    )
    assert run.returncode == 0, run.stderr
    assert_same_files(tmp_path / "one", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out"]


@pytest.mark.slow
@pytest.mark.skipif(not has_beam, reason="needs apache-beam")
def test_beam_with_several_processes_gives_the_same_bytes(tmp_path):
    write_record_set(tiny(), tmp_path / "one")
    run = in_another_process(
        f"out = {str(tmp_path / 'out')!r}",
        "write_record_set(tiny(), out, beam_runner='DirectRunner', processes=2)",
    )
    assert run.returncode == 0, run.stderr
    assert_same_files(tmp_path / "one", tmp_path / "out")


@pytest.mark.skipif(not has_beam, reason="needs apache-beam")
def test_an_error_on_beam_is_told_and_the_parts_serve_the_next_run(tmp_path):
    run = in_another_process(
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


@pytest.mark.skipif(has_beam, reason="apache-beam is installed")
def test_without_beam_the_cure_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'mtnet-jax\[beam\]'"):
        write_record_set(tiny(), tmp_path / "out", beam_runner="DirectRunner")
    assert list(tmp_path.iterdir()) == []
