"""Conversion into record sets: what arrives, processes, stops and new starts, bad input."""

import errno
import fcntl
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import naming
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.core.utils import shard_utils

from data_prep.engine import builder, runners, units
from data_prep.engine.builder import write_record_set
from mtnet_jax.data.example import encode_record
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.conversions import read_tiny, tiny, tiny_record

REPOSITORY = Path(__file__).resolve().parent.parent


def read_without_tensorflow(number, report):
    assert not {"tensorflow", "jax"} & set(sys.modules)
    yield from read_tiny(number, report)


def assert_same_files(expected: Path, found: Path) -> None:
    """Compares two folders byte for byte."""
    names = sorted(path.name for path in expected.iterdir())
    assert names == sorted(path.name for path in found.iterdir())
    for name in names:
        assert (expected / name).read_bytes() == (found / name).read_bytes(), name


def test_tensorflow_is_not_imported(tmp_path):
    code = (
        "import sys\n"
        "from tests import test_builder as t\n"
        f"out = {str(tmp_path / 'out')!r}\n"
        "t.write_record_set(t.tiny(read=t.read_without_tensorflow), out, processes=2)\n"
        "print(len(t.RecordSource(out, 'train')), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["6", "False"]


def test_every_record_arrives(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        source = RecordSource(tmp_path / "out", split, decode=False)
        found = {source[i]["image_id"]: source[i] for i in range(len(source))}
        assert len(found) == len(numbers)
        for number in numbers:
            expected = tiny_record(number)
            record = found[expected["image_id"]]
            for key, value in expected.items():
                np.testing.assert_array_equal(record[key], value)


def test_tfds_reads_the_metadata(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    info = tfds.builder_from_directory(tmp_path / "out").info
    assert (info.name, str(info.version)) == ("tiny", "1.2.3")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 6,
        "test": 3,
    }
    assert info.citation == "@misc{tiny}"
    assert info.features["boxes"].shape == (None, 4)
    assert (tmp_path / "out" / "LICENSE").read_text().strip() == "CC0"
    opened = RecordSet.open(tmp_path / "out")
    assert (opened.box_rule, opened.label_names) == ("head", ("head",))


def test_converting_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_record_set(tiny(), tmp_path / name)
    assert_same_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path, processes):
    write_record_set(tiny(), tmp_path / "one")
    write_record_set(tiny(), tmp_path / "several", processes=processes)
    assert_same_files(tmp_path / "one", tmp_path / "several")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "several"]


def test_order_and_number_of_shards_are_those_of_tfds(tmp_path, monkeypatch):
    """Against the writer of tensorflow-datasets itself, which needs TensorFlow only to write."""
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 5000)
    monkeypatch.setattr(shard_utils.ShardConfig, "max_shard_size", 20000)
    write_record_set(tiny({"train": range(40)}), tmp_path / "out")
    source = RecordSource(tmp_path / "out", "train")
    lengths = source.record_set.shard_lengths["train"]
    written = {}

    class Writer(tfds_writer.ExampleWriter):
        def write(self, path, examples):
            written[Path(path).name] = [data for _, data in examples]

    template = naming.ShardedFileTemplate(
        data_dir=epath.Path(tmp_path),
        dataset_name="tiny",
        split="train",
        filetype_suffix="tfrecord",
    )
    theirs = tfds_writer.Writer(
        serializer=SimpleNamespace(serialize_example=lambda example: encode_record(example)),
        filename_template=template,
        hash_salt="train",
        disable_shuffling=False,
        example_writer=Writer(file_format="tfrecord"),
        shard_config=shard_utils.ShardConfig(),
    )
    for number in range(40):
        record = tiny_record(number)
        theirs.write(record["image_id"], record)
    their_lengths, _ = theirs.finalize()
    assert list(lengths) == their_lengths
    assert len(lengths) > 4
    assert [source.raw(i) for i in range(40)] == [
        data for _, w in sorted(written.items()) for data in w
    ]


def test_refuses_to_overwrite(tmp_path):
    out = tmp_path / "out"
    write_record_set(tiny(), out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_record_set(tiny(), out)
    write_record_set(tiny({"train": range(2)}), out, overwrite=True)
    assert RecordSet.open(out).splits == {"train": 2}


def test_overwrite_leaves_other_folders_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not a record set"):
        write_record_set(tiny(), tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"precious"


def test_a_conversion_that_fails_at_once_leaves_nothing(tmp_path):
    def read(number, report):
        raise ValueError(f"image {number} is bad")
        yield

    with pytest.raises(ValueError, match="image 0 is bad"):
        write_record_set(tiny(read=read), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_conversion_keeps_the_old_set(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    with pytest.raises(ValueError, match="no images"):
        write_record_set(tiny({"train": []}), tmp_path / "out", overwrite=True)
    assert RecordSet.open(tmp_path / "out").splits == {"train": 6, "test": 3}


@pytest.mark.parametrize(
    "splits", [{"train": [1, 2], "test": [2]}, {"train": [2, 1, 3, 2]}, {"train": [1], "test": [1]}]
)
def test_same_id_twice_is_refused(tmp_path, splits):
    twice = max(splits["train"], key=[n for items in splits.values() for n in items].count)
    with pytest.raises(ValueError, match=f"image_id 'image {twice}'"):
        write_record_set(tiny(splits), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_record_is_refused(tmp_path):
    def read(number, report):
        yield {**tiny_record(number), "labels": np.zeros(9, np.int32)}

    with pytest.raises(ValueError, match="field 'labels'"):
        write_record_set(tiny(read=read), tmp_path / "out")


# --- stopped and started again -------------------------------------------------------------------

ITEMS = 40


def read_until(number, report, *, last: int, go: str):
    """Items above `last` wait until there is a file `go`."""
    while number > last and not Path(go).exists():
        time.sleep(0.02)
    Path(f"{go}.{os.getpid()}").touch()
    yield from read_tiny(number, report)


def slow(folder: Path, last: int = 15):
    read = functools.partial(read_until, last=last, go=str(folder / "go"))
    return tiny({"train": range(ITEMS), "test": range(ITEMS, ITEMS + 4)}, read)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".out.parts/*.pickle"))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
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
        "from tests.test_builder import slow, units, write_record_set\n"
        "units.code_fingerprint = lambda: 'unchanged'\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        f"    write_record_set(slow(folder), folder / 'out', processes={processes})\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE)
    wait_for(lambda: len(parts(tmp_path)) >= 12)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stderr.close()
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("go.*")]
    wait_for(lambda: not any(map(is_running, workers)))  # none goes on without its parent
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


def read_or_fail(number, report, *, go: str):
    if number == 5 and not Path(go).exists():
        raise ValueError("not yet")
    yield from read_tiny(number, report)


def read_but(number, report, *, bad: int, message: str, seed: int = 0):
    if number == bad and message:
        raise ValueError(f"image {number}: {message}")
    yield {**tiny_record(number), "source": f"seed {seed}"}


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


# --- bad input -----------------------------------------------------------------------------------


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


def test_names_with_spaces_and_accents(tmp_path):
    def read(name, report):
        yield {**tiny_record(1), "image_id": name}

    names = ["é à ü", "写真 1", "a/b c", "emoji 🙂"]
    out = tmp_path / "mes têtes" / "été 2024"
    write_record_set(tiny({"train": names}, read), out)
    source = RecordSource(out, "train")
    assert sorted(source[i]["image_id"] for i in range(4)) == sorted(names)
    assert tfds.builder_from_directory(out).info.splits["train"].num_examples == 4


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
