"""The command `mtnet`: a subcommand a task, a file a subcommand.

Heavy imports wait for the one that needs them.
"""

import argparse
import sys

from mtnet_jax.cli import data, evaluate, export, page, predict, quickstart, studio, train
from mtnet_jax.errors import MtnetError
from mtnet_jax.version import __version__

COMPILING = ("quickstart", "train", "eval", "predict")  # commands that run the network


def main(argv: list[str] | None = None) -> int:
    """Entry point of `mtnet`. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtnet", description="Every head in a picture and where it looks, all 360 degrees."
    )
    parser.add_argument("--version", action="version", version=f"mtnet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (quickstart, train, evaluate, predict, export, page, data, studio):
        command.add_parser(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "train":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if args.command in COMPILING:
            from mtnet_jax.cpu.compilation_cache import keep_compiled_programs

            keep_compiled_programs()
        return args.run(args, rest) if args.command == "train" else args.run(args)
    except (OSError, MtnetError) as error:
        print(f"mtnet {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmtnet {args.command}: interrupted", file=sys.stderr)
        return 130
