"""What a record set says of itself."""

from dataclasses import dataclass

from mtnet_jax.errors import BadInput


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


def check_name(name: str) -> None:
    """Raises BadInput for a record set whose files could not be named after it."""
    if any(character in "/\\" or not character.isprintable() for character in name):
        raise BadInput(
            f"the name of the record set, {name!r}, holds a slash or a sign that cannot be seen, "
            "and its files begin with it: give another one with --name"
        )


def check_split(name: str, place: str) -> None:
    """Raises BadInput, with the place, for a split whose files could not be named after it."""
    if any(character in "/\\:" or not character.isprintable() for character in name):
        fault = "holds a slash, a colon or a sign that cannot be seen"
    elif not any(character.isalnum() for character in name):
        fault = "has no letter and no digit"
    else:
        return
    raise BadInput(f"{place}: the name {name!r} {fault}: call it train, test, valid, ...")
