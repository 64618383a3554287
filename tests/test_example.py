"""The schema of a record against hand-made protobuf and tensorflow-datasets."""

import struct

import cv2
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from mtnet_jax.data.example import check_record, decode_record, encode_record, tfds_features
from mtnet_jax.data.images import decode_image
from mtnet_jax.errors import BadRecord
from tests.wire_format import (
    LATER,
    assert_same,
    bytes_feature,
    entries,
    example,
    field,
    float_feature,
    hand_made,
    image,
    int_feature,
    make_record,
)


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


# --- images --------------------------------------------------------------------------------------


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


# --- what is refused -----------------------------------------------------------------------------


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
        ({"image_id": "\udce9.png"}, "not UTF-8: rename the file"),
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
