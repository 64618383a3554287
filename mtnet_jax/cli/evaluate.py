"""`mtnet eval`."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mtnet_jax.cli import arguments
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.places import Place, is_address, place_argument, published
from mtnet_jax.run_metrics import LAST

if TYPE_CHECKING:
    from mtnet_jax.evaluation.run import Evaluation
    from mtnet_jax.outputs import Outputs


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet eval`."""
    parser = commands.add_parser(
        "eval", help="all metrics on record sets, as table, JSON and plots"
    )
    parser.add_argument(
        "--weights",
        "--workdir",
        required=True,
        nargs="+",
        type=place_argument,
        metavar="PATH",
        help="of mtnet train or export, an exported file, or another program's predictions (.json, "
        "docs/evaluation.md); several are compared with the first",
    )
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR[:SPLIT]",
        help="record sets; the split is 'test' unless named",
    )
    parser.add_argument(
        "--out",
        type=place_argument,
        metavar="DIR",
        help="default: eval in the folder of the weights; of a file eval/FILE beside it",
    )
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
    arguments.add_one_look(parser)
    parser.add_argument(
        "--worst",
        type=arguments.positive,
        metavar="N",
        help="draw a sheet of so many heads of the largest errors, with truth and prediction",
    )
    parser.add_argument(
        "--group",
        type=arguments.pattern,
        default="",
        metavar="PATTERN",
        help="of several weights: images in whose names this regular expression finds the same "
        "(persons, sequences) are resampled together",
    )
    arguments.add_step(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.data.records import RecordSource
    from mtnet_jax.data.selection import parse_selection
    from mtnet_jax.evaluation.comparison import group_of, names_of
    from mtnet_jax.evaluation.foreign import is_foreign
    from mtnet_jax.evaluation.predicted import predict_split
    from mtnet_jax.evaluation.summary import format_summary
    from mtnet_jax.outputs import Outputs
    from mtnet_jax.shipped import weights_folder

    _check_options(args)
    sets = _named(parse_selection(entry, default="test") for entry in args.data)
    for path, split in sets.values():  # what is wrong is said before the first takes its time
        source = RecordSource(path, split, decode=False)
        if args.group:
            for index in range(len(source)):
                group_of(source[index]["image_id"], args.group)
    several = len(args.weights) > 1
    if several and args.out is None:
        raise BadInput("Several weights are compared in a folder of its own: name it with --out.")
    if args.out is None and weights_folder(args.weights[0]) != args.weights[0]:
        raise BadInput(f"{args.weights[0]} are weights that ship: name a folder with --out DIR.")
    for weights in args.weights:
        if is_foreign(weights):
            for path, split in sets.values():
                predict_split(weights, path, split, limit=args.limit or 0)
        elif several and not weights_folder(weights).exists():
            raise MissingFile(f"There are no weights at {weights}.")
    outputs = Outputs("eval")
    found: dict[str, dict[str, Evaluation]] = {name: {} for name in sets}
    target = args.out or _place_of(args.weights[0])
    with published(target) as out:
        for name, weights in zip(names_of(args.weights), args.weights, strict=True):
            folder = out / name if several else out
            for set_name, evaluation in _evaluate(args, weights, sets, folder, outputs):
                found[set_name][name] = evaluation
        if several:
            _compare(found, out, outputs, args.group)
    if is_address(target):
        print(f"{out} lies at {target} now")
    if not several and len(sets) > 1:
        print(f"\nThe network on all sets, score >= {args.score:g}, IoU >= {args.iou:g}\n")
        results = {
            name: each.results["network"]
            for name, by_weights in found.items()
            for each in by_weights.values()
        }
        print(format_summary(results))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raises BadInput for options that none of the weights would heed."""
    from mtnet_jax.evaluation.foreign import is_foreign

    if args.group and len(args.weights) == 1:
        raise BadInput("--group is of a comparison: name several --weights, or leave it out.")
    asked = {
        "--size": args.size is not None,
        "--one-look": args.second_look is not None,
        "--step": args.step != LAST,
    }
    if any(asked.values()) and all(map(is_foreign, args.weights)):
        names = ", ".join(name for name, given in asked.items() if given)
        raise BadInput(f"{names}: for networks, and {args.weights[0]} holds predictions.")


def _named(selections: Iterable[tuple[Place, str]]) -> dict[str, tuple[Place, str]]:
    """Set:split as tables call it -> what it is; the whole path where two have one name."""
    sets = list(selections)
    named = {}
    for path, split in sets:
        alike = [other for other, _ in sets if other.name == path.name and other != path]
        named[f"{path if alike else path.name}:{split}"] = (path, split)
    return named


def _evaluate(
    args: argparse.Namespace,
    weights: Place,
    sets: dict[str, tuple[Place, str]],
    out: Path,
    outputs: "Outputs",
) -> Iterator[tuple[str, "Evaluation"]]:
    """Evaluates weights on each set."""
    from mtnet_jax.evaluation.foreign import is_foreign
    from mtnet_jax.evaluation.run import evaluate_split
    from mtnet_jax.mirror import weights_here
    from mtnet_jax.shipped import weights_folder

    source = weights if is_foreign(weights) else weights_folder(weights)
    with weights_here(source, latest=args.step == LAST) as local:
        for name, (path, split) in sets.items():
            evaluation = evaluate_split(
                local,
                path,
                split,
                out=out,
                protocol=args.protocol,
                score_threshold=args.score,
                iou_threshold=args.iou,
                batch_size=args.batch_size,
                limit=args.limit or 0,
                size=args.size,
                step=args.step,
                second_look=args.second_look,
                called=str(weights),
                outputs=outputs,
            )
            if args.worst:
                _draw_worst(f"{path}:{split}", evaluation, args.worst, outputs)
            outputs.remove_outdated(evaluation.folder, [evaluation.of])
            yield name, evaluation


def _draw_worst(selection: str, evaluation: "Evaluation", count: int, outputs: "Outputs") -> None:
    from mtnet_jax.evaluation.heads import HEADS_FILE, read_head_errors
    from mtnet_jax.inspection.show import write_sheet

    file = evaluation.folder / "worst.png"
    if not len(read_head_errors(evaluation.folder / HEADS_FILE)[1]):
        print(f"{selection}: no heads to compare, so {file} is not drawn")
        return
    shown = write_sheet(
        selection,
        file,
        by="worst",
        count=count,
        metrics=evaluation.folder / HEADS_FILE,
        outputs=outputs,
        of=evaluation.of,
    )
    print(f"the {shown} worst heads: {file}")


def _compare(
    found: dict[str, dict[str, "Evaluation"]], out: Path, outputs: "Outputs", group: str
) -> None:
    """Prints and writes what several weights have beside each other."""
    from mtnet_jax.evaluation import comparison
    from mtnet_jax.evaluation.plots import plot_by_yaw

    differences = comparison.compare(found, group)
    text = (
        f"{comparison.format_comparison(found)}\n\n"
        f"{comparison.format_differences(differences, group)}\n"
    )
    of = ";".join(each.of for by_weights in found.values() for each in by_weights.values())
    outputs.write(out / "comparison.txt", text, of)
    outputs.write(out / "comparison.json", comparison.as_json(found, differences, group), of)
    for by_weights in found.values():
        folder = next(iter(by_weights.values())).folder.name
        results = {name: each.results["network"] for name, each in by_weights.items()}
        with outputs.writing(out / f"by_yaw-{folder}.png", of) as file:
            plot_by_yaw(results).savefig(file, format="png", dpi=160)
    print(f"\n{text}\ncomparison.txt, .json and plots by yaw: {out}")


def _place_of(weights: Place) -> Place:
    """Where the evaluation of weights goes by itself: that of a file or an orbax folder not where
    that of the folder goes in which it lies."""
    from mtnet_jax.weights import is_orbax

    alone = weights.is_file() or is_orbax(weights)
    return weights.parent / "eval" / weights.name if alone else weights / "eval"
