"""Own data in a table: one row a head, saved as CSV (comma-separated, UTF-8).

    image,x1,y1,x2,y2,yaw,pitch,roll,convention
    summer/garden party.jpg,120,40,180,118,30,-5,0,canonical
    summer/garden party.jpg,300,52,350,120,,,,
    summer/empty lawn.jpg,,,,,,,,

`image` is a path below --raw, the box is in pixels (left, top, right, bottom), the angles are in
degrees. Several rows of one image are several heads; empty angles are a head without a pose, an
empty box is an image without heads. More columns, if there is need: `heading` (degrees, where the
face looks seen from above: the canonical yaw of a level head, for heads of which no more is known),
`label`, `ignore` (1: neither a head to find nor background), `split`, `group` (who or what must not
lie in two splits).
"""

import argparse
import csv
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.engine.conversion import Conversion, Description, check_split
from data_prep.own.camera import UNKNOWN, Camera
from data_prep.own.dialects import (
    CONFIDENCES,
    EMPTY,
    NOT_AVAILABLE,
    NOTHING,
    file_name,
    flag,
    name_below,
    number,
    read_text,
)
from data_prep.own.groups import add_test_share_argument, folder_of, share_out
from data_prep.own.labelled import (
    LabelledHead,
    LabelledImage,
    add_camera_arguments,
    add_missing_argument,
    add_own_data_arguments,
    all_labels,
    check_angles,
    check_box,
    check_convention,
    check_heading,
    conventions_text,
    counted,
    find_image,
    map_labels,
    notes_of,
    read_labelled,
    require_images,
    require_one_name,
)
from mtnet_jax.errors import BadInput, MissingFile

BOX = ("x1", "y1", "x2", "y2")
ANGLES = ("yaw", "pitch", "roll")
REQUIRED = ("image", *BOX)
WORDS = ("image", "label", "group")  # columns in which `none` or `null` may be a name
OPTIONAL = (*ANGLES, "convention", "heading", "label", "ignore", "split", "group")
DEFAULT_LABEL = "head"
INDEX = ""  # name of the first column as pandas writes it unless it is told not to


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: its image, and its head or None."""

    place: str
    image: str
    head: LabelledHead | None
    split: str
    group: str | None  # None: the table has no such column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert csv`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Names in the column convention:\n{conventions_text()}"
    parser.add_argument(
        "--csv",
        type=Path,
        default=Path("heads.csv"),
        metavar="FILE",
        help="the table, a path below --raw (default: heads.csv)",
    )
    add_test_share_argument(
        parser,
        "column group, else the folder of the image",
        "the column split, else all in train",
    )
    add_own_data_arguments(parser)
    add_camera_arguments(parser)
    add_missing_argument(parser)


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(
        args.raw,
        args.raw / args.csv,
        name=args.name or args.out.name,
        test_share=args.test_share,
        box_rule=args.box_rule,
        label_map=args.label_map,
        allow_missing=args.allow_missing,
        camera=Camera(args.fov, args.intrinsics),
    )


def conversion(
    raw: Path,
    table: Path,
    *,
    name: str,
    test_share: float | None = None,
    box_rule: str = "head",
    label_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    camera: Camera = UNKNOWN,
) -> Conversion:
    """A table of heads as a data set to be written.

    Args:
      raw: folder that the paths in the table start from.
      table: the CSV file.
      name: name of the record set and source of its records.
      test_share: share of the groups that goes into the split "test"; None: the column `split`, or
        all in "train" where there is none.
      box_rule: name of the rule the boxes follow, for instance "head".
      label_map: label -> new label; labels that are not named are dropped. None keeps all.
      allow_missing: leave out images that are not on disk instead of raising.
      camera: that the angles are relative to, see `read_labelled`.

    Returns:
      The conversion.

    Raises:
      FileNotFoundError: no table, or images are missing.
      ValueError: a table that cannot be understood (line, column and cure are named), or groups
        that cannot be split so.
    """
    rows = read_table(table)
    swapped = _swapped(rows)
    images = _images(rows, raw)
    require_images(list(images.values()), raw, allow_missing=allow_missing)
    require_one_name(images.values(), str(table))
    split_of = _splits(rows, images, raw, table, test_share)
    splits: dict[str, list[LabelledImage]] = {}
    for path, labelled in images.items():
        splits.setdefault(split_of[path], []).append(labelled)
    labels = all_labels(splits)
    if not labels:
        raise BadInput(f"{table}: every box is empty, so there are no heads to learn from")
    label_names, classes = map_labels(labels, label_map, str(table))
    description = Description(
        name=name,
        version="1.0.0",
        text=f"{name}, from a table of heads.",
        box_rule=box_rule,
        label_names=label_names,
        homepage="",
        citation="",
        licence="",
    )
    read = functools.partial(read_labelled, source=name, classes=classes, camera=camera)
    return Conversion(description, splits, read, [*swapped, *notes_of(splits, [raw])])


def read_table(path: Path) -> list[Row]:
    """The rows of a table of heads.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8, not comma-separated, an unknown or missing column, or a cell that
        cannot be understood; names line, column and cure.
    """
    if not path.is_file():
        raise MissingFile(f"{path} is missing: --csv names the table, by its path below --raw")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(columns, path)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            place = f"{path}, line {reader.line_num}"
            if len(cells) != len(columns):
                raise BadInput(
                    f"{place}: {len(cells)} cells for {len(columns)} columns: a name with a comma "
                    "must stand in double quotes, an empty cell keeps its comma"
                )
            named = {c: _cell(c, text) for c, text in zip(columns, cells, strict=True)}
            rows.append(_row(named, place))
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise BadInput(f"{path} has no rows below its header")
    return rows


def _check_columns(columns: Sequence[str], path: Path) -> None:
    header = f"{path}, line 1"
    for mark, plural in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            raise BadInput(
                f"{header}: the columns are separated by {plural}: save the table with commas "
                "between columns and a point in decimal numbers"
            )
    for column in REQUIRED:
        if column not in columns:
            raise BadInput(
                f"{header}: column {column!r} is missing, found {', '.join(columns) or 'nothing'}"
            )
    for column in columns[1:] if columns[0] == INDEX else columns:
        if column in CONFIDENCES:
            raise BadInput(
                f"{header}: column {column!r} is a confidence, as predictions have: labels have "
                "none, so remove it (and what nobody has looked at)"
            )
        if column not in (*REQUIRED, *OPTIONAL):
            raise BadInput(
                f"{header}: unknown column {column!r}: remove it, or correct its name to one of "
                f"{', '.join(REQUIRED + OPTIONAL)}"
            )
        if columns.count(column) > 1:
            raise BadInput(f"{header}: column {column!r} stands there twice")
    present = [column for column in ANGLES if column in columns]
    if present and len(present) < len(ANGLES):
        raise BadInput(f"{header}: yaw, pitch and roll go together, found {', '.join(present)}")
    if present and "convention" not in columns:
        raise BadInput(
            f"{header}: angles without a column 'convention' mean nothing: add it, with one of\n"
            f"{conventions_text()}"
        )


def _cell(column: str, text: str) -> str:
    """A cell, empty where a table library wrote that there is nothing."""
    text = text.strip()
    empty = text.lower() in (EMPTY if column in WORDS else NOTHING) or text in NOT_AVAILABLE
    return "" if empty else text


def _row(cells: Mapping[str, str], place: str) -> Row:
    if not cells["image"]:
        raise BadInput(f"{place}, column 'image': empty, expected a path below --raw")
    image = file_name(cells["image"])
    box = _numbers(cells, BOX, place)
    angles = _numbers(cells, ANGLES, place) if "yaw" in cells else None
    ignore = flag(cells.get("ignore", ""), f"{place}, column 'ignore'")
    heading = None
    if cells.get("heading"):
        (heading,) = _numbers(cells, ("heading",), place)
        check_heading(heading, f"{place}, column 'heading'")
        if angles is not None:
            heading = None  # the rotation says it, and more
    head = None
    if box is not None:
        check_box(box, f"{place}, columns x1 to y2")
        if angles is not None:
            check_angles(angles, f"{place}, columns yaw to roll")
            convention = check_convention(cells["convention"], f"{place}, column 'convention'")
        head = LabelledHead(
            box,
            cells.get("label") or DEFAULT_LABEL,
            euler=angles,
            convention=convention if angles else "",
            heading=heading,
            ignore="column ignore" if ignore else "",
        )
    elif angles is not None or heading is not None:
        raise BadInput(f"{place}: angles without a box: give x1, y1, x2 and y2")
    if cells.get("split"):
        check_split(cells["split"], f"{place}, column 'split'")
    return Row(place, image, head, cells.get("split", ""), cells.get("group"))


def _numbers(cells: Mapping[str, str], columns: Sequence[str], place: str) -> Any:
    """The numbers of some columns as a tuple of as many, None where all of them are empty."""
    if not any(cells[column] for column in columns):
        return None
    numbers = []
    for column in columns:
        here = f"{place}, column {column!r}"
        if not cells[column]:
            raise BadInput(
                f"{here}: empty; {columns[0]} to {columns[-1]} are numbers, or all empty"
            )
        numbers.append(number(cells[column], here))
    return tuple(numbers)


def _swapped(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """What the report should say of boxes that end before they begin; see `Conversion.notes`.

    Raises:
      BadInput: most of them do.
    """
    boxes = [(row.place, row.head.box) for row in rows if row.head is not None]
    places = [place for place, (x1, y1, x2, y2) in boxes if x2 < x1 or y2 < y1]
    if not places:
        return []
    said = (
        "boxes whose x2 or y2 is less than x1 or y1: if the columns hold x, y, width and height, "
        "all boxes are wrong: add x1 to x2 and y1 to y2"
    )
    if 2 * len(places) > len(boxes):
        raise BadInput(f"{places[0]}: {len(places)} of {len(boxes)} {said}")
    return [(f"WARNING: {said}", places[0], len(places))]


def _images(rows: Sequence[Row], raw: Path) -> dict[str, LabelledImage]:
    """Path as written -> image with the heads of all its rows, in order of first appearance."""
    heads: dict[str, list[LabelledHead]] = {}
    empty = {row.image for row in rows if row.head is None}
    for row in rows:
        of_image = heads.setdefault(row.image, [])
        if row.head is not None:
            if row.image in empty:
                raise BadInput(
                    f"{row.place}: {row.image} has a box here and an empty box in another row, "
                    "which says that it has no heads: remove one of them"
                )
            of_image.append(row.head)
    return {
        image: LabelledImage(find_image(raw, image), name_below(image), tuple(found))
        for image, found in counted(heads.items(), len(heads))
    }


def _splits(
    rows: Sequence[Row],
    images: Mapping[str, LabelledImage],
    raw: Path,
    table: Path,
    test_share: float | None,
) -> dict[str, str]:
    """Image -> split."""
    by_column = any(row.split for row in rows)
    if by_column and test_share is not None:
        raise BadInput(f"{table} has a column 'split': leave --test-share out, or that column")
    if by_column:
        splits = _one_value_each(rows, "split")
        _refuse_torn_groups(rows)
        return splits
    if test_share is None:
        return {row.image: "train" for row in rows}
    if rows[0].group is None:
        # As the files lie: labels may name one folder in several ways.
        group_of = {name: folder_of(image.path, raw) for name, image in images.items()}
        cure = "add a column 'group' that says who is in the image, or a column 'split'"
    else:
        group_of = _one_value_each(rows, "group")
        cure = "name whoever is in the image in the column 'group', or leave --test-share out"
    groups, paths = [group_of[name] for name in images], [p.path for p in images.values()]
    return dict(zip(images, share_out(groups, paths, test_share, str(table), cure), strict=True))


def _refuse_torn_groups(rows: Sequence[Row]) -> None:
    """Raises BadInput where the column `split` puts one group into two splits."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.group and (other := first.setdefault(row.group, row)).split != row.split:
            raise BadInput(
                f"{row.place}, column 'split': {row.split!r}, but {other.place} has the same group "
                f"{row.group!r} in {other.split!r}: a group lies in one split"
            )


def _one_value_each(rows: Sequence[Row], column: str) -> dict[str, str]:
    """Image -> its value in a column, which every row of the image must repeat."""
    values: dict[str, str] = {}
    for row in rows:
        value = getattr(row, column)
        if not value:
            raise BadInput(
                f"{row.place}, column {column!r}: empty, and every row needs a value: fill it in, "
                "or remove the column"
            )
        if values.setdefault(row.image, value) != value:
            raise BadInput(
                f"{row.place}, column {column!r}: {value!r}, but another row of {row.image} says "
                f"{values[row.image]!r}: an image lies in one {column}"
            )
    return values
