"""DIR[:SPLIT], the way every command names records.

Without a split a command that learns takes `train`, one that measures takes `test`, and one that
looks takes all of them.
"""

from mtnet_jax.data.records import RecordSet
from mtnet_jax.places import Place, is_address, place


def parse_selection(text: str, default: str = "") -> tuple[Place, str]:
    """Takes DIR[:SPLIT] apart.

    Args:
      text: a folder, or a folder, a colon and the name of a split. A folder that exists is taken
        whole, colons in its name included. A folder may be an address (gs://bucket/set:train).
      default: the split where none is named.

    Returns:
      The folder, and the split (empty for all of them).
    """
    folder, colon, split = text.rpartition(":")
    if not colon or "/" in split or (not is_address(text) and place(text).is_dir()):
        return place(text), default
    return place(folder), split or default


def selected_splits(text: str) -> tuple[RecordSet, list[str]]:
    """The record set that DIR[:SPLIT] names, and its splits or the one that is named.

    Raises:
      FileNotFoundError, ValueError: see `RecordSet.open`.
    """
    path, split = parse_selection(text)
    record_set = RecordSet.open(path)
    return record_set, [split] if split else list(record_set.splits)
