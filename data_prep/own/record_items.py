"""Records of a record set as the items of another conversion."""

import argparse
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_prep.engine import arguments
from data_prep.engine.conversion import Description
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.errors import BadInput
from mtnet_jax.places import Place


@dataclass(frozen=True)
class RecordItem:
    """One record.

    Attributes:
      folder: of the record set.
      split: of the record.
      index: of the record in the split.
      shard: file of the record. It is there so that a conversion that goes on after a stop sees
        when the record set was made anew.
    """

    folder: str
    split: str
    index: int
    shard: Place


def add_splits(parser: argparse.ArgumentParser) -> None:
    """The option that chooses the splits of `record_items`."""
    parser.add_argument(
        "--splits",
        type=arguments.names,
        default=(),
        metavar="A,B",
        help="of --raw that are taken (default: all)",
    )


def record_items(record_set: RecordSet, splits: Sequence[str] = ()) -> dict[str, list[RecordItem]]:
    """Split -> its records, in order.

    Args:
      record_set: whose records they are.
      splits: that are taken; none: all.

    Raises:
      BadInput: there is no such split.
    """
    items: dict[str, list[RecordItem]] = {}
    if unknown := sorted(set(splits) - set(record_set.shard_lengths)):
        raise BadInput(
            f"{record_set.path} has no split {', '.join(unknown)}, but "
            f"{', '.join(record_set.shard_lengths)}."
        )
    for split in splits or record_set.shard_lengths:
        lengths = record_set.shard_lengths[split]
        shards = zip(record_set.shard_paths(split), lengths, strict=True)
        of_records = [shard for shard, count in shards for _ in range(count)]
        items[split] = [
            RecordItem(str(record_set.path), split, index, shard)
            for index, shard in enumerate(of_records)
        ]
    return items


def record_of(item: RecordItem, *, frame: str) -> dict:
    """The record itself, its image in bytes and its rotations in this frame."""
    return _source(item.folder, item.split, frame)[item.index]


def image_ids(items: Iterable[RecordItem], *, frame: str) -> list[str]:
    """Names of the records' images."""
    return [record_of(item, frame=frame)["image_id"] for item in items]


@functools.lru_cache(maxsize=8)
def _source(folder: str, split: str, frame: str) -> RecordSource:
    return RecordSource(folder, split, decode=False, frame=frame)


def description_of(record_set: RecordSet, name: str, text: str) -> Description:
    """The description of a record set called `name` that is made of another one."""
    return Description(
        name=name,
        version="1.0.0",
        text=text,
        box_rule=record_set.box_rule,
        label_names=record_set.label_names,
        homepage="",
        citation=record_set.citation,
        licence="",
    )
