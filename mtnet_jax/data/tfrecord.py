"""TFRecord files without TensorFlow: framing with checksums, an index of a file, random access.

A TFRecord file is a row of frames and nothing else. A frame is

    8 bytes   length of the data, unsigned, little-endian
    4 bytes   masked CRC-32C of those 8 bytes, little-endian
    length    the data
    4 bytes   masked CRC-32C of the data, little-endian

The mask turns the CRC right by 15 bits and adds a constant, so that data which hold CRCs themselves
do not weaken it. See the comment in tensorflow/core/lib/io/record_writer.h for the format.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from mtnet_jax.data.ranges import CachedRanges, Ranges, ranges_of
from mtnet_jax.errors import BadInput
from mtnet_jax.places import place

_MASK = 0xA282EAD8
_HEADER = struct.Struct("<QI")  # length, its masked checksum
_FOOTER = struct.Struct("<I")  # masked checksum of the data
_LENGTH = struct.Struct("<Q")
_FRAME = _HEADER.size + _FOOTER.size  # bytes of a frame besides its data


class DamagedRecord(BadInput):
    """A record that cannot be trusted: the message names file, record number and byte offset."""

    def __init__(self, path: Any, record: int, offset: int, fault: str):
        """All four are kept as arguments, so the exception survives pickling between processes."""
        super().__init__(str(path), record, offset, fault)
        self.path, self.record, self.offset, self.fault = str(path), record, offset, fault

    def __str__(self) -> str:
        return (
            f"{self.path}: record {self.record} (byte {self.offset}): {self.fault}. "
            "Copy or convert the record set again."
        )


def masked_crc32c(data: bytes) -> int:
    """The masked CRC-32C of TFRecord framing, as an unsigned 32-bit number."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record framed as it lies in the file: length, checksum, data, checksum."""
    length = _LENGTH.pack(len(data))
    return b"".join(
        [length, _FOOTER.pack(masked_crc32c(length)), data, _FOOTER.pack(masked_crc32c(data))]
    )


def framed_data(block: bytes) -> bytes | None:
    """The data of a block that is one whole frame; None where it is not as it was written."""
    return block[_HEADER.size : -_FOOTER.size] if _is_frame(block) else None


def write_records(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file.

    Args:
      path: the file, replaced if it exists.
      records: the data of each record.

    Returns:
      How many records were written.
    """
    count = 0
    with open(path, "wb") as file:
        for data in records:
            file.write(frame(data))
            count += 1
    return count


def index_file(path: Any) -> np.ndarray:
    """Finds every record of a file by reading the headers only.

    Args:
      path: a TFRecord file, or its address (a request a record: see `data.index`).

    Returns:
      (n, 2) int64: byte offset and length of the data of each record, checksums not included.

    Raises:
      DamagedRecord: a length fails its checksum, or the file ends inside a record.
      FileNotFoundError: no such file.
    """
    path = place(path)
    lengths: list[int] = []
    ranges, size = ranges_of(path), path.stat().st_size
    offset = 0
    while offset < size:
        header = ranges.read(offset, min(_HEADER.size, size - offset))
        end, fault = _frame_end(header, offset, size)
        if fault:
            raise DamagedRecord(path, len(lengths), offset, fault)
        lengths.append(end - offset - _FRAME)
        offset = end
    return places_of(np.array(lengths, np.int64))


def places_of(lengths: np.ndarray) -> np.ndarray:
    """(n, 2) int64 byte offset and length of the data of records of these lengths in a row."""
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths + _FRAME)
    return np.stack([ends - _FOOTER.size - lengths, lengths], axis=1)


def size_of(lengths: np.ndarray) -> int:
    """Bytes of a file of records of these lengths."""
    return int(lengths.astype(np.int64).sum()) + _FRAME * len(lengths)


def survey_file(path: str | os.PathLike) -> tuple[np.ndarray, list[DamagedRecord]]:
    """Finds the records of a file that may be damaged: goes on behind what `index_file` raises for.

    Behind a header that cannot be trusted the next record is where a length and its checksum agree.
    What lies between counts as one record, since nobody can say how many it was.

    Args:
      path: a TFRecord file.

    Returns:
      (n, 3) int64: number, byte offset and length of the data of each record found; and the faults.

    Raises:
      FileNotFoundError: no such file.
    """
    entries, faults = [], []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return np.zeros((0, 3), np.int64), []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            number = offset = 0
            while offset < size:
                end, fault = _frame_end(data[offset : offset + _HEADER.size], offset, size)
                if fault:
                    faults.append(DamagedRecord(path, number, offset, fault))
                    end = _next_frame(data, offset + 1)
                else:
                    start = offset + _HEADER.size
                    entries.append((number, start, end - _FOOTER.size - start))
                number, offset = number + 1, end
    return np.array(entries, np.int64).reshape(-1, 3), faults


def _frame_end(header: bytes, offset: int, size: int) -> tuple[int, str]:
    """Where the frame that begins with `header` ends in a file of `size` bytes, and its fault."""
    if len(header) < _HEADER.size:
        return size, f"the file ends after {len(header)} of {_HEADER.size} header bytes"
    length, checksum = _HEADER.unpack(header)
    if masked_crc32c(header[: _LENGTH.size]) != checksum:
        return size, "the checksum of its length does not match"
    end = offset + _HEADER.size + length + _FOOTER.size
    if end > size:
        return size, f"the file is cut short: {size} bytes, the record ends at {end}"
    return end, ""


def _next_frame(data: mmap.mmap, start: int) -> int:
    """Offset of the first frame from `start` on whose header can be trusted; the end if none."""
    # No record has 4 GB, so bytes 4 to 7 of its length are zero: that is quick to look for.
    found = data.find(bytes(4), start + 4)
    while found >= 0:
        offset = found - 4
        if not _frame_end(data[offset : offset + _HEADER.size], offset, len(data))[1]:
            return offset
        found = data.find(bytes(4), found + 1)
    return len(data)


class RecordFile:
    """Random access to one TFRecord file, wherever it lies. Picklable, safe to share in threads."""

    def __init__(self, path: Any, index: np.ndarray | None = None, cache: Path | None = None):
        """Opens a file by an index of it, by default that of `index_file` (which may raise).

        Args:
          path: the file, or its address.
          index: (n, 2) byte offset and length of the data of each record.
          cache: a file of this machine in which what was read is kept; None keeps nothing.
        """
        self.path = place(path)
        self.index = index_file(self.path) if index is None else index
        source = ranges_of(self.path)
        self._ranges: Ranges = source if cache is None else CachedRanges(source, cache, _is_frame)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> bytes:
        """The data of one record, its length and checksums verified.

        Raises:
          DamagedRecord: a checksum does not match, the index is of another file, or the file shrank
            since it was indexed.
          IndexError: no such record.
        """
        if not 0 <= number < len(self.index):
            raise IndexError(f"{self.path} has {len(self.index)} records, no record {number}")
        offset, length = (int(v) for v in self.index[number])
        start = offset - _HEADER.size
        block = self._ranges.read(start, _HEADER.size + length + _FOOTER.size)
        fault = _frame_fault(block, length)
        if fault:
            raise DamagedRecord(self.path, number, start, fault)
        return block[_HEADER.size : -_FOOTER.size]


def _frame_fault(block: bytes, length: int) -> str:
    """Why a block is not the frame of so many bytes of data; empty if it is."""
    if len(block) < _HEADER.size + length + _FOOTER.size:
        return "the file is cut short"
    stored, checksum = _HEADER.unpack_from(block)
    if masked_crc32c(block[: _LENGTH.size]) != checksum:
        return "the checksum of its length does not match, or the index is of other records"
    if stored != length:
        return f"it has {stored} bytes, the index says {length}"
    data = block[_HEADER.size : _HEADER.size + length]
    if masked_crc32c(data) != _FOOTER.unpack_from(block, _HEADER.size + length)[0]:
        return "the checksum of its data does not match"
    return ""


def _is_frame(block: bytes) -> bool:
    """Whether a block is one whole frame."""
    length = len(block) - _HEADER.size - _FOOTER.size
    return length >= 0 and not _frame_fault(block, length)
