"""DIR[:SPLIT], the way every command names records.

Without a split a command that learns takes `train`, one that measures takes `test`, and one that
looks takes all of them.
"""

from pathlib import Path

from mtnet_jax.data.records import RecordSet


def parse_selection(text: str, default: str = "") -> tuple[Path, str]:
    """Takes DIR[:SPLIT] apart.

    Args:
      text: a folder, or a folder, a colon and the name of a split. A folder that exists is taken
        whole, colons in its name included.
      default: the split where none is named.

    Returns:
      The folder, and the split (empty for all of them).
    """
    folder, colon, split = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), default
    return Path(folder), split or default


def selected_splits(text: str) -> tuple[RecordSet, list[str]]:
    """The record set that DIR[:SPLIT] names, and its splits or the one that is named.

    Raises:
      FileNotFoundError, ValueError: see `RecordSet.open`.
    """
    path, split = parse_selection(text)
    record_set = RecordSet.open(path)
    return record_set, [split] if split else list(record_set.splits)
