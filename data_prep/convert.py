"""`mtnet data convert NAME --raw DIR --out DIR`: raw data sets to record sets.

Also `python -m data_prep.convert NAME ...`. A converter is a module with `add_arguments(parser)`
and `from_arguments(args) -> Conversion`. It is imported when its name is given: converters bring
JAX, for which `mtnet --help` should not wait.
"""

import argparse
import importlib
import shlex
import sys
from pathlib import Path

from data_prep.engine import arguments, runners
from mtnet_jax.cpu.cores import usable_cores
from mtnet_jax.errors import MissingFile, MtnetError

# Name of the command -> module and one line of help.
CONVERTERS = {
    "300w_lp": ("data_prep.sets.w300_lp", "300W-LP: faces rendered at large poses, .mat labels"),
    "aflw2000": ("data_prep.sets.aflw2000", "AFLW2000-3D: .mat labels, a test set"),
    "biwi": ("data_prep.sets.biwi", "BIWI Kinect head pose database"),
    "pointing04": ("data_prep.sets.pointing04", "Pointing'04 head pose database"),
    "coco": ("data_prep.own.coco", "COCO json, with Euler angles or without: own data"),
    "crops": ("data_prep.own.crops", "a record set, each of its heads as an image of its own"),
    "csv": ("data_prep.own.csv_heads", "a table of heads as CSV: own data"),
    "directmhp": ("data_prep.sets.directmhp", "CMU-HPE and AGORA-HPE as DirectMHP publishes them"),
    "panoptic": ("data_prep.panoptic.converter", "CMU Panoptic: 31 HD cameras, 360 degrees"),
    "pseudo-label": (
        "data_prep.own.pseudo_label",
        "images or a record set, labelled by a trained network where it agrees with itself",
    ),
    "turned-faces": (
        "data_prep.own.turned_faces",
        "a record set, its faces turned in three dimensions to where few people look",
    ),
    "yolo": ("data_prep.own.yolo", "YOLO txt labels: Hard Hat, Roboflow exports, own data"),
}


class _ConverterParser(argparse.ArgumentParser):
    """The parser of one converter: asks the converter for its options when it is used."""

    def parse_known_args(self, args=None, namespace=None):
        if not self.get_default("converter_module"):
            module = importlib.import_module(CONVERTERS[self.prog.split()[-1]][0])
            module.add_arguments(self)
            self.set_defaults(converter_module=module)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each converter; `run` executes what was parsed."""
    names = parser.add_subparsers(
        dest="converter", metavar="NAME", required=True, parser_class=_ConverterParser
    )
    for name, (_, text) in CONVERTERS.items():
        converter = names.add_parser(name, help=text, description=text)
        converter.add_argument("--raw", type=Path, required=True, help="folder of the raw data")
        converter.add_argument(
            "--out",
            type=arguments.output,
            required=True,
            help="record set to write, or its address",
        )
        converter.add_argument(
            "--overwrite", action="store_true", help="replace the record set at --out"
        )
        converter.add_argument(
            "--processes",
            type=arguments.positive,
            default=usable_cores(),
            metavar="N",
            help="processes that work (default: one for each processor, here %(default)s)",
        )
        converter.add_argument(
            "--runner",
            default="",
            metavar="NAME",
            help="do the work on Apache Beam instead: DirectRunner, DaskRunner, FlinkRunner, "
            "SparkRunner, DataflowRunner (docs/data.md)",
        )
        converter.add_argument(
            "--runner-options",
            type=shlex.split,
            default=[],
            metavar="TEXT",
            help="options of the Beam runner, in one word: --runner-options='--region=...'",
        )


def run(args: argparse.Namespace) -> int:
    """Runs a conversion and prints its report.

    Args:
      args: as parsed by a parser that went through `add_arguments`.

    Returns:
      0, or 1 after an error, which is printed to stderr.
    """
    if args.processes > 1 and not args.runner:
        runners.prepare_processes(args.converter_module.__name__)
    # This imports tensorflow_datasets.
    from data_prep.engine.builder import check_not_raw, check_target
    from data_prep.engine.elsewhere import write_record_set_anywhere

    try:
        check_target(args.out, overwrite=args.overwrite)
        if not args.raw.is_dir():
            raise MissingFile(f"No folder {args.raw}: --raw must hold the raw data")
        check_not_raw(args.out, args.raw)
        conversion = args.converter_module.from_arguments(args)
        report = write_record_set_anywhere(
            conversion,
            args.out,
            overwrite=args.overwrite,
            processes=args.processes,
            beam_runner=args.runner,
            beam_options=args.runner_options,
        )
    except (OSError, MtnetError) as error:
        print(f"mtnet data convert {args.converter}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the parts that are done.", file=sys.stderr)
        return 130
    print(report.text(), end="")
    print(f"Records and this report (conversion.txt, .json, .html) are in {args.out}")
    return 0


def main() -> int:
    """Entry point of `python -m data_prep.convert`."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.convert", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
