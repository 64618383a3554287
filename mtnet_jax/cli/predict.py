"""`mtnet predict`."""

import argparse
import functools
import sys
from pathlib import Path

from mtnet_jax.cli import arguments
from mtnet_jax.errors import BadInput, MtnetError
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.shipped import DEFAULT_WEIGHTS

DEFAULT_OUT = Path("heads")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet predict`."""
    parser = commands.add_parser(
        "predict", help="heads and poses of images, folders of images, videos, a camera"
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder of images, video, address of a video (rtsp://, http://), or the number "
        "of a camera",
    )
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="work directory, exported folder or file, or the name of weights that ship "
        f"(default: {DEFAULT_WEIGHTS})",
    )
    parser.add_argument(
        "--out",
        type=arguments.path_here,
        metavar="DIR",
        help="overlays and videos go here (default: heads, where neither --json nor --jsonl is "
        "asked for); a camera without it: a window",
    )
    parser.add_argument(
        "--json",
        type=arguments.file_or_standard_output,
        metavar="FILE",
        help="heads of all images as one list; - is standard output",
    )
    parser.add_argument(
        "--jsonl",
        type=arguments.file_or_standard_output,
        metavar="FILE",
        help="the same as JSON lines, an image a line; - is standard output",
    )
    parser.add_argument(
        "--score",
        type=arguments.share,
        default=FOUND_SCORE,
        help="least score (default %(default)s)",
    )
    parser.add_argument("--cube", action="store_true", help="draw a cube round each head")
    parser.add_argument(
        "--iou",
        type=arguments.share,
        metavar="IOU",
        help="heads that overlap a surer one by more are left out (default: as trained)",
    )
    parser.add_argument(
        "--save-crops", action="store_true", help="write each head as an image into OUT/crops"
    )
    parser.add_argument(
        "--save-txt", action="store_true", help="write YOLO text files with angles into OUT/labels"
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="show what was found in a window too: any key goes on, q or Esc ends it",
    )
    arguments.add_step(parser)
    _add_input_options(parser)
    parser.add_argument(
        "--track",
        action="store_true",
        help="videos: number heads from frame to frame, smooth their rotation, sum up at the end",
    )
    parser.add_argument(
        "--batch",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="images a call of the network (default 1; more pays on GPUs)",
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "jax", "onnxruntime"),
        default="auto",
        help="what computes the network (default auto: onnxruntime on CPUs where the weights have "
        "an exported file, else jax)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "tpu"), help="of jax (default: the best)"
    )
    parser.set_defaults(run=run)


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=arguments.positive,
        metavar="PIXELS",
        help="side of the network's input, a multiple of 32 (default: as trained); a larger one "
        "finds smaller heads in large images",
    )
    parser.add_argument(
        "--tile",
        type=arguments.tile,
        default=argparse.SUPPRESS,
        metavar="PIXELS|auto|none",
        help="look at larger images in overlapping tiles of this side too (default: auto for "
        "images, which takes at most nine where there are small heads or none that is sure, and "
        "none beside --one-look; none for videos)",
    )
    arguments.add_one_look(parser)
    arguments.add_camera(parser, "then the JSON has rotation_camera too")


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.outputs import Outputs
    from mtnet_jax.predict.files import find_images
    from mtnet_jax.predict.predictor import Predictor
    from mtnet_jax.predict.tiles import AUTO
    from mtnet_jax.predict.tracking import require_tracker
    from mtnet_jax.predict.video import as_video

    sources = [as_video(entry) for entry in args.inputs]
    videos = [source for source in sources if source is not None]
    inputs = [
        Path(entry) for entry, source in zip(args.inputs, sources, strict=True) if source is None
    ]
    asked_for = args.out  # the default is for images and videos, a camera without it is shown
    _check_arguments(args, inputs, videos)
    if args.track:
        require_tracker()
    images = find_images(inputs, leave_out=args.out)
    if images.left_out:
        print(images, file=sys.stderr)
    options = dict(
        score_threshold=args.score,
        iou_threshold=args.iou,
        runtime=args.runtime,
        device=args.device,
        size=args.size,
        second_look=args.second_look,
        fov=args.fov,
        intrinsics=args.intrinsics,
        step=args.step,
    )
    given = {"tile": args.tile} if "tile" in args else {}
    files = [source for source in videos if isinstance(source, Path)]
    outputs = Outputs("predict", [*images.images, *files])
    failed = 0
    if inputs:
        predictor = Predictor(args.weights, **{"tile": AUTO, **options, **given})
        failed += _predict_images(args, outputs, predictor, images.images)
    if videos:
        predictor = Predictor(args.weights, **{"tile": None, **options, **given})
    for source in videos:
        out = asked_for if isinstance(source, int) else args.out
        failed += _predict_video(args, outputs, predictor, source, out)
    return 1 if failed else 0


def _check_arguments(args: argparse.Namespace, inputs: list[Path], videos: list) -> None:
    """Raises BadInput for what does not go together, before anything is read or written."""
    if "" in args.inputs:  # as a path it would be the folder that the command runs in
        raise BadInput("An input is empty: a variable of a script may have no value.")
    files = [path for path in (args.json, args.jsonl) if path is not None]
    recorded = inputs or any(not isinstance(source, int) for source in videos)
    if args.out is None and not files and recorded:
        args.out = DEFAULT_OUT
    if args.save_crops or args.save_txt:
        if not inputs:
            raise BadInput("--save-crops and --save-txt are for images: these inputs are videos.")
        if args.out is None:
            raise BadInput("--save-crops and --save-txt write beside the overlays: give --out DIR.")
    if files and not inputs:
        raise BadInput(
            "--json and --jsonl are for images: the heads of a video go to --out DIR as JSON lines."
        )
    if args.out is None and any(not isinstance(source, int) for source in videos):
        raise BadInput("A video needs --out DIR, for the annotated video and its JSON lines.")
    if len(files) == 2 and args.json.resolve() == args.jsonl.resolve():
        raise BadInput(f"--json and --jsonl are both {args.json}: choose two places.")
    if args.batch > 1 and not inputs:
        raise BadInput("--batch is for images: the frames of a video come one by one.")
    if args.track and not videos:
        raise BadInput("--track is for videos and cameras: these inputs are images.")
    for folder in inputs:
        if args.out is not None and folder.is_dir() and args.out.resolve() == folder.resolve():
            raise BadInput(f"--out {args.out} is a folder of images: choose another folder.")


def _predict_images(args: argparse.Namespace, outputs, predictor, images) -> int:
    from mtnet_jax.predict.extras import CROPS, check_crops, text_of, write_crops, write_text
    from mtnet_jax.predict.files import overlay_names, predict_files
    from mtnet_jax.predict.window import Window

    # What stands where crops and texts would go is said before the work.
    beside = args.out if args.save_crops or args.save_txt else None
    overlays = overlay_names(outputs, images, beside)
    if args.save_crops:
        check_crops(outputs, overlays)
    if args.save_txt:
        for path, overlay in overlays.items():
            outputs.check(text_of(overlay), str(path.resolve()))

    def more(overlay, image, heads, of) -> None:
        if args.save_crops:
            write_crops(outputs, overlay, image, heads, of)
        if args.save_txt:
            write_text(outputs, overlay, image, heads, predictor.class_names, of)

    failed = predict_files(
        predictor,
        images,
        out=args.out,
        json_file=args.json,
        lines_file=args.jsonl,
        cube=args.cube,
        batch_size=args.batch,
        more=more,
        window=Window() if args.show else None,
        outputs=outputs,
    )
    if args.save_crops:  # of heads that earlier runs found
        read = {str(path.resolve()) for path in images if path not in set(failed)}
        outputs.remove_outdated(args.out / CROPS, read)
    say = functools.partial(print, file=_status(args))
    say(f"{len(images) - len(failed)} images predicted, {len(failed)} could not be read")
    for kind, place in (("overlays", args.out), ("JSON", args.json), ("JSON lines", args.jsonl)):
        if place not in (None, Path("-")):
            say(f"{kind}: {place}")
    return len(failed)


def _status(args: argparse.Namespace):
    """Where status lines go: not among JSON on standard output."""
    return sys.stderr if Path("-") in (args.json, args.jsonl) else sys.stdout


def _predict_video(args: argparse.Namespace, outputs, predictor, source, out) -> int:
    from mtnet_jax.predict import summary
    from mtnet_jax.predict.video import named, predict_video

    name = named(source)
    try:
        played = predict_video(
            predictor,
            source,
            out=out,
            cube=args.cube,
            track=args.track,
            show=args.show,
            outputs=outputs,
        )
    except (OSError, MtnetError) as error:
        # The next video may be a good one, as with images.
        print(f"mtnet predict: {error}", file=sys.stderr)
        return 1
    rate = played.frames / played.seconds
    say = functools.partial(print, file=_status(args))
    say(f"{name}: {played.frames} frames, {rate:.1f} a second")
    if out is not None:
        say(f"annotated video and JSON lines: {out}")
    if played.persons is not None:
        say(summary.table(played.persons))
    for fault in (played.lacks and f"{name} {played.lacks}", played.unwritten):
        if fault:
            print(f"mtnet predict: {fault}", file=sys.stderr)
    return int(bool(played.lacks or played.unwritten))
