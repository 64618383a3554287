"""What makes parts of a conversion the same: options, raw files and code, not the process."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.engine.fingerprint import code_fingerprint, fingerprint
from data_prep.own.looks import Agreement, Labeller
from data_prep.panoptic.converter import Item as Run
from data_prep.sets import biwi, mat_faces
from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Options:
    """Some of everything that options and items are made of."""

    path: Path
    names: frozenset = frozenset({"one", "two", "three", "four"})
    sizes: tuple = (1, 2.5, None, True)
    boxes: bytes = np.arange(4.0).tobytes()
    table: tuple = (("a", 1), ("b", 2))


def options(path: Path) -> Options:
    return Options(path)


def test_is_the_same_in_every_process(tmp_path):
    code = (
        "from tests.test_fingerprint import *\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(fingerprint(functools.partial(options, {'k': 1}), options(folder)))"
    )
    found = set()
    for seed in ("1", "2"):  # sets and maps of text have another order with each
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        found.add(subprocess.check_output(command, cwd=REPOSITORY, env=environment).strip())
    assert len(found) == 1


def test_tells_values_apart(tmp_path):
    usual = options(tmp_path)
    values = [
        usual,
        replace(usual, path=tmp_path / "other"),
        replace(usual, names=frozenset({"one"})),
        replace(usual, sizes=(1, 2.5, None, 1)),
        replace(usual, sizes=(1, 2.5, None)),
        replace(usual, table=(("a", 1, "b"), (2,))),
        [1, [2, 3]],
        [[1, 2], 3],
        ["ab", "c"],
        ["a", "bc"],
        "1",
        1,
        1.0,
        b"1",
        np.array([1, 2]),
        np.array([1.0, 2.0]),
        np.array([[1, 2]]),
        {"a": 1},
        {"a": 2},
        functools.partial(options, 1),
        functools.partial(options, 2),
        functools.partial(test_is_the_same_in_every_process, 1),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(usual) == fingerprint(options(tmp_path))


def test_files_count_with_size_and_time(tmp_path):
    path = tmp_path / "raw.txt"
    missing = fingerprint([path])
    path.write_text("a")
    os.utime(path, (1, 1))
    first = fingerprint([path])
    os.utime(path, (2, 2))
    later = fingerprint([path])
    path.write_text("ab")
    os.utime(path, (2, 2))
    assert len({missing, first, later, fingerprint([path])}) == 4


@dataclass(frozen=True)
class WithInputs:
    image: str

    def inputs(self):
        return [Path(self.image).with_suffix(ending) for ending in (".txt", ".json")]


def test_files_that_no_field_names_count_too(tmp_path):
    item = WithInputs(str(tmp_path / "a.jpg"))
    found = [fingerprint(item)]
    for name in ("a.txt", "a.json", "a.jpg"):
        (tmp_path / name).write_text(name)
        found.append(fingerprint(item))
    assert len(set(found)) == 3
    assert found[2] == found[3]  # named by a text alone


@pytest.mark.parametrize(
    ("item", "changed"),
    [
        (lambda raw: mat_faces.Item(raw / "a.jpg", "a"), "a.mat"),
        (lambda raw: biwi.Frame(raw / "f_rgb.png", 1, raw / "f.bin"), "f_pose.txt"),
        (lambda raw: biwi.Frame(raw / "f_rgb.png", 1, raw / "f.bin"), "f_depth.bin"),
        (lambda raw: biwi.Frame(raw / "f_rgb.png", 1, raw / "f.bin"), "depth.cal"),
        (lambda raw: Run(raw, "s", 7, (3, 5), False), "s/hdFace3d/faceRecon3D_hd00000005.json"),
        (
            lambda raw: Run(raw, "s", 7, (3,), True),
            "s/hdPose3d_stage1_coco19/body3DScene_00000003.json",
        ),
        (lambda raw: Run(raw, "s", 7, (3,), False), "s/hdImgs/00_07/00_07_00000003.png"),
        (lambda raw: Run(raw, "s", 7, (3,), False), "s/calibration_s.json"),
        (lambda raw: Run(raw, "s", 7, (3,), False), "s/hdVideos/hd_00_07.mp4"),
        (lambda raw: Labeller(raw, (416,), Agreement()), "checkpoints/9/weights.npz"),
    ],
)
def test_what_items_are_read_from_counts(tmp_path, item, changed):
    path = tmp_path / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("labels")
    before = fingerprint(item(tmp_path))
    path.write_text("other labels")
    assert fingerprint(item(tmp_path)) != before


def test_code_counts(monkeypatch, tmp_path):
    before = code_fingerprint()
    read = Path.read_bytes
    changed = REPOSITORY / "data_prep" / "engine" / "heads.py"
    code_fingerprint.cache_clear()
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"#" * (p == changed))
    assert code_fingerprint() != before
    code_fingerprint.cache_clear()
