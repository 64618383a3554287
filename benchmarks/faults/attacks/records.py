"""Record sets: lengths and names that lie."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.attacks.attack import Attack, deep_list
from mtnet_jax.data.index import MAGIC, index_path
from mtnet_jax.data.tfrecord import frame, masked_crc32c, write_records


def _set(folder: Path, *, name: str = "tiny", image_id: str = "image 0") -> Path:
    """A record set of one record; returns its shard."""
    import cv2

    from mtnet_jax.data.example import encode_record
    from mtnet_jax.data.index import encode_index

    record: dict[str, Any] = {
        "image": cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(),
        "image_id": image_id,
        "source": "hostile",
        "boxes": np.array([[0, 0, 4, 4]], np.float32),
        "rotations": np.eye(3, dtype=np.float32)[None],
        "intrinsics": np.zeros(4, np.float32),
        "headings": np.zeros(1, np.float32),
        "labels": np.zeros(1, np.int32),
    } | {flag: np.zeros(1, bool) for flag in ("has_pose", "ignore", "has_heading")}
    data = encode_record(record)
    info = {"name": name, "version": "1.0.0", "splits": [{"name": "a", "shardLengths": ["1"]}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "metadata.json").write_text('{"box_rule": "head", "label_names": ["head"]}')
    shard = folder / f"{name}-a.tfrecord-00000-of-00001"
    if shard.parent == folder:
        write_records(shard, [data])
        lengths = np.array([len(data)])
        index_path(folder, name, "a").write_bytes(encode_index([(shard.name, lengths)]))
    return shard


def _index_of(folder: Path, head: str) -> None:
    _set(folder)
    content = MAGIC + head.encode() + b"\n"
    content += struct.pack("<I", masked_crc32c(content))
    index_path(folder, "tiny", "a").write_bytes(content)


def _huge_index(folder: Path) -> None:
    shard = "tiny-a.tfrecord-00000-of-00001"
    _index_of(folder, json.dumps({"shards": [[shard, 10**12, 10**12]]}))


def _deep_index(folder: Path) -> None:
    _index_of(folder, f'{{"shards": {deep_list()}}}')


def _huge_record(folder: Path) -> None:
    shard = _set(folder)
    index_path(folder, "tiny", "a").unlink()
    length = struct.pack("<Q", 2**62)
    shard.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + frame(b"")[12:])


def _deep_info(folder: Path) -> None:
    _set(folder)
    (folder / "dataset_info.json").write_text(deep_list())


def _named_outside(folder: Path) -> None:
    _set(folder, name="../../x")


def _id_outside(folder: Path) -> None:
    _set(folder, image_id="../../x")


def _records(folder: Path) -> Any:
    from mtnet_jax.data.records import RecordSource

    return RecordSource(folder, "a")[0]["image"].shape


def _extract(folder: Path) -> Any:
    from mtnet_jax.inspection.extract import write_images

    return write_images(str(folder), folder / "images")


ATTACKS = [
    Attack("index of 10^12 records", _huge_index, _records),
    Attack("index whose header is 200,000 lists deep", _deep_index, _records),
    Attack("record of 2^62 bytes with a good checksum", _huge_record, _records),
    Attack("dataset_info.json 200,000 lists deep", _deep_info, _records),
    Attack("record set of the name ../../x", _named_outside, _records),
    Attack("image_id ../../x", _id_outside, _extract),
]
