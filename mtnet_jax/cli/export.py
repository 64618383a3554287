"""`mtnet export`."""

import argparse
from pathlib import Path

from mtnet_jax.cli import arguments
from mtnet_jax.export.formats import FORMATS


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet export`."""
    parser = commands.add_parser(
        "export",
        help="weights and configuration alone, to hand on; and in formats of other programs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="formats:\n" + "\n".join(f"  {name:14}{f.about}" for name, f in FORMATS.items()),
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=Path,
        metavar="DIR",
        help="of mtnet train, or an exported folder",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=[],
        metavar="FORMAT",
        help="written beside weights.npz: " + ", ".join(FORMATS),
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument(
        "--size",
        type=arguments.positive,
        metavar="PIXELS",
        help="side of the network's input (default: as trained)",
    )
    parser.add_argument("--license", default="", metavar="NAME", help="of the weights, as in MIT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.export.folder import export

    written = export(
        args.workdir,
        args.out,
        formats=args.format,
        half=args.half,
        size=args.size,
        license=args.license,
    )
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
