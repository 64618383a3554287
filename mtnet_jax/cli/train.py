"""`mtnet train`."""

import argparse

from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.places import is_address, place_argument


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
    parser.add_argument("--workdir", required=True, type=place_argument, metavar="DIR")
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
    from mtnet_jax.mirror import mirrored
    from mtnet_jax.training.loop import train

    if args.distributed:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise Failed(f"--distributed finds no cluster: {error}") from error
    if is_address(args.workdir) and jax.process_count() > 1:
        raise BadInput(
            f"--workdir {args.workdir}: several hosts write to one work directory, so it must be a "
            "folder that all of them see: mount the bucket (gcsfuse, mountpoint-s3)."
        )
    with mirrored(args.workdir) as workdir:
        train(load_config(args.config, overrides), workdir)
    return 0
