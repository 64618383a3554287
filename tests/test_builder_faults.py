"""Conversions on a system that fails them: workers that die, full disks, folders that are taken."""

import errno
import fcntl
import functools
import os
import signal
import subprocess
from pathlib import Path

import pytest

from data_prep.engine import runners, units
from data_prep.engine.builder import write_record_set
from mtnet_jax.data.records import RecordSet
from tests.conversions import assert_same_files, parts, read_but, read_tiny, tiny


def read_or_die(number, report, *, go: str):
    if number == 5 and not Path(go).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    yield from read_tiny(number, report)


def test_a_worker_that_dies_is_told_and_the_next_run_goes_on(tmp_path):
    conversion = tiny(read=functools.partial(read_or_die, go=str(tmp_path / "go")))
    with pytest.raises(ChildProcessError, match="a worker process died"):
        write_record_set(conversion, tmp_path / "out", processes=2)
    assert not (tmp_path / "out").exists()
    (tmp_path / "go").touch()
    write_record_set(conversion, tmp_path / "out", processes=2)
    write_record_set(tiny(), tmp_path / "one")
    assert_same_files(tmp_path / "one", tmp_path / "out")


def test_an_error_in_a_worker_arrives(tmp_path):
    conversion = tiny(read=functools.partial(read_but, bad=7, message="damaged"))
    with pytest.raises(ValueError, match="image 7: damaged"):
        write_record_set(conversion, tmp_path / "out", processes=2)


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    tasks = (taken.append(number) or number for number in range(100))
    results = runners.Processes(2)(abs, tasks)
    next(results)
    assert len(taken) < 10
    list(results)
    assert taken == list(range(100))


def test_only_one_process_converts_into_a_folder(tmp_path):
    (tmp_path / ".out.parts").mkdir()
    with open(tmp_path / ".out.parts" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is converting"):
            write_record_set(tiny(), tmp_path / "out")
    write_record_set(tiny(), tmp_path / "out")


# --- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path):
    """`mount(size, *options)` -> a small file system of its own."""
    mounted = []

    def tmpfs(options: str) -> Path:
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("may not mount a file system")
        mounted.append(folder)
        return folder

    yield tmpfs
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", [80, 200])  # kB: full with parts (160 kB), with shards (256)
def test_a_full_disk(tmp_path, mount, size):
    small = mount(f"size={size}k")
    with pytest.raises(OSError, match=r"No space left on device: .*same command again") as caught:
        write_record_set(tiny({"train": range(20)}), small / "out", processes=2)
    assert caught.value.errno == errno.ENOSPC
    assert not (small / "out").exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small)], check=True)
    write_record_set(tiny({"train": range(20)}), small / "out")
    write_record_set(tiny({"train": range(20)}), tmp_path / "one")
    assert_same_files(tmp_path / "one", small / "out")


def test_a_full_disk_as_the_system_tells_it(tmp_path, monkeypatch):
    """The same without a file system of its own: the fourth part cannot be written."""
    write = units.frame

    def full(data):
        if len(parts(tmp_path)) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(data)

    with monkeypatch.context() as patch:
        patch.setattr(units, "frame", full)
        with pytest.raises(OSError, match="make room") as caught:
            write_record_set(tiny(), tmp_path / "out")
    assert str(tmp_path / ".out.parts") in str(caught.value)
    assert not list(tmp_path.glob(".out.parts/*.unfinished"))
    write_record_set(tiny(), tmp_path / "out")
    assert RecordSet.open(tmp_path / "out").splits == {"train": 6, "test": 3}


def test_a_read_only_folder(tmp_path, mount):
    if os.geteuid():
        folder = tmp_path / "mine"
        folder.mkdir(mode=0o555)
    else:
        folder = mount("ro")
    with pytest.raises(OSError, match=r"Permission denied|Read-only file system") as caught:
        write_record_set(tiny(), folder / "out")
    assert str(folder) in str(caught.value)
