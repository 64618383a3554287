"""`mtnet eval`."""

import argparse
import contextlib

from mtnet_jax.cli import arguments
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.places import Place, is_address, place_argument, published


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet eval`."""
    parser = commands.add_parser(
        "eval", help="all metrics on record sets, as table, JSON and plots"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=place_argument,
        metavar="PATH",
        help="of mtnet train or export, or an exported file",
    )
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR[:SPLIT]",
        help="record sets; the split is 'test' unless named",
    )
    parser.add_argument("--out", type=place_argument, metavar="DIR", help="default: WORKDIR/eval")
    parser.add_argument("--protocol", choices=("matched", "authors"), default="matched")
    parser.add_argument(
        "--score",
        type=arguments.share,
        default=FOUND_SCORE,
        help="heads of a lower score count for AP only",
    )
    parser.add_argument("--iou", type=arguments.share, default=0.5, help="least IoU of a match")
    parser.add_argument("--batch-size", type=arguments.positive, default=8, metavar="N")
    parser.add_argument(
        "--limit",
        type=arguments.positive,
        metavar="N",
        help="at most so many images a set (default: all)",
    )
    parser.add_argument(
        "--size",
        type=arguments.positive,
        metavar="PIXELS",
        help="side of the network's input (default: as trained)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.data.records import RecordSource
    from mtnet_jax.data.selection import parse_selection
    from mtnet_jax.evaluation.run import evaluate_records
    from mtnet_jax.evaluation.summary import format_summary
    from mtnet_jax.mirror import weights_here
    from mtnet_jax.outputs import Outputs

    sets = [parse_selection(entry, default="test") for entry in args.data]
    for path, split in sets:
        RecordSource(path, split)  # what is missing is said before the first takes its time
    outputs, found = Outputs("eval"), {}
    with contextlib.ExitStack() as stack:
        weights = stack.enter_context(weights_here(args.workdir))
        target = args.out or _beside(args.workdir) / "eval"
        out = stack.enter_context(published(target))
        for path, split in sets:
            results = evaluate_records(
                weights,
                path,
                split,
                out=out,
                protocol=args.protocol,
                score_threshold=args.score,
                iou_threshold=args.iou,
                batch_size=args.batch_size,
                limit=args.limit or 0,
                size=args.size,
                outputs=outputs,
            )
            alike = [other for other, _ in sets if other.name == path.name and other != path]
            found[f"{path if alike else path.name}:{split}"] = results["network"]
    if is_address(target):
        print(f"{out} lies at {target} now")
    if len(found) > 1:
        print(f"\nThe network on all sets, score >= {args.score:g}, IoU >= {args.iou:g}\n")
        print(format_summary(found))
    return 0


def _beside(weights: Place) -> Place:
    return weights.parent if weights.is_file() else weights
