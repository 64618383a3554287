"""The record: its schema, encoding, decoding, and random access to a set of records on disk.

A record is one picture with its heads (any number, none included), stored as a tf.train.Example in
TFRecord files that a tensorflow-datasets builder wrote; `docs/data.md` has the schema as a table.
This module is the one place that knows it. tensorflow_datasets (which brings the Example message,
and needs no TensorFlow for what is done here) is imported on first use, not on import.
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.camera import camera_to_ray
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.tfrecord import DamagedRecord, RecordFile
from mtnet_jax.errors import BadInput, BadRecord, MissingFile
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
# Of the whole picture: fx, fy, cx, cy in pixels of its camera; zeros where they are not known.
CAMERA_FEATURE = "intrinsics"
# What records of before these fields have instead of them.
_ABSENT = ("headings", "has_heading", CAMERA_FEATURE)
FRAMES = ("camera", "ray")
TEXT_FEATURES = ("image_id", "source")
_IDENTITY = np.eye(3, dtype=np.float32)
METADATA_KEYS = ("box_rule", "label_names")


def tfds_features() -> Any:
    """The schema as a `tfds.features.FeaturesDict`.

    Top-level tensors, not a Sequence of dicts, which decodes wrongly for a picture without heads.
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
        raise BadRecord(f"picture {image_id!r}, field {field!r}: {fault}")

    expected = {"image", *TEXT_FEATURES, CAMERA_FEATURE, *HEAD_FEATURES}
    for field in sorted(expected ^ set(record)):
        fail(field, "missing" if field in expected else "unknown to the schema")
    if not isinstance(record["image"], bytes) or not record["image"]:
        fail("image", "must be the bytes of an encoded picture (JPEG, PNG)")
    for field in TEXT_FEATURES:
        if not isinstance(record[field], str):
            fail(field, f"must be a str, is {type(record[field]).__name__}")
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
      record: see `check_record`; `image` is the encoded picture and is stored as it is.

    Returns:
      The serialized tf.train.Example.

    Raises:
      BadRecord: see `check_record`.
    """
    check_record(record)
    example = _example_message()[0]()
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


def decode_record(data: bytes, *, picture: bool = True) -> dict:
    """A record from the bytes of its tf.train.Example.

    Args:
      data: the serialized tf.train.Example.
      picture: False leaves the picture encoded, which is much faster.

    Returns:
      `image` (H, W, 3) uint8 RGB, or bytes with picture=False; `boxes` (n, 4) float32 xyxy pixels;
      `rotations` (n, 3, 3) float32; `has_pose` (n,) bool; `ignore` (n,) bool; `labels` (n,) int32;
      `headings` (n,) float32 degrees; `has_heading` (n,) bool; `intrinsics` (4,) float32;
      `image_id` and `source` str. Records written before headings and intrinsics have none.

    Raises:
      BadRecord: not an Example, a field is missing or of a wrong kind or length, or the picture
        cannot be decoded.
    """
    example_class, decode_error = _example_message()
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
                f"picture {image_id!r}, field {field!r}: {len(values)} numbers, "
                f"not a multiple of {size}"
            )
        record[field] = values.reshape(-1, *shape)
        if len(record[field]) != len(record["boxes"]):
            raise BadRecord(
                f"picture {image_id!r}, field {field!r}: {len(record[field])} entries for "
                f"{len(record['boxes'])} boxes"
            )
    intrinsics = np.zeros(4, np.float32)
    if CAMERA_FEATURE in features:
        intrinsics = np.array(_values(features, CAMERA_FEATURE, "float_list", image_id), np.float32)
        if intrinsics.shape != (4,):
            raise BadRecord(
                f"picture {image_id!r}, field {CAMERA_FEATURE!r}: {len(intrinsics)} numbers, not 4"
            )
    record[CAMERA_FEATURE] = intrinsics
    encoded = _single_bytes(features, "image", image_id)
    if not picture:
        return {"image": encoded, **record}
    try:
        return {"image": decode_image(encoded), **record}
    except BadRecord as error:
        raise BadRecord(f"picture {image_id!r}, field 'image': {error}") from error


@dataclass(frozen=True)
class RecordSet:
    """What the metadata of a record set say. `RecordSet.open(path)` reads them.

    Attributes:
      path: the directory that holds dataset_info.json and the shards.
      name: name of the data set.
      version: version of the converter's output.
      box_rule: name of the rule that the boxes follow ("head", "face", ...).
      label_names: name of each value of `labels`.
      shard_lengths: split -> number of records of each shard.
      citation: how to cite the source.
    """

    path: Path
    name: str
    version: str
    box_rule: str
    label_names: tuple[str, ...]
    shard_lengths: dict[str, tuple[int, ...]]
    citation: str

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RecordSet":
        """Reads the metadata of a record set.

        Args:
          path: the builder directory, or one above it (`NAME` or the parent of `NAME/VERSION`).

        Raises:
          FileNotFoundError: no dataset_info.json there or one or two levels below.
          ValueError: several record sets lie below, or the metadata are not those of a record set.
        """
        directory = _builder_directory(Path(path))
        info = _read_json(directory / "dataset_info.json")
        if info.get("fileFormat", "tfrecord") != "tfrecord":
            raise BadInput(
                f"{directory} is stored as {info['fileFormat']!r}; only 'tfrecord' can be read"
            )
        metadata = _read_json(directory / "metadata.json")
        for key in METADATA_KEYS:
            if key not in metadata:
                raise BadInput(
                    f"{directory / 'metadata.json'} has no {key!r}: it was not written by "
                    "`mtnet data convert`"
                )
        return cls(
            path=directory,
            name=info["name"],
            version=info["version"],
            box_rule=metadata["box_rule"],
            label_names=tuple(metadata["label_names"]),
            shard_lengths={
                split["name"]: tuple(int(n) for n in split["shardLengths"])
                for split in info["splits"]
            },
            citation=info.get("citation", ""),
        )

    @property
    def splits(self) -> dict[str, int]:
        """Number of records of each split."""
        return {split: sum(lengths) for split, lengths in self.shard_lengths.items()}

    def converted_counts(self, split: str) -> dict[str, int]:
        """Heads and such of a split, as the report of the conversion counted them; may be empty."""
        path = self.path / "conversion.json"
        return _read_json(path)["splits"].get(split, {}) if path.is_file() else {}

    def shard_paths(self, split: str) -> list[Path]:
        """Files of a split, in order.

        Raises:
          ValueError: no such split; the message lists those there are.
        """
        if split not in self.shard_lengths:
            raise BadInput(
                f"{self.path} has no split {split!r}: it has "
                + ", ".join(f"{name!r} ({count})" for name, count in self.splits.items())
            )
        count = len(self.shard_lengths[split])
        return [
            self.path / f"{self.name}-{split}.tfrecord-{i:05d}-of-{count:05d}" for i in range(count)
        ]


class RecordSource:
    """Random access to one split of a record set; a source for `grain.MapDataset.source`.

    `source[i]` is the decoded record i (see `decode_record`), `source.raw(i)` its bytes. Both
    verify the checksum. Picklable and safe to share between threads and processes.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str,
        *,
        picture: bool = True,
        label_ids: Sequence[int] | None = None,
        frame: str = "camera",
    ):
        """Opens a split and compares its files with the metadata.

        Args:
          path: directory of the record set (see `RecordSet.open`).
          split: name of a split, such as "train".
          picture: False leaves pictures encoded in the records that are returned.
          label_ids: what each label of the set becomes in them; None leaves labels as they are.
          frame: what rotations are relative to in them (`mtnet_jax.camera`): "camera" leaves them
            as stored, "ray" takes them to the ray frame where the intrinsics are known. Where they
            are not, a stored rotation counts as one in either frame.

        Raises:
          FileNotFoundError: no record set, or a shard is missing (named).
          ValueError: unknown split or frame, or a shard holds another number of records than it
            should.
          DamagedRecord: see `tfrecord.index_file`.
        """
        if frame not in FRAMES:
            raise BadInput(f"Unknown frame {frame!r}: choose one of {FRAMES}.")
        self.record_set = RecordSet.open(path)
        # Imported by one thread, here: several decode, and importing this much in several at once,
        # beside a main thread that imports too, risks a deadlock (etils' lazy modules have a lock).
        _example_message()
        self.split = split
        self.picture = picture
        self.frame = frame
        self._label_ids = None if label_ids is None else np.array(label_ids, np.int32)
        self._files = []
        paths = self.record_set.shard_paths(split)
        for shard, expected in zip(paths, self.record_set.shard_lengths[split], strict=True):
            if not shard.is_file():
                raise MissingFile(
                    f"Shard {shard} of split {split!r} is missing ({len(paths)} shards): copy or "
                    "convert the record set again."
                )
            file = RecordFile(shard)
            if len(file) != expected:
                raise BadInput(
                    f"Shard {shard} holds {len(file)} records, its dataset_info.json says "
                    f"{expected}: copy or convert the record set again."
                )
            self._files.append(file)
        self._starts = np.cumsum([0] + [len(file) for file in self._files])  # (shards + 1,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def raw(self, index: int) -> bytes:
        """The serialized tf.train.Example of a record; negative indices count from the end."""
        file, number = self._locate(index)
        return file[number]

    def __getitem__(self, index: int) -> dict:
        file, number = self._locate(index)
        data = file[number]
        try:
            record = decode_record(data, picture=self.picture)
            if self._label_ids is not None:
                record["labels"] = _renumbered(record["labels"], self._label_ids)
            if self.frame == "ray":
                record["rotations"] = _in_ray_frame(record)
            return record
        except BadRecord as error:
            offset = int(file.index[number, 0])
            raise DamagedRecord(file.path, number, offset, str(error)) from error

    def __repr__(self) -> str:
        # grain keeps it in its iterator state, to notice a changed source.
        return f"RecordSource({self.record_set.name}/{self.split}, {len(self)} records)"

    def _locate(self, index: int) -> tuple[RecordFile, int]:
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"{self!r} has no record {index}")
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._files[shard], position - int(self._starts[shard])


def _renumbered(labels: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    known = len(label_ids)
    if len(labels) and (labels.min() < 0 or labels.max() >= known):
        raise BadRecord(f"field 'labels': {labels.tolist()} with {known} label names")
    return label_ids[labels]


def _in_ray_frame(record: dict) -> np.ndarray:
    """The rotations of a record relative to the rays through its heads, where that is known."""
    rotations, posed = record["rotations"], record["has_pose"]
    if not (record[CAMERA_FEATURE].any() and posed.any()):
        return rotations
    turned = camera_to_ray(rotations, record["boxes"], record[CAMERA_FEATURE])
    return np.where(posed[:, None, None], turned, rotations).astype(np.float32)


@functools.cache
def _example_message() -> tuple[Any, type[Exception]]:
    """The Example message class and the exception of its parser."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example, DecodeError


def _values(features: Any, field: str, kind: str, image_id: str) -> Any:
    """The list of a feature, an empty one where the list was left out as protobuf may do."""
    if field not in features:
        raise BadRecord(f"picture {image_id!r}: field {field!r} is missing")
    stored = features[field].WhichOneof("kind")
    if stored not in (kind, None):
        raise BadRecord(f"picture {image_id!r}, field {field!r}: is a {stored}, not a {kind}")
    return getattr(features[field], kind).value


def _single_bytes(features: Any, field: str, image_id: str) -> bytes:
    values = _values(features, field, "bytes_list", image_id)
    if len(values) != 1:
        raise BadRecord(f"picture {image_id!r}, field {field!r}: {len(values)} values, not one")
    return values[0]


def _builder_directory(path: Path) -> Path:
    for pattern in ("", "*/", "*/*/"):
        found = sorted(path.glob(f"{pattern}dataset_info.json"))
        if len(found) > 1:
            raise BadInput(
                f"{path} holds several record sets ({', '.join(str(f.parent) for f in found)}): "
                "name one of them"
            )
        if found:
            return found[0].parent
    raise MissingFile(
        f"No record set at {path} (no dataset_info.json there or below): make one with "
        "`mtnet data convert NAME --raw DIR --out DIR`."
    )


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing: the record set is not complete") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error
