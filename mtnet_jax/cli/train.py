"""`mtnet train`."""

import argparse
from pathlib import Path

from mtnet_jax.errors import Failed


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet train`."""
    parser = commands.add_parser(
        "train",
        help="train, or go on where a work directory stands",
        description="Any option of the configuration can be changed: --config.KEY=VALUE, such as "
        "--config.model.width=0.5",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help="one that ships (small, paper, ...) or a file NAME.py",
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="several hosts: calls jax.distributed.initialize()",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs what was parsed; returns the exit code."""
    import jax

    from mtnet_jax.config import load_config
    from mtnet_jax.training.loop import train

    if args.distributed:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise Failed(f"--distributed finds no cluster: {error}") from error
    train(load_config(args.config, overrides), args.workdir)
    return 0
