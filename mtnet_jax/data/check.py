"""`mtnet data check`: every checksum and every label of record sets, every fault named.

Reading for training stops at the first fault. Here everything is looked at and nothing stops: a
record that is lost leaves the others to be checked.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mtnet_jax.data.records import BadRecord, RecordSet, decode_image, decode_record
from mtnet_jax.data.selection import selected_splits
from mtnet_jax.data.tfrecord import DamagedRecord, RecordFile, survey_file
from mtnet_jax.rotations import rotation_faults

# A box may reach out of the picture by the rounding of a float32, in pixels.
_SLACK = 0.01
_THREADS = os.cpu_count() or 1
_IN_FLIGHT = 8 * _THREADS  # records: memory stays flat


class Fault(NamedTuple):
    """What is wrong where.

    Attributes:
      kind: to count by: "box", "data checksum", ...
      file: the file it is in.
      record: number of the record in that file, from 0; None where no single one is meant.
      text: what is wrong, with the image_id where it is known.
    """

    kind: str
    file: Path
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
    """A record that was looked at; image_id is None where the record cannot be decoded."""

    file: Path
    record: int
    image_id: str | None
    heads: int
    faults: list[tuple[str, str]]  # kind, text


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

    def fault(kind: str, file: Path, record: int | None, text: str) -> None:
        tally.faults[kind] += 1
        tell(Fault(kind, file, record, text))

    try:
        record_set, splits = selected_splits(selection)
        shards = [shard for split in splits for shard in _shards(record_set, split)]
    except (OSError, ValueError) as error:
        fault("metadata", Path(selection), None, str(error))
        return tally
    except (KeyError, TypeError) as error:
        fault("metadata", Path(selection), None, f"dataset_info.json lacks {error}")
        return tally
    for path in _strangers(record_set):
        fault("unknown shard", path, None, "dataset_info.json does not name this file")

    seen: dict[str, str] = {}  # image_id -> where it was first
    expected = sum(length for _, length in shards)
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=expected, desc=record_set.name, unit="record") as bar,
    ):
        for path, length in shards:
            for kind, record, text, tasks in _survey(path, length):
                if kind:
                    fault(kind, path, record, text)
                for checked in _in_order(pool, tasks, len(record_set.label_names)):
                    bar.update()
                    tally.records += 1
                    tally.heads += checked.heads
                    for found in checked.faults:
                        fault(found[0], checked.file, checked.record, found[1])
    return tally
