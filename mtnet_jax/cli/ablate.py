"""`mtnet ablate`."""

import argparse
import shlex
from pathlib import Path

from mtnet_jax.cli import arguments
from mtnet_jax.errors import Failed


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet ablate`."""
    parser = commands.add_parser(
        "ablate",
        help="train a grid of options and seeds, and compare its arms",
        description="The same command goes on where a grid was stopped. Several may work on one "
        "grid, from several hosts too. An option for all runs: --config.KEY=VALUE",
    )
    parser.add_argument("spec", metavar="SPEC", help="one that ships or a file NAME.py")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
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
    from mtnet_jax.ablation import running
    from mtnet_jax.ablation.report import write_report
    from mtnet_jax.ablation.spec import load_ablation

    ablation, workdir = load_ablation(args.spec), args.workdir.resolve()
    if args.list:
        for number, each, state in running.status(ablation, workdir, overrides):
            print(f"{number:4}  {each.name:40}  {state}")
        return 0
    if args.number:
        running.train_run(
            ablation, running.run_of_number(ablation, args.number), workdir, overrides
        )
        return 0
    failed = {}
    if not args.report:
        command = ["ablate", args.spec, "--workdir", str(workdir), *overrides]
        failed = running.train_all(ablation, command, workdir, args.at_once)
    folder = write_report(ablation, Path(args.spec).stem, workdir, overrides)
    print(f"tables, plots and the page: {folder}")
    if failed:
        reasons = "; ".join(f"{name} {why}" for name, why in failed.items())
        again = shlex.join(["mtnet", "ablate", args.spec, "--workdir", str(args.workdir)])
        raise Failed(f"not done: {reasons}. `{again}` goes on with them.")
    return 0
