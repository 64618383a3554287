"""The record: its schema, encoding and decoding.

A record is one image with its heads (any number, none included), stored as a tf.train.Example in
TFRecord files that a tensorflow-datasets builder wrote; `docs/data.md` has the schema as a table.
This module is the one place that knows it. tensorflow_datasets (which brings the Example message,
and needs no TensorFlow for what is done here) is imported on first use, not on import.
"""

import functools
from typing import Any

import numpy as np

from mtnet_jax.data.images import decode_image
from mtnet_jax.data.listing import is_utf8
from mtnet_jax.errors import BadRecord
from mtnet_jax.rotations import rotation_faults

# Feature name -> shape of one head and dtype. n heads are stored as one array (n, *shape).
HEAD_FEATURES: dict[str, tuple[tuple[int, ...], np.dtype]] = {
    "boxes": ((4,), np.dtype(np.float32)),
    "rotations": ((3, 3), np.dtype(np.float32)),
    "has_pose": ((), np.dtype(np.bool_)),
    "ignore": ((), np.dtype(np.bool_)),
    "labels": ((), np.dtype(np.int32)),
    "headings": ((), np.dtype(np.float32)),
    "has_heading": ((), np.dtype(np.bool_)),
}
# Of the whole image: fx, fy, cx, cy in pixels of its camera; zeros where they are not known.
CAMERA_FEATURE = "intrinsics"
# What records of before these fields have instead of them.
_ABSENT = ("headings", "has_heading", CAMERA_FEATURE)
TEXT_FEATURES = ("image_id", "source")
_IDENTITY = np.eye(3, dtype=np.float32)


def tfds_features() -> Any:
    """The schema as a `tfds.features.FeaturesDict`.

    Top-level tensors, not a Sequence of dicts, which decodes wrongly for an image without heads.
    """
    import tensorflow_datasets as tfds

    heads = {
        name: tfds.features.Tensor(shape=(None, *shape), dtype=dtype)
        for name, (shape, dtype) in HEAD_FEATURES.items()
    }
    texts = {name: tfds.features.Text() for name in TEXT_FEATURES}
    image = tfds.features.Image(shape=(None, None, 3))
    camera = {CAMERA_FEATURE: tfds.features.Tensor(shape=(4,), dtype=np.float32)}
    return tfds.features.FeaturesDict({"image": image, **texts, **camera, **heads})


def check_record(record: dict) -> None:
    """Raises unless a record can be stored.

    Args:
      record: `image` as encoded bytes, `image_id`, `source`, `intrinsics`, and the arrays of
        `HEAD_FEATURES`.

    Raises:
      BadRecord: a field is missing, unknown, of another shape or dtype, a box is not finite or has
        no area, a rotation is not a rotation (the identity where has_pose is False), a heading is
        not within +-180 degrees (0 where has_heading is False), or the intrinsics are neither
        those of a camera nor zeros.
    """
    image_id = record.get("image_id", "?")

    def fail(field: str, fault: str):
        raise BadRecord(f"image {image_id!r}, field {field!r}: {fault}")

    expected = {"image", *TEXT_FEATURES, CAMERA_FEATURE, *HEAD_FEATURES}
    for field in sorted(expected ^ set(record)):
        fail(field, "missing" if field in expected else "unknown to the schema")
    if not isinstance(record["image"], bytes) or not record["image"]:
        fail("image", "must be the bytes of an encoded image (JPEG, PNG)")
    for field in TEXT_FEATURES:
        if not isinstance(record[field], str):
            fail(field, f"must be a str, is {type(record[field]).__name__}")
        if not is_utf8(record[field]):
            fail(field, "is not UTF-8: rename the file")
    intrinsics = record[CAMERA_FEATURE]
    if not (isinstance(intrinsics, np.ndarray) and intrinsics.dtype == np.float32):
        fail(CAMERA_FEATURE, "must be a NumPy array of float32")
    if intrinsics.shape != (4,) or not np.isfinite(intrinsics).all():
        fail(CAMERA_FEATURE, f"must be four finite numbers, are {intrinsics.tolist()}")
    if intrinsics.any() and not (intrinsics[:2] > 0).all():
        fail(CAMERA_FEATURE, f"focal lengths must be positive, are {intrinsics[:2].tolist()}")
    count = len(record["boxes"])
    for field, (shape, dtype) in HEAD_FEATURES.items():
        value = record[field]
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            fail(
                field,
                f"must be a NumPy array of {dtype}, is {getattr(value, 'dtype', type(value))}",
            )
        if value.shape != (count, *shape):
            fail(field, f"shape {value.shape}, expected {(count, *shape)} ({count} boxes)")
    boxes = record["boxes"]
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        i = int(np.argmin(good))
        fail("boxes", f"box {i} is {boxes[i].tolist()}: must be finite with x1 < x2 and y1 < y2")
    headings = record["headings"]
    if not (np.abs(headings) <= 180).all() or headings[~record["has_heading"]].any():
        fail(
            "headings",
            f"{headings.tolist()}: must be within +-180 degrees, 0 where has_heading is False",
        )
    unposed = ~record["has_pose"]
    identity = (record["rotations"][unposed] == _IDENTITY).all()
    if unposed.all() and identity:
        return
    faults = rotation_faults(record["rotations"])
    if faults.any():
        i = int(np.argmax(faults))
        fail("rotations", f"matrix {i} is not a rotation: {record['rotations'][i].tolist()}")
    if not identity:
        fail("rotations", "must be the identity where has_pose is False")


def encode_record(record: dict) -> bytes:
    """A record as the bytes of a tf.train.Example, exactly as tensorflow-datasets stores it.

    Args:
      record: see `check_record`; `image` is the encoded image and is stored as it is.

    Returns:
      The serialized tf.train.Example.

    Raises:
      BadRecord: see `check_record`.
    """
    check_record(record)
    example = example_message()[0]()
    features = example.features.feature
    features["image"].bytes_list.value.append(record["image"])
    for field in TEXT_FEATURES:
        features[field].bytes_list.value.append(record[field].encode())
    arrays = {CAMERA_FEATURE: np.dtype(np.float32)} | {f: d for f, (_, d) in HEAD_FEATURES.items()}
    for field, dtype in arrays.items():
        feature, values = features[field], record[field].ravel()
        if dtype.kind == "f":
            feature.float_list.SetInParent()  # also where there are no heads, as tfds does
            feature.float_list.value.extend(values.tolist())
        else:
            feature.int64_list.SetInParent()
            feature.int64_list.value.extend(values.astype(np.int64).tolist())
    # Without it protobuf writes the entries of a map in any order, other bytes in every process.
    return example.SerializeToString(deterministic=True)


def decode_record(data: bytes, *, decode: bool = True) -> dict:
    """A record from the bytes of its tf.train.Example.

    Args:
      data: the serialized tf.train.Example.
      decode: False leaves the image encoded, which is much faster.

    Returns:
      `image` (H, W, 3) uint8 RGB, or bytes with decode=False; `boxes` (n, 4) float32 xyxy pixels;
      `rotations` (n, 3, 3) float32; `has_pose` (n,) bool; `ignore` (n,) bool; `labels` (n,) int32;
      `headings` (n,) float32 degrees; `has_heading` (n,) bool; `intrinsics` (4,) float32;
      `image_id` and `source` str. Records written before headings and intrinsics have none.

    Raises:
      BadRecord: not an Example, a field is missing or of a wrong kind or length, or the image
        cannot be decoded.
    """
    example_class, decode_error = example_message()
    try:
        features = example_class.FromString(data).features.feature
    except decode_error as error:
        raise BadRecord(f"not a tf.train.Example: {error}") from error
    record: dict[str, Any] = {"image_id": "?"}
    for field in TEXT_FEATURES:
        record[field] = _single_bytes(features, field, record["image_id"]).decode()
    image_id = record["image_id"]
    for field, (shape, dtype) in HEAD_FEATURES.items():
        if field in _ABSENT and field not in features:
            record[field] = np.zeros((len(record["boxes"]), *shape), dtype)
            continue
        kind = "float_list" if dtype.kind == "f" else "int64_list"
        values = np.array(_values(features, field, kind, image_id), dtype)
        size = int(np.prod(shape))
        if len(values) % size:
            raise BadRecord(
                f"image {image_id!r}, field {field!r}: {len(values)} numbers, "
                f"not a multiple of {size}"
            )
        record[field] = values.reshape(-1, *shape)
        if len(record[field]) != len(record["boxes"]):
            raise BadRecord(
                f"image {image_id!r}, field {field!r}: {len(record[field])} entries for "
                f"{len(record['boxes'])} boxes"
            )
    intrinsics = np.zeros(4, np.float32)
    if CAMERA_FEATURE in features:
        intrinsics = np.array(_values(features, CAMERA_FEATURE, "float_list", image_id), np.float32)
        if intrinsics.shape != (4,):
            raise BadRecord(
                f"image {image_id!r}, field {CAMERA_FEATURE!r}: {len(intrinsics)} numbers, not 4"
            )
    record[CAMERA_FEATURE] = intrinsics
    encoded = _single_bytes(features, "image", image_id)
    if not decode:
        return {"image": encoded, **record}
    try:
        return {"image": decode_image(encoded), **record}
    except BadRecord as error:
        raise BadRecord(f"image {image_id!r}, field 'image': {error}") from error


@functools.cache
def example_message() -> tuple[Any, type[Exception]]:
    """The Example message class and the exception of its parser."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example, DecodeError


def _values(features: Any, field: str, kind: str, image_id: str) -> Any:
    """The list of a feature, an empty one where the list was left out as protobuf may do."""
    if field not in features:
        raise BadRecord(f"image {image_id!r}: field {field!r} is missing")
    stored = features[field].WhichOneof("kind")
    if stored not in (kind, None):
        raise BadRecord(f"image {image_id!r}, field {field!r}: is a {stored}, not a {kind}")
    return getattr(features[field], kind).value


def _single_bytes(features: Any, field: str, image_id: str) -> bytes:
    values = _values(features, field, "bytes_list", image_id)
    if len(values) != 1:
        raise BadRecord(f"image {image_id!r}, field {field!r}: {len(values)} values, not one")
    return values[0]
