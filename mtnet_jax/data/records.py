"""Record sets on disk: their metadata, and random access to their records."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.camera import camera_to_ray
from mtnet_jax.data.example import CAMERA_FEATURE, decode_record, example_message
from mtnet_jax.data.index import SHARDS_AT_ONCE, index_path, read_index, scan_shards
from mtnet_jax.data.tfrecord import DamagedRecord, RecordFile
from mtnet_jax.errors import NOT_JSON, BadInput, BadRecord, MissingFile
from mtnet_jax.places import Place, inside, is_address, place, sizes_of_files

FRAMES = ("camera", "ray")
METADATA_KEYS = ("box_rule", "label_names")
# Of the environment: a folder of this machine for records that are read from addresses.
CACHE = "MTNET_RECORD_CACHE"
_LOOKED_AT = 1 << 16  # bytes of a shard at once


@dataclass(frozen=True)
class RecordSet:
    """What the metadata of a record set say. `RecordSet.open(path)` reads them.

    Attributes:
      path: the directory that holds dataset_info.json and the shards, of this machine or elsewhere.
      name: name of the data set.
      version: version of the converter's output.
      box_rule: name of the rule that the boxes follow ("head", "face", ...).
      label_names: name of each value of `labels`.
      shard_lengths: split -> number of records of each shard.
      citation: how to cite the source.
    """

    path: Place
    name: str
    version: str
    box_rule: str
    label_names: tuple[str, ...]
    shard_lengths: dict[str, tuple[int, ...]]
    citation: str

    @classmethod
    def open(cls, path: Any) -> "RecordSet":
        """Reads the metadata of a record set.

        Args:
          path: the builder directory, or one above it (`NAME` or the parent of `NAME/VERSION`); a
            folder, or an address that fsspec opens (gs://bucket/records).

        Raises:
          FileNotFoundError: no dataset_info.json there or one or two levels below.
          ValueError: several record sets lie below, or the metadata are not those of a record set.
        """
        directory = _builder_directory(place(path))
        info = _read_json(directory / "dataset_info.json")
        if info.get("fileFormat", "tfrecord") != "tfrecord":
            raise BadInput(
                f"{directory} is stored as {info['fileFormat']!r}; only 'tfrecord' can be read"
            )
        file = directory / "dataset_info.json"
        if not {"name", "version", "splits"} <= info.keys():
            raise BadInput(f"{file} has no name, version or splits: it is of no record set.")
        shard_lengths = _shard_lengths(info["splits"], file)
        for name in (info["name"], *shard_lengths):
            named = isinstance(name, str) and inside(name)
            if not named or "/" in name or "\\" in name:
                raise BadInput(f"{file} names {name!r}, which is no name of a file")
        metadata = _read_json(directory / "metadata.json")
        for key in METADATA_KEYS:
            if key not in metadata:
                raise BadInput(
                    f"{directory / 'metadata.json'} has no {key!r}: it was not written by "
                    "`mtnet data convert`"
                )
        rule, labels = metadata["box_rule"], metadata["label_names"]
        listed = labels if isinstance(labels, list) else [None]
        if not all(isinstance(name, str) for name in (rule, *listed)):
            raise BadInput(
                f"{directory / 'metadata.json'}: box_rule is {rule!r} and label_names are "
                f"{labels!r}, expected a name and a list of names: copy or convert the record set "
                "again"
            )
        return cls(
            path=directory,
            name=info["name"],
            version=info["version"],
            box_rule=rule,
            label_names=tuple(labels),
            shard_lengths=shard_lengths,
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

    def identity(self, split: str, *, whole: bool) -> str:
        """Digest that says which records a split holds, wherever they lie.

        Args:
          split: one there is.
          whole: looks at all bytes of the shards, so that any other label is noticed; else at their
            sizes and beginnings, which is quick for sets of any size.
        """
        about = [self.name, self.version, self.box_rule, self.label_names]
        digest = hashlib.sha256(json.dumps(about).encode())
        shards = self.shard_paths(split)
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            for shard, beginning in zip(shards, pool.map(_beginning, shards), strict=True):
                digest.update(beginning)
                if whole:
                    with shard.open("rb") as file:
                        file.seek(_LOOKED_AT)
                        while chunk := file.read(_LOOKED_AT):
                            digest.update(chunk)
        return digest.hexdigest()

    def index_path(self, split: str) -> Place:
        """The file of a split's index, which may not be there."""
        return index_path(self.path, self.name, split)

    def shard_paths(self, split: str) -> list[Place]:
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
        path: Any,
        split: str,
        *,
        decode: bool = True,
        label_ids: Sequence[int] | None = None,
        frame: str = "camera",
    ):
        """Opens a split and compares its files with the metadata.

        Args:
          path: directory of the record set (see `RecordSet.open`).
          split: name of a split, such as "train".
          decode: False leaves images encoded in the records that are returned.
          label_ids: what each label of the set becomes in them; None leaves labels as they are.
          frame: what rotations are relative to in them (`mtnet_jax.camera`): "camera" leaves them
            as stored, "ray" takes them to the ray frame where the intrinsics are known. Where they
            are not, a stored rotation counts as one in either frame.

        Raises:
          FileNotFoundError: no record set, or a shard is missing (named).
          ValueError: unknown split or frame, or a shard holds another number of records than it
            should.
          StaleIndex: the index of the split is damaged, or of other shards.
          DamagedRecord: see `tfrecord.index_file`.
        """
        if frame not in FRAMES:
            raise BadInput(f"Unknown frame {frame!r}: choose one of {FRAMES}.")
        self.record_set = RecordSet.open(path)
        # Imported by one thread, here: several decode, and importing this much in several at once,
        # beside a main thread that imports too, risks a deadlock (etils' lazy modules have a lock).
        example_message()
        self.split = split
        self.decode = decode
        self.frame = frame
        self._label_ids = None if label_ids is None else np.array(label_ids, np.int32)
        self._files = _open_shards(self.record_set, split)
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
            record = decode_record(data, decode=self.decode)
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


def _beginning(shard: Place) -> bytes:
    """The size of a shard and its first bytes, as an identity takes them in."""
    with shard.open("rb") as file:
        return str(shard.stat().st_size).encode() + file.read(_LOOKED_AT)


def _open_shards(record_set: RecordSet, split: str) -> list[RecordFile]:
    """The files of a split, compared with what metadata and index say of them."""
    shards, expected = record_set.shard_paths(split), record_set.shard_lengths[split]
    sizes = sizes_of_files(record_set.path)
    for shard in shards:
        if shard.name not in sizes:
            raise MissingFile(
                f"Shard {shard} of split {split!r} is missing ({len(shards)} shards): copy or "
                "convert the record set again."
            )
    index = record_set.index_path(split)
    if index.name in sizes:
        places = read_index(index, shards, sizes, expected)
    else:
        if is_address(record_set.path):
            print(
                f"{record_set.path} has no index of {split!r}, so the header of every record is "
                f"read: `mtnet data index {record_set.path}` writes one",
                file=sys.stderr,
            )
        places = scan_shards(shards)
    for shard, found, count in zip(shards, places, expected, strict=True):
        if len(found) != count:
            raise BadInput(
                f"Shard {shard} holds {len(found)} records, its dataset_info.json says "
                f"{count}: copy or convert the record set again."
            )
    cache = _cache_of(record_set, split, places)
    return [
        RecordFile(shard, found, cache and cache / shard.name)
        for shard, found in zip(shards, places, strict=True)
    ]


def _cache_of(record_set: RecordSet, split: str, places: Sequence[np.ndarray]) -> Path | None:
    """The folder of this machine for records of a split elsewhere, None where none is wanted.

    It is named by address and index: a set that was converted again has another.
    """
    folder = os.environ.get(CACHE, "")
    if not folder or not is_address(record_set.path):
        return None
    digest = hashlib.sha256(f"{record_set.path}:{split}".encode())
    for found in places:
        digest.update(found.tobytes())
    return Path(folder) / f"{record_set.name}-{digest.hexdigest()[:16]}"


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


def find_record_sets(path: Place) -> list[Place]:
    """Where record sets lie: the place itself, else one level below it, else two."""
    if (path / "dataset_info.json").exists():
        return [path]
    for pattern in ("*/", "*/*/"):
        found: list[Any] = sorted(path.glob(f"{pattern}dataset_info.json"), key=str)
        if found:
            return [file.parent for file in found]
    return []


def _shard_lengths(splits: Any, file: Place) -> dict[str, tuple[int, ...]]:
    """Split -> number of records of each shard, from the metadata."""
    try:
        return {split["name"]: tuple(map(int, split["shardLengths"])) for split in splits}
    except (KeyError, TypeError, ValueError):
        raise BadInput(
            f"{file}: field 'splits' does not say 'name' and 'shardLengths', whole numbers, of "
            "each split: copy or convert the record set again"
        ) from None


def _builder_directory(path: Place) -> Place:
    found = find_record_sets(path)
    if len(found) > 1:
        raise BadInput(
            f"{path} holds several record sets ({', '.join(map(str, found))}): name one of them"
        )
    if found:
        return found[0]
    raise MissingFile(
        f"No record set at {path} (no dataset_info.json there or below): make one with "
        "`mtnet data convert NAME --raw DIR --out DIR`."
    )


def _read_json(path: Place) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing: the record set is not complete") from None
    except NOT_JSON as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds no names and values: convert the record set again")
    return content
