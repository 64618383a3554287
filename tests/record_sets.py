"""Small record sets for tests, written with our own framing alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.tfrecord import write_records

WIDTH, HEIGHT = 64, 48


def a_record(
    image_id: str,
    *,
    boxes: Sequence[Sequence[float]],
    rotations: Sequence[np.ndarray] = (),
    ignore: Sequence[bool] = (),
    headings: Sequence[float] = (),
    intrinsics: Sequence[float] = (0, 0, 0, 0),
) -> dict:
    """A record with a random image of 64x48; heads have a pose where rotations are given, and a
    heading where headings are."""
    count = len(boxes)
    pixels = np.random.default_rng(len(image_id)).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return {
        "image": cv2.imencode(".png", pixels)[1].tobytes(),
        "image_id": image_id,
        "source": "tiny",
        "boxes": np.array(boxes, np.float32).reshape(count, 4),
        "rotations": np.array(
            rotations if len(rotations) else [np.eye(3)] * count, np.float32
        ).reshape(count, 3, 3),
        "has_pose": np.full(count, len(rotations) > 0),
        "ignore": np.array(ignore, bool) if len(ignore) else np.zeros(count, bool),
        "labels": np.zeros(count, np.int32),
        "headings": np.array(headings if len(headings) else [0] * count, np.float32),
        "has_heading": np.full(count, len(headings) > 0),
        "intrinsics": np.array(intrinsics, np.float32),
    }


def unchecked_bytes(record: dict) -> bytes:
    """A record as it is stored, wrong ones as well (`encode_record` would refuse them)."""
    example = tf_example_pb2.Example()
    for name, value in record.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes | str):
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
        elif value.dtype.kind == "f":
            feature.float_list.value.extend(value.ravel().tolist())
        else:
            feature.int64_list.value.extend(value.ravel().astype(int).tolist())
    return example.SerializeToString(deterministic=True)


def write_record_set(
    folder: Path,
    splits: Mapping[str, Sequence[dict]],
    *,
    shards: int = 1,
    label_names: Sequence[str] = ("head",),
) -> Path:
    """Writes a record set named tiny, each split in so many shards, and gives its folder."""
    folder.mkdir(parents=True)
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "tfrecord", "splits": []}
    for split, records in splits.items():
        parts = np.array_split(np.arange(len(records)), shards)
        for number, part in enumerate(parts):
            path = folder / f"tiny-{split}.tfrecord-{number:05d}-of-{shards:05d}"
            write_records(path, [unchecked_bytes(records[i]) for i in part])
        lengths = [str(len(part)) for part in parts]
        info["splits"].append({"name": split, "shardLengths": lengths})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    metadata = {"box_rule": "head", "label_names": list(label_names)}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def flip_a_bit(folder: Path, split: str, *, record: int) -> Path:
    """Damages the middle of a record of a split of one shard; its file."""
    (shard,) = folder.glob(f"*-{split}.tfrecord-*")
    offset, length = (int(v) for v in RecordSource(folder, split)._files[0].index[record])
    content = bytearray(shard.read_bytes())
    content[offset + length // 2] ^= 1
    shard.write_bytes(content)
    return shard
