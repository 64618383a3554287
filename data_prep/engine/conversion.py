"""What a converter hands to the builder. Imports nothing heavy, so that the command starts fast."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.engine.description import Description, check_name, check_split
from data_prep.engine.report import Report
from mtnet_jax.errors import BadInput

__all__ = ["Conversion", "Description", "check_split"]


@dataclass(frozen=True)
class Conversion:
    """A data set ready to be written.

    Attributes:
      description: see `Description`.
      splits: name of the split -> its items, whatever `read` takes. An item is a unit of work: one
        image, or a run of frames of one video.
      notes: what was seen before the first item is read, such as files that are no images: event,
        place, how often.
      read: (item, report) -> the records of the item (see `records.check_record`), one after the
        other. It tells the report what it dropped and why. Items are read in several processes:
        they and `read` must be picklable (a function of a module, a partial of one).
    """

    description: Description
    splits: Mapping[str, Sequence[Any]]
    read: Callable[[Any, Report], Iterator[dict]]
    notes: Sequence[tuple[str, str, int]] = ()

    def __post_init__(self):
        check_name(self.description.name)
        alike: dict[str, str] = {}
        for split in self.splits:
            check_split(split, "a split")
            other = alike.setdefault(split.lower(), split)
            if other != split:
                raise BadInput(
                    f"the splits {other!r} and {split!r} differ in case alone: give them one name, "
                    "or two that no file system takes for the same"
                )
