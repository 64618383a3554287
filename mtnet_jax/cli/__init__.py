"""The command `mtnet`: one subcommand a task. Heavy imports wait for the one that needs them."""

import argparse
import opcode
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILING = ("quickstart", "train", "eval", "predict")  # commands that run the network


def main(argv: list[str] | None = None) -> int:
    """Entry point of `mtnet`. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtnet", description="Every head in a picture and where it looks, all 360 degrees."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_quickstart(commands)
    _add_train(commands)
    _add_eval(commands)
    _add_predict(commands)
    _add_export(commands)
    _add_data(commands)
    _add_studio(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "train":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if args.command in COMPILING:
            from mtnet_jax.cpu.compilation_cache import keep_compiled_programs

            keep_compiled_programs()
        return args.run(args, rest) if args.command == "train" else args.run(args)
    except (OSError, ValueError, RuntimeError) as error:
        if not (isinstance(error, OSError) or _raised_on_purpose(error)):
            raise
        print(f"mtnet {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmtnet {args.command}: interrupted", file=sys.stderr)
        return 130


def _raised_on_purpose(error: Exception) -> bool:
    """Whether a raise statement of this project made the error: then its message is for the user.

    What NumPy, JAX or a slip of ours raises keeps its traceback, which says more than its message.
    """
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code
    file = Path(code.co_filename)
    ours = any(file.is_relative_to(REPOSITORY / package) for package in ("mtnet_jax", "data_prep"))
    return ours and opcode.opname[code.co_code[place.tb_lasti]] == "RAISE_VARARGS"


def _add_quickstart(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "quickstart", help="train, evaluate and predict on the demo data, in minutes"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/quickstart"), metavar="DIR")
    parser.set_defaults(run=_quickstart)


def _quickstart(args: argparse.Namespace) -> int:
    from mtnet_jax.cli.quickstart import quickstart

    return quickstart(args.workdir)


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train, or go on where a work directory stands",
        description="Any option of the configuration can be changed: --config.KEY=VALUE, such as "
        "--config.model.width=0.5",
    )
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="configs/NAME.py"
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="several hosts: calls jax.distributed.initialize()",
    )
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace, overrides: list[str]) -> int:
    import jax

    from mtnet_jax.config import load_config
    from mtnet_jax.training.loop import train

    if args.distributed:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise RuntimeError(f"--distributed finds no cluster: {error}") from error
    train(load_config(args.config, overrides), args.workdir)
    return 0


def _add_eval(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "eval", help="all metrics on record sets, as table, JSON and plots"
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="of mtnet train or export"
    )
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR[:SPLIT]",
        help="record sets; the split is 'test' unless named",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: WORKDIR/eval")
    parser.add_argument("--protocol", choices=("matched", "authors"), default="matched")
    parser.add_argument(
        "--score", type=_share, default=0.3, help="heads of a lower score count for AP only"
    )
    parser.add_argument("--iou", type=_share, default=0.5, help="least IoU of a match")
    parser.add_argument("--batch-size", type=_positive, default=8, metavar="N")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="at most so many pictures a set (default: all)"
    )
    parser.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> int:
    from mtnet_jax.data.records import RecordSource
    from mtnet_jax.data.selection import parse_selection
    from mtnet_jax.evaluation.run import evaluate_records

    sets = [parse_selection(entry, default="test") for entry in args.data]
    for path, split in sets:
        RecordSource(path, split)  # what is missing is said before the first takes its time
    for path, split in sets:
        evaluate_records(
            args.workdir,
            path,
            split,
            out=args.out or args.workdir / "eval",
            protocol=args.protocol,
            score_threshold=args.score,
            iou_threshold=args.iou,
            batch_size=args.batch_size,
            limit=args.limit or 0,
        )
    return 0


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "predict", help="heads and poses of pictures, folders of pictures, videos, a camera"
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="picture, folder of pictures, video, or the number of a camera",
    )
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="DIR", help="work directory or export"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="overlays and videos go here; a camera without it: a window",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="heads of all pictures")
    parser.add_argument("--score", type=_share, default=0.3, help="least score (default 0.3)")
    parser.add_argument("--cube", action="store_true", help="draw a cube round each head")
    parser.add_argument(
        "--runtime",
        choices=("jax", "onnxruntime"),
        default="jax",
        help="what computes the network: jax (default), or onnxruntime on the CPU",
    )
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> int:
    from mtnet_jax.predict.predictor import Predictor, find_pictures, predict_files
    from mtnet_jax.predict.video import as_video

    videos = [source for entry in args.inputs if (source := as_video(entry)) is not None]
    inputs = [entry for entry in args.inputs if as_video(entry) is None]
    if inputs and args.out is None and args.json is None:
        raise ValueError("Nothing to write: give --out DIR for overlays, --json FILE, or both.")
    if args.out is None and any(isinstance(source, Path) for source in videos):
        raise ValueError("A video needs --out DIR, for the annotated video and its JSON lines.")
    if args.json is not None and not inputs:
        raise ValueError("--json is for pictures: the heads of a video go to --out as JSON lines.")
    names = [source.stem for source in videos if isinstance(source, Path)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two videos are called {name!r}: predict them into two folders.")
    for folder in inputs:
        if args.out is not None and folder.is_dir() and args.out.resolve() == folder.resolve():
            raise ValueError(f"--out {args.out} is a folder of pictures: choose another folder.")
    pictures = find_pictures(inputs, leave_out=args.out)
    predictor = Predictor.load(args.weights, score_threshold=args.score, runtime=args.runtime)
    failed = 0
    if inputs:
        failed += _predict_pictures(args, predict_files, predictor, pictures)
    for source in videos:
        failed += _predict_video(args, predictor, source)
    return 1 if failed else 0


def _predict_pictures(args: argparse.Namespace, predict_files, predictor, pictures) -> int:
    failed = predict_files(predictor, pictures, out=args.out, json_file=args.json, cube=args.cube)
    print(f"{len(pictures) - len(failed)} pictures predicted, {len(failed)} could not be read")
    for kind, place in (("overlays", args.out), ("JSON", args.json)):
        if place is not None:
            print(f"{kind}: {place}")
    return len(failed)


def _predict_video(args: argparse.Namespace, predictor, source) -> int:
    from mtnet_jax.predict.video import predict_video

    name = f"camera {source}" if isinstance(source, int) else source
    try:
        played = predict_video(predictor, source, out=args.out, cube=args.cube)
    except (OSError, ValueError) as error:
        # The next video may be a good one, as with pictures.
        if not (isinstance(error, OSError) or _raised_on_purpose(error)):
            raise
        print(f"mtnet predict: {error}", file=sys.stderr)
        return 1
    rate = played.frames / played.seconds
    print(f"{name}: {played.frames} frames, {rate:.1f} a second")
    if args.out is not None:
        print(f"annotated video and JSON lines: {args.out}")
    if played.ended_early:
        print(
            f"mtnet predict: {name} ends early: {played.frames} of {played.announced} frames "
            "could be read",
            file=sys.stderr,
        )
    return int(played.ended_early)


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="weights and configuration alone, to hand on")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument("--onnx", action="store_true", help="write the network as ONNX too")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from mtnet_jax.export.onnx import NETWORK, require, write_onnx
    from mtnet_jax.weights import export_weights, load_weights

    if args.onnx:
        require("onnx")  # what is missing is said before anything is written
    written = [export_weights(args.workdir, args.out, half=args.half)]
    if args.onnx:
        written.append(args.out / NETWORK)
        write_onnx(written[-1], *load_weights(args.out))
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="make, look at, check and fit record sets")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)

    convert = tasks.add_parser("convert", help="raw data set -> record set")
    from data_prep import convert as convert_command  # its options are part of this parser

    convert_command.add_arguments(convert)
    convert.set_defaults(run=convert_command.run)

    anchors = tasks.add_parser("anchors", help="fit anchors to the boxes of record sets")
    anchors.add_argument(
        "data",
        nargs="+",
        metavar="DIR[:SPLIT]",
        help="record sets; the split is 'train' unless named",
    )
    anchors.set_defaults(run=_anchors)

    show = tasks.add_parser("show", help="contact sheet of a record set, heads drawn in")
    show.add_argument(
        "data", metavar="DIR[:SPLIT]", help="record set; all splits unless one is named"
    )
    show.add_argument("--out", required=True, type=Path, metavar="FILE", help="picture to write")
    show.add_argument(
        "--by",
        choices=("random", "yaw", "small", "worst"),
        default="random",
        help="random pictures (default), heads of every 30 degrees of yaw, the smallest heads, or "
        "those with the largest errors",
    )
    show.add_argument("--count", type=_positive, default=24, metavar="N", help="default: 24")
    show.add_argument(
        "--metrics", type=Path, metavar="FILE", help="for worst: heads.json of mtnet eval"
    )
    show.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice")
    show.set_defaults(run=_show)

    check = tasks.add_parser(
        "check", help="verify every checksum, picture and label of record sets"
    )
    check.add_argument(
        "data", nargs="+", metavar="DIR[:SPLIT]", help="record sets; all splits unless one is named"
    )
    check.set_defaults(run=_check)


def _anchors(args: argparse.Namespace) -> int:
    from mtnet_jax.inspection.anchor_fit import print_fitted_anchors

    print_fitted_anchors(args.data)
    return 0


def _show(args: argparse.Namespace) -> int:
    from mtnet_jax.inspection.show import write_sheet

    shown = write_sheet(
        args.data,
        args.out,
        by=args.by,
        count=args.count,
        metrics=args.metrics,
        seed=args.seed,
    )
    print(f"{args.out}: {shown} shown")
    return 0


def _check(args: argparse.Namespace) -> int:
    from mtnet_jax.inspection.check import print_check

    return 1 if print_check(args.data) else 0


def _add_studio(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "studio", help="render people at exactly known head rotation, all 360 degrees"
    )
    from data_prep.studio import command  # its options are part of this parser

    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return number
