"""`mtnet train`."""

import argparse

from mtnet_jax.cli import arguments
from mtnet_jax.errors import BadInput
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
        "--profile",
        type=arguments.positive,
        default=0,
        metavar="STEPS",
        help="trace so many steps with JAX's profiler, into DIR/profile",
    )
    parser.add_argument(
        "--profile-from",
        type=arguments.positive,
        metavar="STEPS",
        help="begin the trace after so many steps of this start (default: 3)",
    )
    several = parser.add_argument_group("several processes, each started with this command")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="SLURM, Open MPI, Kubernetes or Cloud TPU says where the others are",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0, where no cluster manager does"
    )
    several.add_argument("--processes", type=arguments.positive, metavar="N")
    several.add_argument("--process", type=int, metavar="I", help="number of this one, from 0")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax import hosts
    from mtnet_jax.config import load_config
    from mtnet_jax.mirror import mirrored
    from mtnet_jax.training.loop import train
    from mtnet_jax.training.profiling import FIRST

    if args.profile_from and not args.profile:
        raise BadInput("--profile-from says where a trace begins: say its length, --profile STEPS.")
    _join(args)
    with hosts.ending_at_once("mtnet train"):
        if is_address(args.workdir) and hosts.several():
            raise BadInput(
                f"--workdir {args.workdir}: several hosts write to one work directory, so it must "
                "be a folder of a POSIX file system that all of them mount: NFS, Filestore, EFS, "
                "FSx or Lustre."
            )
        with mirrored(args.workdir) as workdir:
            config = load_config(args.config, overrides)
            traced = {"profile_steps": args.profile, "profile_after": args.profile_from or FIRST}
            train(config, workdir, **traced)
    return 0


def _join(args: argparse.Namespace) -> None:
    """Makes this process one of several, where it is asked for."""
    from mtnet_jax import hosts

    told = (args.coordinator, args.processes, args.process)
    if any(value is not None for value in told):
        if None in told:
            raise BadInput("--coordinator, --processes and --process go together: give all three.")
        if not 0 <= args.process < args.processes:
            raise BadInput(f"--process {args.process}: from 0 to {args.processes - 1}.")
        hosts.join(*told)
    elif args.distributed:
        hosts.join()
