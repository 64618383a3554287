"""What a record set says of itself."""

from dataclasses import dataclass


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
