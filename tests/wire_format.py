"""Records for tests, and protobuf's wire format of them, written out by hand."""

import struct

import cv2
import numpy as np

from mtnet_jax.rotations import axis_rotation


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
