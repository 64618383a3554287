"""The index of a split: where every record lies, read in one piece instead of header by header.

`NAME-SPLIT.index` lies beside the shards. It holds

    mtnet-index 1\n
    {"shards": [["NAME-SPLIT.tfrecord-00000-of-00002", records, bytes], ...]}\n    as JSON
    the length of the data of every record, 4 bytes each, unsigned, little-endian
    the masked CRC-32C of all before, 4 bytes, little-endian

Frames of TFRecord lie in a row, so lengths say where each begins. An index is used only if its
checksum matches, it names the shards that the metadata name, and each shard has the size that its
lengths give; reading a record then checks its own length and checksum against it. A split
without an index, written before there was one, is read header by header.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mtnet_jax.data.tfrecord import index_file, masked_crc32c, places_of, size_of
from mtnet_jax.errors import NOT_JSON, BadInput
from mtnet_jax.places import Place, write_whole

MAGIC = b"mtnet-index 1\n"
_LENGTHS = np.dtype("<u4")
_FOOTER = struct.Struct("<I")
SHARDS_AT_ONCE = 16  # that are looked at: elsewhere each is a request


class StaleIndex(BadInput):
    """An index that is damaged or of other shards; the message says how to make it anew."""

    @classmethod
    def at(cls, path: Place, fault: str) -> "StaleIndex":
        """The exception for an index and its fault."""
        cure = f"`mtnet data index {path.parent}` makes it anew from the shards"
        return cls(f"{path} {fault}: {cure}.")


def index_path(folder: Place, name: str, split: str) -> Place:
    """The file of the index of a split."""
    return folder / f"{name}-{split}.index"


def encode_index(shards: Iterable[tuple[str, np.ndarray]]) -> bytes:
    """The content of an index: name of each shard and lengths of its records, in order."""
    shards = list(shards)
    table = [[name, len(lengths), size_of(lengths)] for name, lengths in shards]
    body = b"".join(lengths.astype(_LENGTHS).tobytes() for _, lengths in shards)
    content = MAGIC + json.dumps({"shards": table}).encode() + b"\n" + body
    return content + _FOOTER.pack(masked_crc32c(content))


def decode_index(path: Place, content: bytes) -> list[tuple[str, np.ndarray]]:
    """Name of each shard and the lengths (n,) of its records.

    Raises:
      StaleIndex: it is damaged.
    """
    if not content.startswith(MAGIC):
        raise StaleIndex.at(path, "is no index of records")
    if masked_crc32c(content[: -_FOOTER.size]) != _FOOTER.unpack(content[-_FOOTER.size :])[0]:
        raise StaleIndex.at(path, "is damaged, its checksum does not match")
    head, _, body = content[len(MAGIC) : -_FOOTER.size].partition(b"\n")
    try:
        table = json.loads(head)["shards"]
        ends = np.cumsum([records for _, records, _ in table])
        lengths = np.split(np.frombuffer(body, _LENGTHS), ends[:-1])
        return list(zip((row[0] for row in table), lengths, strict=True))
    except (*NOT_JSON, KeyError, TypeError, ValueError) as error:
        raise StaleIndex.at(path, f"has no table of shards ({type(error).__name__})") from error


def read_index(
    path: Place, shards: Sequence[Place], sizes: dict[str, int], records: Sequence[int]
) -> list[np.ndarray]:
    """Where the records of each shard lie.

    Args:
      path: the file of the index.
      shards: of the split, in order.
      sizes: bytes of the files that lie there.
      records: how many the metadata say each shard has.

    Returns:
      (n, 2) int64 byte offset and length for each shard.

    Raises:
      StaleIndex: it is damaged, or of other shards than lie there.
    """
    found = decode_index(path, path.read_bytes())
    if [name for name, _ in found] != [shard.name for shard in shards]:
        raise StaleIndex.at(path, f"names other shards than the {len(shards)} of the metadata")
    for (name, lengths), count in zip(found, records, strict=True):
        said = f"has {len(lengths)} records of {name}, dataset_info.json says {count}"
        if size_of(lengths) == sizes[name]:
            if len(lengths) == count:
                continue
            raise StaleIndex(f"{path} {said}, and fits the shard: copy or convert the set again.")
        if len(lengths) != count:
            raise StaleIndex.at(path, said)
        shorter = sizes[name] < size_of(lengths)
        short = ", cut short (copy it again) or of other records" if shorter else ""
        raise StaleIndex.at(
            path, f"is of a {name} of {size_of(lengths)} bytes, which has {sizes[name]}{short}"
        )
    return [places_of(lengths) for _, lengths in found]


def scan_shards(shards: Sequence[Place]) -> list[np.ndarray]:
    """What `read_index` returns, from the headers of all records; slow where each is a request.

    Raises:
      DamagedRecord: see `tfrecord.index_file`.
    """
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        return list(pool.map(index_file, shards))


def write_index(path: Place, shards: Sequence[Place]) -> int:
    """Makes the index of a split from its shards; returns how many records it has.

    Raises:
      DamagedRecord: see `tfrecord.index_file`.
    """
    found = scan_shards(shards)
    lengths = (places[:, 1] for places in found)
    write_whole(path, encode_index(zip((s.name for s in shards), lengths, strict=True)))
    return sum(map(len, found))
