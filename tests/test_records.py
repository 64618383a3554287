"""The schema against hand-made protobuf and tensorflow-datasets; record sets that are not whole."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mtnet_jax.data.example import check_record, decode_record, encode_record, tfds_features
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord, write_records
from mtnet_jax.errors import BadRecord
from mtnet_jax.rotations import axis_rotation

# --- protobuf wire format, written out by hand -------------------------------------------------


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def bytes_feature(*values: bytes) -> bytes:
    return field(1, b"".join(field(1, value) for value in values))


def float_feature(values) -> bytes:
    packed = struct.pack(f"<{len(values)}f", *values)
    return field(2, field(1, packed) if packed else b"")


def int_feature(values) -> bytes:
    packed = b"".join(varint(value) for value in values)
    return field(3, field(1, packed) if packed else b"")


def entries(features: dict[str, bytes]) -> list[bytes]:
    return [field(1, field(1, k.encode()) + field(2, v)) for k, v in features.items()]


def example(features: dict[str, bytes]) -> bytes:
    """Example{features=1{feature=1 map<string, Feature>}}"""
    return field(1, b"".join(entries(features)))


def hand_made(record: dict) -> dict[str, bytes]:
    return {
        "image": bytes_feature(record["image"]),
        "image_id": bytes_feature(record["image_id"].encode()),
        "source": bytes_feature(record["source"].encode()),
        "boxes": float_feature([float(v) for row in record["boxes"] for v in row]),
        "rotations": float_feature([float(v) for m in record["rotations"] for r in m for v in r]),
        "has_pose": int_feature([int(v) for v in record["has_pose"]]),
        "ignore": int_feature([int(v) for v in record["ignore"]]),
        "labels": int_feature([int(v) for v in record["labels"]]),
        "headings": float_feature([float(v) for v in record["headings"]]),
        "has_heading": int_feature([int(v) for v in record["has_heading"]]),
        "intrinsics": float_feature([float(v) for v in record["intrinsics"]]),
    }


# Not in records written before there were headings and cameras.
LATER = ("headings", "has_heading", "intrinsics")


# --- records -------------------------------------------------------------------------------------


def image(height=24, width=32, seed=0, suffix=".png") -> tuple[bytes, np.ndarray]:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes(), rgb


def make_record(count=2, seed=0, image_id="a") -> dict:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 10, (count, 2))
    rotations = np.stack(
        [np.eye(3)] + [axis_rotation("y", a) @ axis_rotation("x", a / 2) for a in range(1, count)]
    )[:count]
    return {
        "image": image(seed=seed)[0],
        "image_id": image_id,
        "source": "tést",
        "boxes": np.concatenate([corner, corner + 5], axis=1).astype(np.float32),
        "rotations": rotations.astype(np.float32).reshape(count, 3, 3),
        "has_pose": np.arange(count) > 0,
        "ignore": np.arange(count) % 2 == 1,
        "labels": np.arange(count, dtype=np.int32),
        "headings": np.linspace(-180, 170, count, dtype=np.float32) * (np.arange(count) % 3 != 2),
        "has_heading": np.arange(count) % 3 != 2,
        "intrinsics": np.array([600.5, 590, 16, 12.25], np.float32),
    }


def assert_same(decoded: dict, record: dict) -> None:
    assert set(decoded) == set(record)
    for key, value in record.items():
        if isinstance(value, np.ndarray):
            assert decoded[key].dtype == value.dtype, key
            assert decoded[key].shape == value.shape, key
        np.testing.assert_array_equal(decoded[key], value)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_decodes_hand_made_example(count):
    record = make_record(count)
    assert_same(decode_record(example(hand_made(record)), decode=False), record)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_record_from_before_headings_and_cameras_has_none(count):
    record = make_record(count)
    features = hand_made(record)
    for name in LATER:
        del features[name]
    record["headings"] = np.zeros(count, np.float32)
    record["has_heading"] = np.zeros(count, bool)
    record["intrinsics"] = np.zeros(4, np.float32)
    assert_same(decode_record(example(features), decode=False), record)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_encodes_what_the_wire_format_says(count):
    record = make_record(count)
    data = encode_record(record)
    assert len(data) == len(example(hand_made(record)))
    for entry in entries(hand_made(record)):  # a map may be written in any order
        assert entry in data


@pytest.mark.parametrize("count", [0, 1, 7])
def test_encodes_as_tfds_does_in_a_fixed_order(count):
    record = make_record(count)
    theirs = tf_example_pb2.Example.FromString(tfds_features().serialize_example(record))
    assert encode_record(record) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize("empty", [b"", field(2, field(1, b""))])
def test_other_ways_to_write_no_boxes(empty):
    record = make_record(0)
    features = {**hand_made(record), "boxes": empty}  # no kind at all; a packed list of length 0
    assert_same(decode_record(example(features), decode=False), record)


@pytest.mark.parametrize("count", [0, 3])
def test_tfds_reads_what_we_write(count):
    record = make_record(count)
    decoded = tfds_features().deserialize_example_np(encode_record(record))
    np.testing.assert_array_equal(decoded.pop("image"), decode_image(record["image"]))
    for key, value in decoded.items():
        expected = record[key].encode() if isinstance(record[key], str) else record[key]
        np.testing.assert_array_equal(value, expected)
        if isinstance(expected, np.ndarray):
            assert value.shape == expected.shape, key


def test_image_is_decoded_as_rgb():
    encoded, rgb = image()
    record = make_record()
    record["image"] = encoded
    np.testing.assert_array_equal(decode_record(encode_record(record))["image"], rgb)


def test_grey_and_alpha_images_become_rgb():
    grey = cv2.imencode(".png", np.full((4, 5), 9, np.uint8))[1].tobytes()
    alpha = cv2.imencode(".png", np.full((4, 5, 4), 9, np.uint8))[1].tobytes()
    assert decode_image(grey).shape == decode_image(alpha).shape == (4, 5, 3)


def test_exif_orientation_is_applied():
    jpeg = cv2.imencode(".jpg", np.zeros((8, 16, 3), np.uint8))[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHHI", 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert decode_image(turned).shape == (16, 8, 3)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.99])
def test_truncated_jpeg_is_refused(cut):
    encoded, _ = image(200, 300, suffix=".jpg")
    assert decode_image(encoded).shape == (200, 300, 3)
    with pytest.raises(BadRecord, match=r"cut short|cannot decode"):
        decode_image(encoded[: int(len(encoded) * cut)])


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff"])
def test_not_an_image_is_refused(data):
    with pytest.raises(BadRecord):
        decode_image(data)


def test_bad_image_names_the_record():
    record = make_record(image_id="street/7")
    record["image"] = b"junk"
    with pytest.raises(BadRecord, match=r"'street/7', field 'image'"):
        decode_record(encode_record(record))


@pytest.mark.parametrize("name", sorted(hand_made(make_record()).keys() - LATER))
def test_missing_field_is_named(name):
    features = hand_made(make_record())
    del features[name]
    with pytest.raises(BadRecord, match=f"'{name}' is missing"):
        decode_record(example(features))


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("boxes", float_feature([1.0] * 7), "7 numbers, not a multiple of 4"),
        ("rotations", float_feature([1.0] * 10), "not a multiple of 9"),
        ("labels", int_feature([1]), "1 entries for 2 boxes"),
        ("has_pose", int_feature([1, 0, 1]), "3 entries for 2 boxes"),
        ("boxes", int_feature([1, 2, 3, 4]), "is a int64_list, not a float_list"),
        ("image", bytes_feature(b"a", b"b"), "2 values, not one"),
        ("headings", float_feature([1.0]), "1 entries for 2 boxes"),
        ("has_heading", int_feature([1, 0, 1]), "3 entries for 2 boxes"),
        ("headings", int_feature([1, 2]), "is a int64_list, not a float_list"),
        ("intrinsics", float_feature([1.0] * 3), "3 numbers, not 4"),
        ("intrinsics", int_feature([1, 1, 0, 0]), "is a int64_list, not a float_list"),
    ],
)
def test_wrong_content_is_named(name, feature, message):
    features = {**hand_made(make_record()), name: feature}
    with pytest.raises(BadRecord, match=message) as caught:
        decode_record(example(features))
    assert f"'{name}'" in str(caught.value)


def test_junk_is_not_an_example():
    with pytest.raises(BadRecord, match=r"not a tf\.train\.Example"):
        decode_record(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((2, 4), np.float32)}, "box 0 is"),
        ({"boxes": np.array([[0, 0, 1, 1], [0, 0, 1, np.nan]], np.float32)}, "box 1 is"),
        ({"boxes": np.zeros((2, 4))}, "float32, is float64"),
        ({"boxes": [[0, 0, 1, 1]]}, "must be a NumPy array"),
        ({"labels": np.zeros(3, np.int32)}, "shape"),
        ({"rotations": np.ones((2, 3, 3), np.float32)}, "matrix 0 is not a rotation"),
        ({"has_pose": np.zeros(2, bool)}, "identity where has_pose is False"),
        ({"headings": np.array([180.5, 0], np.float32)}, "'headings'.*180.5.*within"),
        ({"headings": np.array([0, np.nan], np.float32)}, "'headings'.*nan.*within"),
        ({"headings": np.array([-np.inf, 0], np.float32)}, "'headings'.*inf.*within"),
        ({"headings": np.ones(2)}, "'headings'.*float32, is float64"),
        ({"headings": np.zeros((2, 1), np.float32)}, "'headings'.*shape"),
        ({"has_heading": np.array([False, True])}, "'headings'.*0 where has_heading is False"),
        ({"has_heading": np.ones(2, np.int32)}, "'has_heading'.*bool, is int32"),
        ({"intrinsics": np.ones(4)}, "'intrinsics'.*float32"),
        ({"intrinsics": [1, 1, 0, 0]}, "'intrinsics'.*float32"),
        ({"intrinsics": np.ones(3, np.float32)}, "'intrinsics'.*four finite numbers"),
        ({"intrinsics": np.array([9, 9, np.nan, 1], np.float32)}, "'intrinsics'.*finite"),
        ({"intrinsics": np.array([9, 0, 3, 1], np.float32)}, "'intrinsics'.*focal.*positive"),
        ({"intrinsics": np.array([-9, 9, 3, 1], np.float32)}, "'intrinsics'.*focal.*positive"),
        ({"image": b""}, "bytes of an encoded image"),
        ({"image_id": 7}, "must be a str"),
        ({"extra": 1}, "unknown to the schema"),
    ],
)
def test_check_record_names_image_and_field(change, message):
    record = {**make_record(), **change}
    with pytest.raises(BadRecord, match=message) as caught:
        check_record(record)
    assert "image " in str(caught.value)


@pytest.mark.parametrize("name", ["ignore", *LATER])
def test_check_record_wants_every_field(name):
    record = make_record()
    del record[name]
    with pytest.raises(BadRecord, match=rf"image 'a', field '{name}': missing"):
        check_record(record)


def test_headings_up_to_half_a_turn_and_unknown_cameras_are_fine():
    record = make_record()
    record["headings"][:] = -180, 180
    record["intrinsics"][:] = 0
    check_record(record)


# --- record sets -------------------------------------------------------------------------------


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
        ("dataset_info.json", "{}", "no name, version or splits"),
        ("dataset_info.json", '{"fileFormat": "array_record"}', "only 'tfrecord' can be read"),
    ],
)
def test_broken_metadata(record_set, name, content, message):
    path, _ = record_set
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)
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
