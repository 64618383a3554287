"""TensorFlow reads the records that we write: every field, and it notices what is damaged.

TensorFlow lives in an environment of its own (requirements-tensorflow-test.txt says how to make
it), where one process reads all record sets of this file (tests/tensorflow_reader.py).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.engine.builder import write_record_set
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.report import Report
from mtnet_jax.data.index import StaleIndex
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord, RecordFile
from mtnet_jax.rotations import axis_rotation
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "demo" / "studio_demo"
NUMBERS = {"has_pose", "ignore", "labels", "boxes", "rotations"}
# Not in records written before there were headings and cameras, as those of the demo are.
LATER = {"headings", "has_heading", "intrinsics"}


# Forms an image may have in a record: (suffix, channels).
IMAGES = [(".jpg", 3), (".png", 3), (".jpg", 1), (".png", 1), (".png", 4)]


def read_record(number: int, report: Report):
    """A record of up to four heads, some without a pose, some ignored."""
    rng = np.random.default_rng(number)
    suffix, channels = IMAGES[number % len(IMAGES)]
    noise = rng.integers(0, 256, (6, 8, channels), np.uint8)
    image = cv2.resize(noise, (61, 47), interpolation=cv2.INTER_CUBIC)
    count = number % 5
    corner = rng.uniform(-20, 30, (count, 2))
    has_pose = rng.random(count) < 0.6
    turned = axis_rotation("y", rng.uniform(-180, 180, count)) @ axis_rotation("x", 20.0)
    headings = np.where(has_pose, 0, rng.uniform(-180, 180, count)).astype(np.float32)
    yield {
        "image": cv2.imencode(suffix, image)[1].tobytes() + b"\0\0",  # zeros must not be lost
        "image_id": f"Straße/画像 {number}.jpg",
        "source": "tést",
        "boxes": np.concatenate([corner, corner + rng.uniform(1, 30, (count, 2))], axis=1).astype(
            np.float32
        ),
        "rotations": np.where(has_pose[:, None, None], turned, np.eye(3)).astype(np.float32),
        "has_pose": has_pose,
        "ignore": rng.random(count) < 0.4,
        "labels": rng.integers(0, 200, count).astype(np.int32),
        "headings": headings,
        "has_heading": headings != 0,
        "intrinsics": (np.array([60.5, 60, 30, 23]) * (number % 3 > 0)).astype(np.float32),
    }


def write_set(folder: Path) -> Path:
    about = Description(
        name="tiny",
        version="1.2.3",
        text="Images of every form.",
        box_rule="head",
        label_names=tuple(f"kind {i}" for i in range(200)),  # more than a byte of wire format
        homepage="https://example.org",
        citation="@misc{tiny}",
        licence="CC0",
    )
    # Where tfds.load finds a record set by its name.
    out = folder / "tiny" / "1.2.3"
    out.parent.mkdir(parents=True)
    write_record_set(
        Conversion(about, {"train": range(25), "test": range(25, 30)}, read_record), out
    )
    return out


def damage(source: Path, folder: Path, kind: str) -> Path:
    """A copy of a record set, with a fault in its third test record."""
    shutil.copytree(source, folder)
    (shard,) = RecordSet.open(folder).shard_paths("test")
    offset, length = (int(v) for v in RecordFile(shard).index[2])
    content = bytearray(shard.read_bytes())
    if kind == "cut short":
        content = content[: offset + length // 2]
    else:
        places = {"data": offset + length // 2, "length": offset - 12, "checksum": offset + length}
        content[places[kind]] ^= 1
    shard.write_bytes(content)
    return folder


DAMAGES = ("data", "length", "checksum", "cut short")


@pytest.fixture(scope="module")
def read(tmp_path_factory, tensorflow_python) -> dict:
    """What TensorFlow read: record set -> its folder, and "arrays"."""
    folder = tmp_path_factory.mktemp("sets")
    ours = write_set(folder / "whole")
    sets = {"tiny": ours, "demo": DEMO}
    sets |= {kind: damage(ours, folder / kind.replace(" ", "_"), kind) for kind in DAMAGES}
    out = folder / "read.npy"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    script = REPOSITORY / "tests" / "tensorflow_reader.py"
    run = subprocess.run(
        [tensorflow_python, script, out, *sets.values()],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return {**sets, "arrays": np.load(out, allow_pickle=True).item()}


def records_of(read: dict, name: str, split: str, way: str) -> list[dict[str, np.ndarray]]:
    """The records as one way of reading gave them, in its order."""
    prefix = f"{read[name]}/{split}/{way}/"
    records: dict[int, dict] = {}
    for key, value in read["arrays"].items():
        if key.startswith(prefix):
            number, field = key.removeprefix(prefix).split("/")
            records.setdefault(int(number), {})[field] = value
    return [records[number] for number in sorted(records)]


def fields_of(folder: Path) -> set[str]:
    """The fields that the schema beside a record set names."""
    schema = json.loads((folder / "features.json").read_text())
    return set(schema["featuresDict"]["features"])


@pytest.mark.parametrize(
    ("name", "way"),
    # tfds.load finds sets in folders NAME/VERSION, where the demo's is not.
    [
        ("tiny", "builder"),
        ("tiny", "load"),
        ("tiny", "parse"),
        ("demo", "builder"),
        ("demo", "parse"),
    ],
)
def test_every_field_of_every_record(read, name, way):
    for split, count in RecordSet.open(read[name]).splits.items():
        source = RecordSource(read[name], split)
        encoded = RecordSource(read[name], split, decode=False)
        found = records_of(read, name, split, way)
        assert len(found) == count
        ids = {bytes(record["image_id"]).decode(): record for record in found}
        assert len(ids) == count
        for i in range(count):
            ours = source[i]
            theirs = ids[ours["image_id"]]
            assert bytes(theirs["source"]).decode() == ours["source"]
            later = LATER if name == "tiny" else LATER & fields_of(read[name])
            for field in LATER - later:
                assert not ours[field].any()
            for field in NUMBERS | later:
                assert theirs[field].shape == ours[field].shape, field
                np.testing.assert_array_equal(theirs[field], ours[field], err_msg=field)
                if way != "parse":  # where tf.Example knows 64-bit integers alone
                    assert theirs[field].dtype == ours[field].dtype, field
            if way != "load":
                assert bytes(theirs["encoded"]) == encoded[i]["image"]
            assert theirs["image"].shape == ours["image"].shape
            error = np.abs(theirs["image"].astype(int) - ours["image"])
            if encoded[i]["image"].startswith(b"\x89PNG"):
                assert not error.any()
            elif way == "parse":
                assert error.max() <= 1  # builds of libjpeg may round in other ways
            else:  # tfds decodes JPEG with a quicker, coarser transform
                assert error.mean() < 2.5


def test_the_set_holds_what_must_be_read(read):
    """No heads, one and several, with and without pose; else the comparison says little."""
    source = RecordSource(read["tiny"], "train", decode=False)
    records = [source[i] for i in range(len(source))]
    assert {len(record["boxes"]) for record in records} == {0, 1, 2, 3, 4}
    for field in ("has_pose", "ignore", "has_heading"):
        values = np.concatenate([record[field] for record in records])
        assert values.any()
        assert not values.all()


@pytest.mark.parametrize("way", ["builder", "parse"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_tensorflow_notices_what_is_damaged(read, kind, way):
    """`DataLossError` there, as an error that names it here, and other splits can be read."""
    arrays = read["arrays"]
    assert f"{read[kind]}/test/{way}/error" in arrays
    assert f"{read[kind]}/train/{way}/error" not in arrays
    assert f"{read['tiny']}/test/{way}/error" not in arrays
    with pytest.raises((DamagedRecord, StaleIndex), match=r"record 2|cut short"):
        RecordSource(read[kind], "test")[2]
