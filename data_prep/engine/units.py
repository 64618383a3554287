"""The first stage of a conversion: items are read in units of work, each written as one part.

A part is a TFRecord file with the records of a unit, and beside it a pickle, with the checksums of
a record, of their ids, their places in the file, digests of their images, and the report of the
unit. The pickle is written
last: a unit is done when it is there. A part that is there already, of the same items, options, raw
files and code (see `fingerprint`), is left as it is; that is how a conversion goes on after a stop.
"""

import contextlib
import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.fingerprint import code_fingerprint, fingerprint
from data_prep.engine.report import Report
from mtnet_jax.data.example import encode_record
from mtnet_jax.data.tfrecord import frame, framed_data
from mtnet_jax.errors import MissingFile

# Small units spread evenly over processes and lose little when they are stopped; many units cost
# files. An item may be one image or a run of frames.
_ITEMS = 32  # of a unit, where that gives neither few units nor too many
_FEW_UNITS = 64
_MOST_UNITS = 4096  # of a split
_BUFFER = 1 << 20  # bytes
# What the pickle of a part may name.
_OF_PARTS = {
    ("data_prep.engine.units", "Part"),
    ("data_prep.engine.description", "Description"),
    *(("data_prep.engine.report", name) for name in ("Report", "Events", "_events")),
    *(("collections", name) for name in ("Counter", "defaultdict", "OrderedDict")),
    *(("builtins", name) for name in ("list", "dict", "set", "frozenset", "int", "float")),
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *(("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")),
    ("numpy._core.numeric", "_frombuffer"),
    *(("pathlib", name) for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
}


@dataclass(frozen=True)
class Unit:
    """Some consecutive items of a split."""

    number: int
    split: str
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Part:
    """What is known of the records of a unit.

    Attributes:
      fingerprint: of all that the part depends on.
      size: of the TFRecord file, bytes.
      records: image_id, byte offset of its frame, length of its data, and 16 bytes of digest of its
        encoded image, of each record.
      report: of the unit.
    """

    fingerprint: str
    size: int
    records: list[tuple[str, int, int, bytes]]
    report: Report


@dataclass(frozen=True)
class Done:
    """What `UnitWriter` says of a unit.

    Attributes:
      items, images: how many there are.
      found: an earlier run had written the part, nothing was done.
      outdated: an earlier run had written it, from other options, raw files or code.
    """

    items: int
    images: int
    found: bool = False
    outdated: bool = False


def plan_units(conversion: Conversion) -> Iterator[Unit]:
    """Cuts the items of all splits into units, always in the same way."""
    number = 0
    for split, items in conversion.splits.items():
        size = _unit_size(len(items))
        for start in range(0, len(items), size):
            end = min(start + size, len(items))
            yield Unit(number, split, tuple(items[i] for i in range(start, end)))
            number += 1


def count_units(conversion: Conversion) -> int:
    """How many units `plan_units` yields."""
    return sum(-(-len(items) // _unit_size(len(items))) for items in conversion.splits.values())


def _unit_size(items: int) -> int:
    return max(1, min(_ITEMS, -(-items // _FEW_UNITS)), -(-items // _MOST_UNITS))


class UnitWriter:
    """Writes the part of a unit. Picklable; one call is all that a worker process does."""

    def __init__(self, conversion: Conversion, folder: Path):
        """Prepares to write the units of a conversion as parts in a folder."""
        self._description: Description = conversion.description
        self._read: Callable[[Any, Report], Iterator[dict]] = conversion.read
        self._folder = folder
        self._base = fingerprint(conversion.description, conversion.read, code_fingerprint())

    def __call__(self, unit: Unit) -> Done:
        """Reads the items of a unit and writes its part, unless it is there."""
        identity = fingerprint(self._base, unit.number, unit.split, unit.items)
        part = _load(self._folder, unit.number)
        if part and part.fingerprint == identity:
            return Done(len(unit.items), len(part.records), found=True)
        path = part_path(self._folder, unit.number)
        report, records, offset = Report(self._description), [], 0
        with written_whole(path) as file:
            for item in unit.items:
                for record in self._read(item, report):
                    data = encode_record(record)
                    report.keep(unit.split, record)
                    file.write(frame(data))
                    digest = hashlib.md5(record["image"]).digest()
                    records.append((record["image_id"], offset, len(data), digest))
                    offset = file.tell()
        with written_whole(path.with_suffix(".pickle")) as file:
            file.write(frame(pickle.dumps(Part(identity, offset, records, report))))
        return Done(len(unit.items), len(records), outdated=part is not None)


def load_part(folder: Path, number: int) -> Part:
    """The part of a unit that was written.

    Raises:
      FileNotFoundError: the part is not there, or not whole.
    """
    part = _load(folder, number)
    if part is None:
        raise MissingFile(
            f"{part_path(folder, number)} was removed while converting: run the same command again"
        )
    return part


def part_path(folder: Path, number: int) -> Path:
    """The TFRecord file of a unit."""
    return folder / f"{number:06d}.tfrecord"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its name only when all of it is written."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb", buffering=_BUFFER) as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


class _PartUnpickler(pickle.Unpickler):
    """Loads parts and what they consist of: a file that someone put there can call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _OF_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a part")
        return super().find_class(module, name)


def _load(folder: Path, number: int) -> Part | None:
    path = part_path(folder, number)
    try:
        # A damaged pickle can do anything: its checksums come first.
        content = framed_data(path.with_suffix(".pickle").read_bytes())
        if content is None:
            return None
        part = _PartUnpickler(io.BytesIO(content)).load()
        return part if path.stat().st_size == part.size else None
    except (FileNotFoundError, EOFError, pickle.UnpicklingError, AttributeError, ImportError):
        return None  # not written, cut short by a power failure, or of other code
