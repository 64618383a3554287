"""Outputs: whole or not at all, and never in place of what is not theirs."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtnet_jax import outputs
from mtnet_jax.errors import BadInput, FileInTheWay, Unavailable
from mtnet_jax.outputs import MADE, JsonLines, JsonList, Outputs
from mtnet_jax.places import write_whole
from tests.conftest import REPOSITORY


def test_a_file_is_replaced_by_the_command_that_made_it(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for content in ("one", "two"):
        Outputs("predict").write(path, content)
        assert path.read_text() == content
    with pytest.raises(FileInTheWay, match=r"a\.txt was made by something else.*choose another"):
        Outputs("eval").write(path, "three")
    assert path.read_text() == "two"


@pytest.mark.parametrize("content", ["of the user", "tw0"], ids=["foreign", "of equal length"])
def test_what_a_user_wrote_or_changed_is_left_alone(tmp_path, content):
    path = tmp_path / "a.txt"
    Outputs("predict").write(path, "two")
    path.write_text(content)
    with pytest.raises(FileInTheWay, match="was changed since it was made"):
        Outputs("predict").write(path, "three")
    assert path.read_text() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == [MADE, "a.txt"]


def test_empty_files_pipes_and_devices_hold_nothing_to_lose(tmp_path):
    (tmp_path / "empty").touch()
    Outputs("predict").write(tmp_path / "empty", "x")
    assert (tmp_path / "empty").read_text() == "x"
    with Outputs("predict").writing(tmp_path.__class__("/dev/null")) as file:
        file.write(b"x")


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "other path"])
def test_an_input_is_never_replaced(tmp_path, way):
    source, out = tmp_path / "a.png", tmp_path / "b.png"
    source.write_text("image")
    if way == "symbolic link":
        out.symlink_to(source)
    elif way == "hard link":
        out.hardlink_to(source)
    else:
        out = source if way == "itself" else tmp_path / "x" / ".." / "a.png"
        (tmp_path / "x").mkdir()
    outputs = Outputs("predict", [source])
    with pytest.raises(BadInput, match="is one of the inputs"):
        outputs.check(out)
    with pytest.raises(BadInput, match="is one of the inputs"):
        outputs.write(out, "x")
    assert source.read_text() == "image"


def test_every_input_has_a_name_of_its_own(tmp_path):
    first = Outputs("predict")
    names = [
        first.own_name(tmp_path, stem, ".png", of)
        for stem, of in (("a", "/x/a"), ("a", "/y/a"), ("A", "/z/A"), ("a", "/x/a"))
    ]
    assert [path.name for path in names] == ["a.png", "a_2.png", "A_3.png", "a.png"]
    for path, of in zip(names, ("/x/a", "/y/a", "/z/A"), strict=False):
        first.write(path, of, of)
    # A later run finds the names of its inputs again, in any order, and takes no other's.
    later = Outputs("predict")
    assert later.own_name(tmp_path, "a", ".png", "/y/a").name == "a_2.png"
    assert later.own_name(tmp_path, "a", ".png", "/new/a").name == "a_3.png"
    (tmp_path / "b.png").write_text("of the user")
    with pytest.raises(FileInTheWay, match=r"b\.png"):
        later.own_name(tmp_path, "b", ".png", "/x/b")


def test_every_input_has_a_folder_of_its_own(tmp_path):
    for of in ("/a/heads:test", "/b/heads:test", "/a/heads:test"):
        outputs = Outputs("eval")
        folder = outputs.own_folder(tmp_path, "heads-test", of)
        outputs.write(folder / "table.txt", of, of)
    assert (tmp_path / "heads-test" / "table.txt").read_text() == "/a/heads:test"
    assert (tmp_path / "heads-test_2" / "table.txt").read_text() == "/b/heads:test"


def place_folder(path: Path, content: str) -> None:
    with Outputs("export").placing(path) as folder:
        folder.mkdir()
        (folder / "a.txt").write_text(content)


def test_a_folder_is_there_until_a_new_one_has_its_name(monkeypatch, tmp_path):
    path = tmp_path / "folder"
    place_folder(path, "old")
    with monkeypatch.context() as patch:  # as if killed where an old folder is removed
        patch.setattr(outputs.shutil, "rmtree", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            place_folder(path, "new")
    assert (path / "a.txt").read_text() == "new"
    place_folder(path, "newer")
    assert sorted(p.name for p in tmp_path.iterdir()) == [MADE, "folder"]
    assert (path / "a.txt").read_text() == "newer"


def test_a_folder_between_two_names_gets_its_own_back(monkeypatch, tmp_path):
    path, replace = tmp_path / "folder", Path.replace
    place_folder(path, "old")

    def killed(self, target):
        if self.name == "folder.partial":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            place_folder(path, "new")
    assert not path.exists()
    with pytest.raises(OSError, match="no room"), Outputs("export").placing(path):
        raise OSError("no room")
    assert (path / "a.txt").read_text() == "old"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            place_folder(path, "new")
    (tmp_path / "folder.partial").mkdir()
    Outputs("export").remove_outdated(tmp_path, [""])  # by a command that does not make it again
    assert [p.name for p in tmp_path.iterdir()] == [MADE]


def test_what_cannot_be_read_is_not_known(monkeypatch, tmp_path):
    """Somebody else's list of what was made, in a folder of photographs that all may read."""
    Outputs("predict").write(tmp_path / "a.png", "x", "/a")
    assert Outputs("predict").made(tmp_path / "a.png")

    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder / MADE))

    monkeypatch.setattr(outputs, "_read_made", refused)
    assert not Outputs("predict").made(tmp_path / "a.png")


def test_an_error_or_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.txt"
    Outputs("predict").write(path, "old")
    writing = Outputs("predict").writing(path)
    writing.__enter__().write(b"ne")
    assert not writing.__exit__(OSError, OSError(errno.ENOSPC, "No space left on device"), None)
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [MADE, "a.txt"]


def test_what_an_earlier_run_alone_made_is_removed(tmp_path):
    """Of the same command and input, as far as nobody changed it."""
    for command, of, name in (
        *(("predict", "/a", f"{number}.png") for number in range(4)),
        *(("predict", "/b", "b.png"), ("eval", "/a", "eval.png")),
    ):
        Outputs(command).write(tmp_path / name, name, of)
    with Outputs("predict").placing(tmp_path / "folder", "/a") as folder:
        folder.mkdir()
    (tmp_path / "3.png").write_text("changed")
    (tmp_path / "mine.png").write_text("of the user")
    again = Outputs("predict")
    again.write(tmp_path / "0.png", "0", "/a")
    again.write(tmp_path / "1.png", "1.png", "/a")
    again.remove_outdated(tmp_path, ["/a"])
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != MADE)
    assert left == ["0.png", "1.png", "3.png", "b.png", "eval.png", "mine.png"]


def test_files_of_other_inputs_are_not_read_to_find_outdated_ones(tmp_path, monkeypatch):
    """A folder may hold many videos, and each looks for what its earlier run left there."""
    for number in range(4):
        Outputs("predict").write(tmp_path / f"{number}.mp4", "x", f"/{number}")
    again = Outputs("predict")
    again.write(tmp_path / "0.mp4", "y", "/0")
    read = []
    monkeypatch.setattr(outputs, "_digest", lambda path: read.append(path.name) or "")
    again.remove_outdated(tmp_path, ["/0", "/1"])
    assert read == ["1.mp4"]


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileInTheWay, match="file is a file"):
        Outputs("predict").check(tmp_path / "file" / "deep" / "a.txt")
    with pytest.raises(FileInTheWay, match="is a folder"):
        Outputs("predict").check(tmp_path)


@pytest.mark.parametrize("form", [JsonList, JsonLines])
def test_json_is_valid_after_every_entry(tmp_path, form):
    path, entries = tmp_path / "a.json", [{"a": 1}, {"b": "ü"}, {"c": [1.5, None]}]
    read = json.loads if form is JsonList else lambda t: [json.loads(x) for x in t.splitlines()]
    with Outputs("predict").writing(path, also_cut_short=True) as file:
        sink = form(file)
        for count, entry in enumerate(entries, start=1):
            sink.append(entry)
            assert read(path.with_name("a.json.partial").read_text()) == entries[:count]
        sink.close()
    assert read(path.read_text()) == entries


def test_an_interruption_keeps_what_was_written(tmp_path):
    path = tmp_path / "a.json"
    writing = Outputs("predict").writing(path, also_cut_short=True)
    JsonList(writing.__enter__()).append({"a": 1})
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert json.loads(path.read_text()) == [{"a": 1}]
    Outputs("predict").write(path, "[]")  # and it is known as ours


class SmallDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        room = self._room - self._file.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data[:room])


@pytest.mark.parametrize("form", [JsonList, JsonLines])
def test_json_on_a_full_disk_is_valid(tmp_path, form):
    path = tmp_path / "a.json"
    with path.open("w+b", buffering=0) as file:
        sink = form(SmallDisk(file, 60))
        sink.append({"a": 1})
        with pytest.raises(OSError, match="space"):
            sink.append({"b": "x" * 100})
    text = path.read_text()
    assert (json.loads(text) == [{"a": 1}]) if form is JsonList else (text == '{"a": 1}\n')


def test_a_kill_leaves_the_old_file_and_valid_json(tmp_path):
    path = tmp_path / "heads.json"
    Outputs("predict").write(path, "[]")
    program = f"""
import time
from pathlib import Path
from pathlib import Path
from mtnet_jax.outputs import JsonList, Outputs
with Outputs("predict").writing(Path({str(path)!r}), also_cut_short=True) as file:
    sink = JsonList(file)
    for i in range(100000):
        sink.append({{"i": i}})
        time.sleep(0.001)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY)
    partial = tmp_path / "heads.json.partial"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size > 200):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert path.read_text() == "[]"
    entries = json.loads(partial.read_text())
    assert entries == [{"i": i} for i in range(len(entries))]
    assert len(entries) > 5
    Outputs("predict").write(path, "[1]")


WRITER = """
import sys
from pathlib import Path
from mtnet_jax.outputs import JsonLines, Outputs
with Outputs("predict").writing(Path(sys.argv[1]), also_cut_short=True) as file:
    sink = JsonLines(file)
    for i in range(3):
        sink.append({"i": i})
    print("begun", flush=True)
    sys.stdin.readline()
    sink.append({"i": 3})
"""


def test_what_another_command_is_writing_is_left_to_it(tmp_path):
    path = tmp_path / "heads.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(Unavailable, match=r"heads\.jsonl is being written by another command"):
            Outputs("predict").write(path, "{}\n")
        assert path.with_name("heads.jsonl.partial").read_text().count("\n") == 3
        other.communicate("go on\n")
    assert [json.loads(line)["i"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_what_another_command_has_just_written_is_not_replaced(tmp_path):
    path = tmp_path / "a.png"
    first, second = Outputs("predict"), Outputs("predict")
    second.check(path, "/in/second/a.jpg")  # nothing is there yet
    with ThreadPoolExecutor() as pool:
        with first.writing(path, "/in/first/a.jpg") as file:
            late = pool.submit(second.write, path, b"second", "/in/second/a.jpg")
            time.sleep(0.3)
            file.write(b"first")
        with pytest.raises(FileInTheWay):
            late.result()
    assert path.read_bytes() == b"first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mtnet-made.jsonl", "a.png"]


def test_two_that_write_a_file_at_once_both_write_it_whole(monkeypatch, tmp_path):
    path, replace = tmp_path / "file", Path.replace

    def replace_after_another(self, target):
        monkeypatch.setattr(Path, "replace", replace)
        write_whole(path, b"of another process")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_after_another)
    write_whole(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]
