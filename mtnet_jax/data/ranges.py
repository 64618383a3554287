"""Ranges of bytes of a file that lies anywhere: from this machine, from an address, from a cache.

A reader is `read(offset, size) -> bytes`, shorter at the end of the file. Readers can be pickled
and are safe to share between threads; what they open is opened on first use.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mtnet_jax.places import Address, Place

# Files that stay open in a process; any beyond are opened for each read. A process may commonly
# open 1,024, and a training set in hundreds of shards is one of several.
_KEPT_OPEN = threading.Semaphore(256)
_OPENING = threading.Lock()


class Ranges(Protocol):
    """What reads a range of a file."""

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`, `size` of them or up to the end of the file."""


def ranges_of(path: Place) -> Ranges:
    """A reader of a file, wherever it lies."""
    return LocalRanges(path) if isinstance(path, Path) else RemoteRanges(path)


class LocalRanges:
    """Ranges of a file of this machine."""

    def __init__(self, path: Path):
        self._path = path
        self._descriptor: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        descriptor = self._descriptor
        if descriptor is None:
            with _OPENING:
                if self._descriptor is None and _KEPT_OPEN.acquire(blocking=False):
                    self._descriptor = os.open(self._path, os.O_RDONLY)
                descriptor = self._descriptor
        if descriptor is not None:
            return pread_all(descriptor, size, offset)
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            return pread_all(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self):
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)
            _KEPT_OPEN.release()


class RemoteRanges:
    """Ranges of a file behind an address: one request each."""

    def __init__(self, path: Address):
        self._path = path

    def read(self, offset: int, size: int) -> bytes:
        return self._path.fs.cat_file(self._path.path, start=offset, end=offset + size)


class CachedRanges:
    """Ranges that are read once from elsewhere and then from a file of this machine.

    The copy is a file of the same length with holes. What a range holds says itself whether it is
    there: a hole, or a range that a kill cut short, is not `whole`. So nothing is kept beside the
    bytes, several processes may share a copy, and a cache can be removed at any time.
    """

    def __init__(self, source: Ranges, copy: Path, whole: Callable[[bytes], bool]):
        """Reads `source` by way of the file `copy`; `whole` tells whether a range is all there."""
        self._source, self._copy, self._whole = source, copy, whole
        self._usable = True

    def read(self, offset: int, size: int) -> bytes:
        try:
            descriptor = os.open(self._copy, os.O_RDONLY)
            try:
                block = pread_all(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError:  # not there yet, or a disk that fails: it is only a copy
            block = b""
        if len(block) == size and self._whole(block):
            return block
        block = self._source.read(offset, size)
        if self._usable and self._whole(block):
            self._keep(offset, block)
        return block

    def _keep(self, offset: int, block: bytes) -> None:
        try:
            self._copy.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._copy, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, block, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._usable = False
            print(f"{self._copy}: no longer cached ({error.strerror})", file=sys.stderr)


def pread_all(descriptor: int, size: int, offset: int) -> bytes:
    """os.pread until `size` bytes or the end of the file (one call may return less)."""
    block = os.pread(descriptor, size, offset)
    while len(block) < size:
        more = os.pread(descriptor, size - len(block), offset + len(block))
        if not more:
            break
        block += more
    return block
