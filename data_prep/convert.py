"""`mtnet data convert NAME --raw DIR --out DIR`: raw data sets to record sets.

Also `python -m data_prep.convert NAME ...`. The converters are imported when one runs: they bring
JAX, for which `mtnet --help` should not wait.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_prep.conversion import Conversion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each converter; `run` executes what was parsed."""
    converters = parser.add_subparsers(dest="converter", metavar="NAME", required=True)
    _add_pointing04(converters)
    _add_yolo(converters)


def run(args: argparse.Namespace) -> int:
    """Runs a conversion and prints its report.

    Args:
      args: as parsed by a parser that went through `add_arguments`.

    Returns:
      0, or 1 after an error, which is printed to stderr.
    """
    from data_prep.builder import check_target, write_record_set  # imports tensorflow_datasets

    try:
        check_target(args.out, overwrite=args.overwrite)
        if not args.raw.is_dir():
            raise FileNotFoundError(f"No folder {args.raw}: --raw must hold the raw data")
        report = write_record_set(args.conversion(args), args.out, overwrite=args.overwrite)
    except (OSError, ValueError) as error:
        print(f"mtnet data convert {args.converter}: {error}", file=sys.stderr)
        return 1
    print(report.text(), end="")
    print(f"Records and this report (conversion.txt, conversion.json) are in {args.out}")
    return 0


def _add_pointing04(converters) -> None:
    parser = _add_converter(converters, "pointing04", "Pointing'04 head pose database", _pointing04)
    parser.add_argument(
        "--box-rule",
        choices=("head", "face"),
        default="head",
        help="whole head, derived from face box and pose (default), or the published inner face",
    )
    parser.add_argument(
        "--test-persons",
        type=_numbers,
        default=(11, 12),
        metavar="N,N",
        help="persons of the split 'test', the others are 'train' (default: 11,12)",
    )
    parser.add_argument(
        "--persons", type=_numbers, default=(), metavar="N,N", help="only these (default: all)"
    )
    parser.add_argument(
        "--every",
        type=_positive,
        default=1,
        metavar="N",
        help="only every N-th picture of a series (default: 1)",
    )


def _pointing04(args: argparse.Namespace) -> "Conversion":
    from data_prep import pointing04

    return pointing04.conversion(
        args.raw,
        box_rule=args.box_rule,
        test_persons=args.test_persons,
        persons=args.persons,
        every=args.every,
    )


def _add_yolo(converters) -> None:
    parser = _add_converter(
        converters, "yolo", "YOLO txt labels: Hard Hat, Roboflow exports, own data", _yolo
    )
    parser.add_argument(
        "--name", help="name of the record set (default: the last part of --out)", metavar="NAME"
    )
    parser.add_argument(
        "--box-rule",
        default="head",
        metavar="RULE",
        help="name of the rule the boxes follow (default: head, the whole head, hair or helmet)",
    )
    parser.add_argument(
        "--splits",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="folders to take as splits (default: all that have images/)",
    )
    parser.add_argument(
        "--label-map",
        type=_label_map,
        metavar="OLD=NEW,...",
        help="rename labels, drop those not named: head=head,helmet=head (default: keep all)",
    )


def _yolo(args: argparse.Namespace) -> "Conversion":
    from data_prep import yolo

    return yolo.conversion(
        args.raw,
        name=args.name or args.out.name,
        box_rule=args.box_rule,
        splits=args.splits,
        label_map=args.label_map,
    )


def _add_converter(
    converters,
    name: str,
    description: str,
    conversion: Callable[[argparse.Namespace], "Conversion"],
) -> argparse.ArgumentParser:
    parser = converters.add_parser(name, help=description, description=description)
    parser.add_argument("--raw", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record set to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the record set at --out")
    parser.set_defaults(conversion=conversion)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return number


def _label_map(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(old and equals and new for old, equals, new in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW,OLD=NEW")
    return {old: new for old, _, new in pairs}


def main() -> int:
    """Entry point of `python -m data_prep.convert`."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.convert", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
