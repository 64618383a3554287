"""Conversions that are stopped and started again: the bytes of one run, and nothing left behind."""

import functools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.engine import builder, units
from data_prep.engine.builder import write_record_set
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.conftest import REPOSITORY
from tests.conversions import assert_same_files, parts, read_but, read_tiny, tiny, tiny_record

ITEMS = 40


def read_until(number, report, *, last: int, go: str):
    """Items above `last` wait until there is a file `go`."""
    while number > last and not Path(go).exists():
        time.sleep(0.02)
    yield from read_tiny(number, report)


def slow(folder: Path, last: int = 15):
    read = functools.partial(read_until, last=last, go=str(folder / "go"))
    return tiny({"train": range(ITEMS), "test": range(ITEMS, ITEMS + 4)}, read)


def runs_in_group(group: int) -> bool:
    """Whether any process of a group goes on, one that has not begun an item too."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_started_again_gives_the_bytes_of_one_run(
    tmp_path, capsys, monkeypatch, processes
):
    monkeypatch.setattr(units, "code_fingerprint", lambda: "unchanged")  # while one edits it
    code = (
        "from pathlib import Path\n"
        "from tests.test_builder_resume import slow, units, write_record_set\n"
        "units.code_fingerprint = lambda: 'unchanged'\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        f"    write_record_set(slow(folder), folder / 'out', processes={processes})\n"
    )
    words = [sys.executable, "-c", code]
    first = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: len(parts(tmp_path)) >= 12)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stderr.close()
    wait_for(lambda: not runs_in_group(first.pid))  # no worker goes on without its parent
    assert not (tmp_path / "out").exists()
    done = parts(tmp_path)

    (tmp_path / "go").touch()
    write_record_set(slow(tmp_path), tmp_path / "out", processes=processes)
    total = units.count_units(slow(tmp_path))
    assert f"{len(done)} of {total} parts were there" in capsys.readouterr().err
    write_record_set(tiny(slow(tmp_path).splits), tmp_path / "one")
    assert_same_files(tmp_path / "one", tmp_path / "out")
    assert not (tmp_path / ".out.parts").exists()


def test_stopped_while_writing_shards(tmp_path, monkeypatch):
    write_record_set(tiny(), tmp_path / "one")

    def stop(self, shard):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builder.ShardWriter, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            write_record_set(tiny(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_record_set(tiny(), tmp_path / "out")
    assert_same_files(tmp_path / "one", tmp_path / "out")


def test_what_a_kill_leaves_of_done_parts_is_removed(tmp_path):
    """Killed after the set was in its place: the next command finds it, and clears up."""
    write_record_set(tiny(), tmp_path / "out")
    for name in (".out.parts.removed", ".out.parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000000.tfrecord").write_bytes(b"of a part")
    (tmp_path / ".out.parts/placed").touch()
    with pytest.raises(FileExistsError, match="exists already"):
        write_record_set(tiny(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_worker_left_unfinished_is_no_part_of_the_set(tmp_path, monkeypatch):
    """A runner of Beam gives the tasks of a lost worker to another."""
    place = builder._put_in_place

    def place_with_a_leftover(built, *arguments):
        (built / "tiny-train.tfrecord-00000-of-00001.1.unfinished").write_bytes(b"half")
        place(built, *arguments)

    write_record_set(tiny(), tmp_path / "one")
    monkeypatch.setattr(builder, "_put_in_place", place_with_a_leftover)
    write_record_set(tiny(), tmp_path / "out")
    assert_same_files(tmp_path / "one", tmp_path / "out")


def test_an_old_set_stays_until_the_new_one_is_whole(tmp_path):
    write_record_set(tiny({"train": range(3)}), tmp_path / "out")
    fail = functools.partial(read_but, bad=5, message="no")
    with pytest.raises(ValueError, match="no"):
        write_record_set(tiny(read=fail), tmp_path / "out", overwrite=True)
    assert RecordSet.open(tmp_path / "out").splits == {"train": 3}
    assert len(parts(tmp_path)) == 5
    write_record_set(tiny(), tmp_path / "out", overwrite=True)
    assert RecordSet.open(tmp_path / "out").splits == {"train": 6, "test": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- parts of an earlier run ---------------------------------------------------------------------


def read_or_fail(number, report, *, go: str):
    if number == 5 and not Path(go).exists():
        raise ValueError("not yet")
    yield from read_tiny(number, report)


def test_a_part_that_was_cut_short_is_written_again(tmp_path, capsys):
    fails = tiny(read=functools.partial(read_or_fail, go=str(tmp_path / "go")))
    with pytest.raises(ValueError, match="not yet"):
        write_record_set(fails, tmp_path / "out")
    first, second, third = parts(tmp_path)[:3]
    first.write_bytes(first.read_bytes()[:-10])
    second.write_bytes(b"")
    third.with_suffix(".tfrecord").write_bytes(b"short")
    (tmp_path / "go").touch()
    write_record_set(fails, tmp_path / "out")
    assert "2 of 9 parts were there" in capsys.readouterr().err
    write_record_set(tiny(), tmp_path / "one")
    assert_same_files(tmp_path / "one", tmp_path / "out")


def test_parts_of_other_options_are_not_used(tmp_path, capsys):
    fails = functools.partial(read_but, bad=5, message="no more", seed=1)
    with pytest.raises(ValueError, match="no more"):
        write_record_set(tiny(read=fails), tmp_path / "out")
    assert len(parts(tmp_path)) == 5
    works = functools.partial(read_but, bad=5, message="", seed=2)
    write_record_set(tiny(read=works), tmp_path / "out")
    source = RecordSource(tmp_path / "out", "train")
    assert {source[i]["source"] for i in range(len(source))} == {"seed 2"}
    assert "5 of 9 parts of an earlier run were written again" in capsys.readouterr().err


def read_file(path: Path, report):
    record = tiny_record(1)
    yield {**record, "image_id": path.stem, "source": path.read_text()}


def test_raw_data_that_changed_are_read_again(tmp_path, capsys):
    raw = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in raw[:2]:
        path.write_text("old")
    conversion = tiny({"train": raw}, read_file)
    with pytest.raises(FileNotFoundError, match=r"c\.txt"):
        write_record_set(conversion, tmp_path / "out")
    raw[1].write_text("new")
    raw[2].write_text("new")
    write_record_set(conversion, tmp_path / "out")
    source = RecordSource(tmp_path / "out", "train")
    texts = {source[i]["image_id"]: source[i]["source"] for i in range(3)}
    assert texts == {"a": "old", "b": "new", "c": "new"}
    assert "1 of 3 parts were there" in capsys.readouterr().err


def test_damaged_parts_are_written_again(tmp_path, capsys):
    fails = tiny(read=functools.partial(read_or_fail, go=str(tmp_path / "go")))
    with pytest.raises(ValueError, match="not yet"):
        write_record_set(fails, tmp_path / "out")
    first, second = parts(tmp_path)[:2]
    for path in (first, second.with_suffix(".tfrecord")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    (tmp_path / "go").touch()
    with pytest.raises(ValueError, match=r"\.tfrecord: .* run the same command again"):
        write_record_set(fails, tmp_path / "out")
    assert "4 of 9 parts were there" in capsys.readouterr().err
    write_record_set(fails, tmp_path / "out")
    assert "8 of 9 parts were there" in capsys.readouterr().err
    write_record_set(tiny(), tmp_path / "one")
    assert_same_files(tmp_path / "one", tmp_path / "out")
