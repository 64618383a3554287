"""What a converter hands to the builder. Imports nothing heavy, so that the command starts fast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.report import Report


@dataclass(frozen=True)
class Description:
    """What a record set says of itself.

    Attributes:
      name: lower case letters, digits and underscores.
      version: of the converter's output, "1.0.0".
      text: one or two sentences.
      box_rule: name of the rule that the boxes follow.
      label_names: name of each value of `labels`.
      homepage: where the raw data come from.
      citation: BibTeX or text.
      licence: as the publisher states it.
    """

    name: str
    version: str
    text: str
    box_rule: str
    label_names: tuple[str, ...]
    homepage: str
    citation: str
    licence: str


@dataclass(frozen=True)
class Conversion:
    """A data set ready to be written.

    Attributes:
      description: see `Description`.
      splits: name of the split -> its items, whatever `read` takes. One item is one picture.
      read: (item, report) -> a record (see `records.check_record`), or None to leave the picture
        out. It tells the report what it dropped and why.
    """

    description: Description
    splits: Mapping[str, Sequence[Any]]
    read: Callable[[Any, Report], dict | None]
