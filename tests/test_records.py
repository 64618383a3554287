"""Record sets: their metadata, each of their records, and what is said of one that is not whole."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.data.example import encode_record, tfds_features
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord, write_records
from tests.record_sets import a_record, write_record_set
from tests.wire_format import assert_same, example, hand_made, int_feature, make_record


@pytest.fixture
def record_set(tmp_path):
    """A record set of two shards and an empty image, written without the builder."""
    path = tmp_path / "set"
    path.mkdir()
    records = [make_record(count, seed=count, image_id=f"r{count}") for count in (2, 0, 1, 3, 1)]
    data = [encode_record(record) for record in records]
    write_records(path / "tiny-train.tfrecord-00000-of-00002", data[:3])
    write_records(path / "tiny-train.tfrecord-00001-of-00002", data[3:])
    write_records(path / "tiny-test.tfrecord-00000-of-00001", data[:1])
    info = {
        "name": "tiny",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "citation": "cite me",
        "splits": [
            {"name": "train", "shardLengths": ["3", "2"], "numBytes": "1"},
            {"name": "test", "shardLengths": ["1"], "numBytes": "1"},
        ],
    }
    (path / "dataset_info.json").write_text(json.dumps(info))
    (path / "metadata.json").write_text(
        json.dumps({"box_rule": "head", "label_names": ["head", "helmet"]})
    )
    tfds_features().save_config(path)
    return path, records


def test_metadata(record_set):
    path, _ = record_set
    opened = RecordSet.open(path)
    assert (opened.name, opened.version, opened.box_rule) == ("tiny", "1.0.0", "head")
    assert opened.label_names == ("head", "helmet")
    assert opened.splits == {"train": 5, "test": 1}
    assert opened.citation == "cite me"


def test_tfds_agrees_on_the_metadata(record_set):
    path, _ = record_set
    builder = tfds.builder_from_directory(path)
    assert builder.info.name == "tiny"
    opened = RecordSet.open(path)
    for split, info in builder.info.splits.items():
        assert info.num_examples == opened.splits[split]
        assert [f.name for f in info.filepaths] == [f.name for f in opened.shard_paths(split)]


def test_source_gives_every_record(record_set):
    path, records = record_set
    source = RecordSource(path, "train", decode=False)
    assert len(source) == 5
    for i in (4, 0, 2, 3, 1, -1):
        assert_same(source[i], records[i])
    assert source.raw(3) == encode_record(records[3])
    assert RecordSource(path, "train")[1]["image"].shape == (24, 32, 3)
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"no record {index}"):
            source[index]


def test_source_takes_numpy_indices_and_pickles(record_set):
    path, records = record_set
    source = RecordSource(path, "train", decode=False)
    assert source[np.int64(2)]["image_id"] == records[2]["image_id"]
    copy = pickle.loads(pickle.dumps(source))
    assert_same(copy[4], records[4])


def test_source_in_grain_is_shuffled_and_sliced(record_set):
    grain = pytest.importorskip("grain")
    path, records = record_set
    source = RecordSource(path, "train", decode=False)
    dataset = grain.MapDataset.source(source).shuffle(seed=3).map(lambda record: record["image_id"])
    seen = [dataset[i] for i in range(5)]
    assert sorted(seen) == sorted(record["image_id"] for record in records)
    halves = [list(grain.MapDataset.source(source)[half::2]) for half in range(2)]
    assert [len(half) for half in halves] == [3, 2]


def test_directory_above_the_version_is_found(record_set, tmp_path):
    path, _ = record_set
    nested = tmp_path / "records" / "tiny" / "1.0.0"
    nested.parent.mkdir(parents=True)
    path.rename(nested)
    for start in (nested, nested.parent, nested.parent.parent):
        assert RecordSet.open(start).path == nested
    shutil.copytree(nested, nested.parent / "2.0.0")
    with pytest.raises(ValueError, match="several record sets"):
        RecordSet.open(nested.parent)


def test_unknown_split_lists_those_there_are(record_set):
    path, _ = record_set
    with pytest.raises(ValueError, match=r"no split 'valid'.*'train' \(5\), 'test' \(1\)"):
        RecordSource(path, "valid")


def test_missing_shard_is_named(record_set):
    path, _ = record_set
    (path / "tiny-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="00001-of-00002 of split 'train' is missing"):
        RecordSource(path, "train")
    assert len(RecordSource(path, "test")) == 1


def test_short_shard_is_named(record_set):
    path, records = record_set
    shard = path / "tiny-train.tfrecord-00000-of-00002"
    write_records(shard, [encode_record(records[0])])
    with pytest.raises(ValueError, match=r"00000-of-00002 holds 1 records.* says 3"):
        RecordSource(path, "train")


def test_bad_content_names_file_and_record(record_set):
    path, records = record_set
    bad = example({**hand_made(records[4]), "labels": int_feature([1, 2, 3])})
    shard = path / "tiny-train.tfrecord-00001-of-00002"
    write_records(shard, [encode_record(records[3]), bad])
    source = RecordSource(path, "train")
    with pytest.raises(DamagedRecord, match=r"00001-of-00002: record 1 .*'r1', field 'labels'"):
        source[4]


def test_no_record_set_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="mtnet data convert"):
        RecordSet.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="mtnet data convert"):
        RecordSet.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.json", None, r"metadata.json is missing"),
        ("metadata.json", "{}", "no 'box_rule'"),
        ("dataset_info.json", "{", "not valid JSON"),
        ("dataset_info.json", b'{"name": "t\xeate"}', "not valid JSON"),
        ("metadata.json", "[]", "no names and values"),
        ("dataset_info.json", "{}", "no name, version or splits"),
        ("metadata.json", '{"box_rule": null, "label_names": ["head"]}', "box_rule is None"),
        ("metadata.json", '{"box_rule": "head", "label_names": "head"}', "label_names are 'head'"),
        ("metadata.json", '{"box_rule": "head", "label_names": null}', "expected .* list of names"),
        *(
            ("dataset_info.json", f'{{"name": "t", "version": "1", "splits": {splits}}}', message)
            for splits, message in (
                ("null", "dataset_info.json: field 'splits' does not say .* convert .* again"),
                ('[{"name": "train"}]', "field 'splits' does not say"),
                ('[{"name": "train", "shardLengths": ["many"]}]', "field 'splits' does not say"),
                ('[{"name": 7, "shardLengths": ["1"]}]', "names 7, which is no name of a file"),
            )
        ),
        ("dataset_info.json", '{"fileFormat": "array_record"}', "only 'tfrecord' can be read"),
    ],
)
def test_broken_metadata(record_set, name, content, message):
    path, _ = record_set
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RecordSet.open(path)


def test_read_only_directory(record_set):
    path, records = record_set
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    try:
        before = sorted(os.listdir(path))
        assert_same(RecordSource(path, "train", decode=False)[0], records[0])
        assert sorted(os.listdir(path)) == before
    finally:
        path.chmod(0o755)


def test_import_does_not_pull_in_tensorflow_datasets():
    code = (
        "import sys, mtnet_jax.data.records;"
        "assert 'tensorflow_datasets' not in sys.modules; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("whole", [False, True])
def test_the_identity_is_of_all_shards_in_order_which_are_opened_side_by_side(
    monkeypatch, tmp_path, whole
):
    records = [a_record(f"image {n}", boxes=[[n, 0, n + 9, 9]]) for n in range(3)]
    folder = write_record_set(tmp_path / "set", {"train": records}, shards=3)
    shards = sorted(folder.glob("*.tfrecord-*"))
    for number, shard in enumerate(shards):  # beyond the 64 KB that are looked at
        shard.write_bytes(shard.read_bytes().ljust(70_000, b"%d" % number))
    digest = sha256(json.dumps(["tiny", "1.0.0", "head", ["head"]]).encode())
    for content in (shard.read_bytes() for shard in shards):
        digest.update(str(len(content)).encode() + content[: None if whole else 1 << 16])
    record_set, opened = RecordSet.open(folder), Path.open
    together = threading.Barrier(3, timeout=30)
    waited = set()

    def open_together(path, *arguments):
        if path in shards and path not in waited:
            waited.add(path)
            together.wait()
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", open_together)
    assert record_set.identity("train", whole=whole) == digest.hexdigest()
