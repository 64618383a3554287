"""The second stage of a conversion: the records of all parts, shuffled, become the shards.

Only an index of the records is held in memory (about 200 bytes for each). Their order is that of
tensorflow-datasets: by the MD5 of split name and image_id; so are number and length of the shards.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.utils import shard_utils

from data_prep.engine.report import PLACES_KEPT, Report
from data_prep.engine.units import load_part, part_path, written_whole
from mtnet_jax.data.tfrecord import frame, framed_data
from mtnet_jax.errors import BadInput

_HASH = [("high", np.uint64), ("low", np.uint64)]  # 128 bits
_FRAME = len(frame(b""))  # bytes of a frame besides its data: length, checksum, checksum
SHARED = "WARNING: images in more than one split, byte for byte"
REPEATED = "images that a split has already, byte for byte"
_PLACE = [("part", np.uint32), ("offset", np.uint64), ("length", np.uint64)]


@dataclass(frozen=True)
class Shard:
    """A shard to be written: its file and the places of its records, in order."""

    path: Path
    places: np.ndarray  # (n,) part, offset of the frame, length of the data


class Index:
    """Where the records of every split lie in the parts, and the merged report."""

    def __init__(self, folder: Path, units: Iterable[tuple[int, str]], report: Report):
        """Reads what the parts say of themselves.

        Args:
          folder: of the parts.
          units: number and split of each unit.
          report: to which those of the parts are added, and images that are there twice.

        Raises:
          ValueError: two images have one image_id.
        """
        self._folder = folder
        keys: dict[str, list[np.ndarray]] = {}
        places: dict[str, list[np.ndarray]] = {}
        ids, images, units = [], [], list(units)
        for number, split in units:
            part = load_part(folder, number)
            report.merge(part.report)
            hasher = Hasher(split)
            ids.append(_hashes(_plain_hash(name) for name, *_ in part.records))
            images.append(_hashes(int.from_bytes(digest) for *_, digest in part.records))
            keys.setdefault(split, []).append(
                _hashes(hasher.hash_key(name) for name, *_ in part.records)
            )
            places.setdefault(split, []).append(
                np.array([(number, *place) for _, *place, _ in part.records], _PLACE)
            )
        self._note_same_images(images, units, report)
        self._refuse_two_of_one_id(ids, [number for number, _ in units])
        self.places = {
            split: np.concatenate(places[split])[_order(np.concatenate(keys[split]))]
            for split in places
        }

    def sizes(self, split: str) -> tuple[int, int]:
        """Number of records of a split and bytes of their data."""
        return len(self.places[split]), int(self.places[split]["length"].sum())

    def shards(self, split: str) -> list[np.ndarray]:
        """The places of the records of each shard of a split."""
        count, size = self.sizes(split)
        shards = shard_utils.ShardConfig().get_number_shards(size, count)
        ends = shard_utils.get_shard_boundaries(count, shards)
        return np.split(self.places[split], ends[:-1])

    def _note_same_images(
        self, digests: list[np.ndarray], units: list[tuple[int, str]], report: Report
    ) -> None:
        """Tells the report of images that are there twice: what was trained on tests nothing."""
        for copies in _same(digests):
            of_split: dict[str, list[tuple[int, int]]] = {}
            for unit, row in copies:
                number, split = units[unit]
                of_split.setdefault(split, []).append((number, row))
            if len(of_split) > 1:
                firsts = [(split, *places[0]) for split, places in of_split.items()]
                self._note(SHARED, firsts, 1, report)
            for split, places in of_split.items():
                if again := len(places) - 1:
                    same = [(split, *place) for place in places]
                    self._note(REPEATED, same, again, report)

    def _note(
        self, event: str, copies: list[tuple[str, int, int]], count: int, report: Report
    ) -> None:
        """Notes copies of an image, by the split, the number of the part and the row of each."""
        places = []
        if len(report.notes.get(event, ())) < PLACES_KEPT:  # each is a file to be read
            names = [
                f"{load_part(self._folder, number).records[row][0]} ({split})"
                for split, number, row in copies[:PLACES_KEPT]
            ]
            more = len(copies) - len(names)
            places.append(" and ".join([*names, f"{more} more"] if more else names))
        report.notes.add(event, *places, count=count)

    def _refuse_two_of_one_id(self, ids: list[np.ndarray], units: list[int]) -> None:
        everything = np.concatenate([np.zeros(0, _HASH), *ids])
        everything = everything[np.lexsort((everything["low"], everything["high"]))]
        same = everything[1:][everything[1:] == everything[:-1]]
        if not len(same):
            return
        for number, hashes in zip(units, ids, strict=True):
            for i in np.flatnonzero(hashes == same[0]):
                name = load_part(self._folder, number).records[i][0]
                raise BadInput(
                    f"Two images have the image_id {name!r}: give their files other names."
                )


class ShardWriter:
    """Copies the records of a shard out of the parts. Picklable."""

    def __init__(self, folder: Path):
        """Reads from the parts of a folder."""
        self._folder = folder

    def __call__(self, shard: Shard) -> int:
        """Writes a shard and returns how many records it has.

        Raises:
          BadInput: a record of a part fails its checksum.
        """
        with written_whole(shard.path) as file:
            for record in self._frames(shard):
                file.write(record)
            file.flush()
            os.fsync(file.fileno())  # a disk that fails to write tells it here at the latest
        return len(shard.places)

    def _frames(self, shard: Shard) -> Iterator[bytes]:
        for number, offset, length in shard.places.tolist():
            path = part_path(self._folder, number)
            # Opened anew for each record: there may be more parts than files that may be open.
            with open(path, "rb") as part:
                part.seek(offset)
                block = part.read(length + _FRAME)
            if framed_data(block) is None:
                path.with_suffix(".pickle").unlink(missing_ok=True)  # so that it is written anew
                raise BadInput(
                    f"{path}: the record at byte {offset} is not as it was written (does the disk "
                    "fail?): run the same command again, which makes this part anew"
                )
            yield block


def _same(digests: list[np.ndarray]) -> Iterator[list[tuple[int, int]]]:
    """Number of the unit, and in it, of each record of an image that several records have."""
    everything = np.concatenate([np.zeros(0, _HASH), *digests])
    order = _order(everything)
    starts = np.cumsum([0, *map(len, digests)])
    # Where the digests differ from those before; a group runs from one such place to the next.
    borders = np.flatnonzero(everything[order[1:]] != everything[order[:-1]]) + 1
    firsts, ends = np.r_[0, borders], np.r_[borders, len(order)]
    several = ends - firsts > 1
    for first, end in zip(firsts[several].tolist(), ends[several].tolist(), strict=True):
        group = order[first:end]
        units = np.searchsorted(starts, group, side="right") - 1
        yield list(zip(units.tolist(), (group - starts[units]).tolist(), strict=True))


def _order(keys: np.ndarray) -> np.ndarray:
    return np.lexsort((keys["low"], keys["high"]))


def _plain_hash(image_id: str) -> int:
    return int.from_bytes(hashlib.md5(image_id.encode()).digest())


def _hashes(values: Iterable[int]) -> np.ndarray:
    mask = (1 << 64) - 1
    return np.array([(value >> 64, value & mask) for value in values], _HASH)
