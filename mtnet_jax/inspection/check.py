"""`mtnet data check`: every checksum and every label of record sets, every fault named.

Reading for training stops at the first fault. Here everything is looked at and nothing stops: a
record that is lost leaves the others to be checked.
"""

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mtnet_jax.cpu.cores import usable_cores
from mtnet_jax.data.example import decode_record
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.index import StaleIndex, read_index
from mtnet_jax.data.records import RecordSet
from mtnet_jax.data.selection import selected_splits
from mtnet_jax.data.tfrecord import DamagedRecord, RecordFile, survey_file
from mtnet_jax.errors import BadRecord
from mtnet_jax.places import Place, fetched, place, sizes_of_files
from mtnet_jax.rotations import rotation_faults

# A box may reach out of the image by the rounding of a float32, in pixels.
_SLACK = 0.01
_THREADS = usable_cores()
_IN_FLIGHT = 8 * _THREADS  # records: memory stays flat


class Fault(NamedTuple):
    """What is wrong where.

    Attributes:
      kind: to count by: "box", "data checksum", ...
      file: the file it is in.
      record: number of the record in that file, from 0; None where no single one is meant.
      text: what is wrong.
    """

    kind: str
    file: Place
    record: int | None
    text: str

    def __str__(self) -> str:
        place = "" if self.record is None else f", record {self.record}"
        return f"{self.file}{place}: {self.kind}: {self.text}"


@dataclass
class Tally:
    """What was looked at, and how many faults of each kind there were."""

    records: int = 0
    heads: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.faults.most_common())
        found = f"{self.faults.total()} faults ({kinds})" if kinds else "no faults"
        return f"{self.records} records, {self.heads} heads: {found}"


class _Checked(NamedTuple):
    """What came of one record; image_id is None where it cannot be known."""

    number: int
    image_id: str | None
    heads: int
    faults: list[tuple[str, str]]  # kind and text


def print_check(data: Sequence[str]) -> int:
    """Checks record sets, prints every fault and the counts.

    Args:
      data: DIR[:SPLIT], all splits unless one is named.

    Returns:
      How many faults there are.
    """
    total = 0
    for entry in data:
        tally = check_records(entry, lambda fault: tqdm.write(str(fault)))
        print(f"{entry}: {tally}")
        total += tally.faults.total()
    return total


def check_records(selection: str, tell: Callable[[Fault], None]) -> Tally:
    """Checks a record set.

    Args:
      selection: DIR[:SPLIT], all splits unless one is named.
      tell: is called with every fault, in the order of the files.

    Returns:
      The counts.
    """
    tally = Tally()

    def fault(kind: str, file: Place, record: int | None, text: str) -> None:
        tally.faults[kind] += 1
        tell(Fault(kind, file, record, text))

    try:
        record_set, splits = selected_splits(selection)
        shards = [shard for split in splits for shard in _shards(record_set, split)]
    except (OSError, ValueError) as error:
        fault("metadata", place(selection), None, str(error))
        return tally
    for path in _strangers(record_set):
        fault("unknown shard", path, None, "dataset_info.json does not name this file")
    for split in splits:
        text = _index_fault(record_set, split)
        if text:
            fault("index", record_set.index_path(split), None, text)

    places: dict[str, str] = {}  # image_id -> where it was first
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=sum(n for _, n in shards), desc=record_set.name, unit="record") as bar,
    ):
        for path, length in shards:
            if not path.is_file():
                fault("missing shard", path, None, f"its {length} records are not there")
                continue
            with fetched(path) as here:  # every byte is read: in one piece
                index, damages = survey_file(here)
                for damage in damages:
                    fault("framing", path, damage.record, f"byte {damage.offset}: {damage.fault}")
                if len(index) + len(damages) != length:
                    text = f"{len(index)} can be found, dataset_info.json says {length}"
                    fault("number of records", path, None, text)
                check = functools.partial(
                    _check_record, RecordFile(here, index[:, 1:]), len(record_set.label_names)
                )
                for checked in _in_order(pool, check, enumerate(index[:, 0].tolist())):
                    bar.update()
                    tally.records += 1
                    tally.heads += checked.heads
                    for kind, text in checked.faults:
                        fault(kind, path, checked.number, text)
                    if checked.image_id is not None:
                        stands = f"{path}, record {checked.number}"
                        first = places.setdefault(checked.image_id, stands)
                        if first != stands:
                            text = f"{checked.image_id!r} is also the image_id of {first}"
                            fault("image_id", path, checked.number, text)
    return tally


def label_faults(
    record: dict[str, Any], size: tuple[int, int] | None, label_count: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with the labels of a record.

    Args:
      record: decoded, with or without its image.
      size: width and height of the image, None where it cannot be decoded.
      label_count: labels run from 0 to label_count - 1.

    Yields:
      Kind ("box", "rotation", "heading", "label", "intrinsics", "image_id") and text of each fault.
    """
    if not record["image_id"]:
        yield "image_id", "is empty"
    intrinsics = record["intrinsics"]
    if not np.isfinite(intrinsics).all() or (intrinsics.any() and intrinsics[:2].min() <= 0):
        yield "intrinsics", f"{intrinsics.tolist()}: not those of a camera, nor zeros"
    boxes = record["boxes"]
    for i, box in enumerate(boxes.tolist()):
        if not np.isfinite(box).all():
            yield "box", f"head {i} has {box}: not finite"
        elif box[2] <= box[0] or box[3] <= box[1]:
            yield "box", f"head {i} has {box}: without area"
        elif size is not None and not _inside(box, size):
            yield "box", f"head {i} has {box}: reaches out of the image, {size[0]}x{size[1]}"
    unlike_identity = (record["rotations"] != np.eye(3)).any(axis=(1, 2))
    for i, matrix in enumerate(record["rotations"]):
        if rotation_faults(matrix):
            yield "rotation", f"head {i} has {matrix.tolist()}: {_rotation_fault(matrix)}"
        elif unlike_identity[i] and not record["has_pose"][i]:
            yield "rotation", f"head {i} has no pose, but its matrix is not the identity"
    for i, heading in enumerate(record["headings"].tolist()):
        if not abs(heading) <= 180:  # NaN too
            yield "heading", f"head {i} has {heading:g}: not within +-180 degrees"
        elif heading and not record["has_heading"][i]:
            yield "heading", f"head {i} has no heading, but {heading:g} is not 0"
    strange = (record["labels"] < 0) | (record["labels"] >= label_count)
    for i in np.flatnonzero(strange).tolist():
        yield "label", f"head {i} has {record['labels'][i]}, not within 0 to {label_count - 1}"


def _check_record(file: RecordFile, label_count: int, which: tuple[int, int]) -> _Checked:
    """Checks one record; `which` is its position in the file's index and its number."""
    position, number = which
    try:
        data = file[position]
    except DamagedRecord as damage:
        return _Checked(number, None, 0, [("data checksum", damage.fault)])
    try:
        record = decode_record(data, decode=False)
    except (ValueError, OverflowError) as error:
        return _Checked(number, None, 0, [("schema", str(error))])
    name = f"image {record['image_id']!r}"
    faults, size = [], None
    try:
        size = decode_image(record["image"]).shape[1::-1]
    except BadRecord as error:
        faults.append(("image", f"{name}: {error}"))
    faults += [(k, f"{name}: {text}") for k, text in label_faults(record, size, label_count)]
    return _Checked(number, record["image_id"], len(record["boxes"]), faults)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """As pool.map, but only a few items ahead of the one that is asked for."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == _IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _index_fault(record_set: RecordSet, split: str) -> str:
    """Why the index of a split cannot be used; empty where it can, or where there is none."""
    path, shards = record_set.index_path(split), record_set.shard_paths(split)
    sizes = sizes_of_files(record_set.path)
    if path.name not in sizes or not all(shard.name in sizes for shard in shards):
        return ""  # a missing shard is named by itself
    try:
        read_index(path, shards, sizes, record_set.shard_lengths[split])
    except StaleIndex as error:
        return str(error)
    return ""


def _shards(record_set: RecordSet, split: str) -> list[tuple[Place, int]]:
    paths = record_set.shard_paths(split)
    return list(zip(paths, record_set.shard_lengths[split], strict=True))


def _strangers(record_set: RecordSet) -> list[Place]:
    """TFRecord files beside the shards that belong to no split."""
    known = {path for split in record_set.splits for path in record_set.shard_paths(split)}
    return sorted(path for path in record_set.path.glob("*.tfrecord*") if path not in known)


def _inside(box: list[float], size: tuple[int, int]) -> bool:
    return min(box[:2]) >= -_SLACK and box[2] <= size[0] + _SLACK and box[3] <= size[1] + _SLACK


def _rotation_fault(matrix: np.ndarray) -> str:
    if not np.isfinite(matrix).all():
        return "not finite"
    matrix = matrix.astype(np.float64)
    off = np.abs(matrix.T @ matrix - np.eye(3)).max()
    return f"R^T R is off the identity by {off:.3g}, the determinant is {np.linalg.det(matrix):.3g}"
