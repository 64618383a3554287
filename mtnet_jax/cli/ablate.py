"""`mtnet ablate`."""

import argparse
import sys
from pathlib import Path

from mtnet_jax.cli import arguments
from mtnet_jax.errors import Unavailable


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet ablate`."""
    parser = commands.add_parser(
        "ablate",
        help="train a grid of options and seeds, and compare its arms",
        description="The same command goes on where a grid was stopped. Several may work on one "
        "grid, from several hosts too. An option for all runs: --config.KEY=VALUE",
    )
    parser.add_argument("spec", metavar="SPEC", help="one that ships or a file NAME.py")
    parser.add_argument("--workdir", required=True, type=arguments.path_here, metavar="DIR")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="all runs with number and state")
    what.add_argument(
        "--run",
        dest="number",
        type=arguments.positive,
        metavar="N",
        help="this run alone, as a job of an array",
    )
    what.add_argument("--report", action="store_true", help="report on the runs that are done")
    what.add_argument(
        "--at-once",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="so many runs side by side, each with an accelerator of its own (default: 1)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.ablation import devices, running
    from mtnet_jax.ablation.checks import check_runs, check_shares
    from mtnet_jax.ablation.report import write_report
    from mtnet_jax.ablation.spec import load_ablation
    from mtnet_jax.training.workdir import is_locked

    ablation, workdir = load_ablation(args.spec), args.workdir.resolve()
    if args.list:
        for number, each, state in running.status(ablation, workdir, overrides):
            print(f"{number:4}  {each.name:40}  {state}")
        return 0
    if not args.report:
        check_runs(ablation, workdir, overrides)
        here = bool(args.number)
        seen = devices.devices_here() if here else devices.devices_of_a_run(args.at_once)
        if seen is not None:
            devices.check_alone(seen)
            check_shares(ablation, workdir, overrides, seen.number)
    if args.number:
        each = running.run_of_number(ablation, args.number)
        try:
            running.train_run(ablation, each, workdir, overrides)
        except Unavailable as error:
            if not is_locked(workdir / each.name):
                raise
            print(f"mtnet ablate: {error}", file=sys.stderr)
            return running.BUSY
        return 0
    outcome = running.Outcome({}, [])
    if not args.report:
        command = ["ablate", args.spec, "--workdir", str(workdir), *overrides]
        outcome = running.train_all(ablation, command, workdir, overrides, args.at_once)
    if outcome.failed:
        reasons = "; ".join(f"{name} {why}" for name, why in outcome.failed.items())
        print(f"mtnet ablate: not done: {reasons}; the same command tries again", file=sys.stderr)
    if outcome.elsewhere:
        print(f"other processes train {', '.join(outcome.elsewhere)}: --report when they are done")
    folder = write_report(ablation, Path(args.spec).stem, workdir, overrides)
    print(f"tables, plots and the page: {folder}")
    return 1 if outcome.failed else 0
