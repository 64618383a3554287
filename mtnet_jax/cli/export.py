"""`mtnet export`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from mtnet_jax.cli import arguments
from mtnet_jax.errors import BadInput
from mtnet_jax.export.formats import CALIBRATED, FORMATS, NETWORK
from mtnet_jax.places import Place, fetched, place_argument, published
from mtnet_jax.run_metrics import LAST


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet export`."""
    parser = commands.add_parser(
        "export",
        help="weights and configuration alone, to hand on; and in formats of other programs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="formats:\n" + "\n".join(f"  {name:14}{f.about}" for name, f in FORMATS.items()),
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="PATH",
        help="of mtnet train, an exported folder, its .safetensors file or orbax folder, or the "
        "name of weights that ship",
    )
    parser.add_argument("--out", required=True, type=place_argument, metavar="DIR")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=[],
        metavar="FORMAT",
        help="written beside weights.npz: " + ", ".join(FORMATS),
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store float16: half the size (of weights.npz, "
        + ", ".join(f.file for f in FORMATS.values() if f.halves)
        + "; the others hold the rounded numbers)",
    )
    parser.add_argument(
        "--size",
        type=arguments.positive,
        metavar="PIXELS",
        help="side of the network's input (default: as trained)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=arguments.path_here,
        default=[],
        metavar="PATH",
        help="to calibrate 8 bits with, some dozens like those it will see (default: the demo's)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="DIR[:SPLIT]",
        help="record sets on which the files that give heads are evaluated beside the weights",
    )
    arguments.add_step(parser)
    parser.add_argument(
        "--license",
        default="",
        metavar="NAME",
        help="of the weights, as in MIT (default: what the weights say)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.data.records import RecordSource
    from mtnet_jax.data.selection import parse_selection
    from mtnet_jax.export.folder import bytes_of, export
    from mtnet_jax.mirror import weights_here
    from mtnet_jax.shipped import weights_folder
    from mtnet_jax.weights import check_apart

    if args.images and CALIBRATED not in args.format:
        raise BadInput(f"--images are for the format {CALIBRATED}: name it with --format, too.")
    sets = [parse_selection(entry, default="test") for entry in args.data]
    for path, split in sets:  # what is wrong is said before the work
        RecordSource(path, split, decode=False)
    for said in _without_effect(args):
        print(said)
    weights, latest = weights_folder(args.workdir), args.step == LAST
    check_apart(weights, args.out)  # copies of addresses have names of their own
    with (
        weights_here(weights, latest=latest) as source,
        published(args.out) as out,
    ):
        earlier = [path for form in FORMATS.values() if (path := out / form.file).exists()]
        written = export(
            source,
            out,
            formats=args.format,
            half=args.half,
            size=args.size,
            step=args.step,
            license=args.license,
            calibration=_calibration(args, source) if CALIBRATED in args.format else (),
        )
        for path in written:
            print(f"{args.out / path.name}: {bytes_of(path) / 1e6:.1f} MB")
        for path in earlier:
            if not path.exists():
                print(f"{args.out / path.name} was of other weights or options, and is gone")
    if sets:  # it is written, whatever becomes of this
        with fetched(args.out) as out:
            _compare(out, [out / path.name for path in written if _measured(path.name)], sets)
    return 0


def _without_effect(args: argparse.Namespace) -> Iterator[str]:
    """Says of which formats --half and --data are not."""
    chosen = [FORMATS[name] for name in dict.fromkeys(args.format)]
    whole = [form.file for form in chosen if not form.halves]
    if args.half and whole:
        yield f"--half makes no smaller: {', '.join(whole)} (the numbers in them are rounded)"
    others = [form.file for form in chosen if not _measured(form.file)]
    if args.data and others:
        yield f"--data is not measured on: {', '.join(others)} (on .onnx files that give heads)"


def _measured(file: str) -> bool:
    """Whether `mtnet eval` opens a file by itself and finds heads with it."""
    return file.endswith(".onnx") and file != NETWORK


def _calibration(args: argparse.Namespace, source: Path) -> list:
    from mtnet_jax.predict.files import find_images
    from mtnet_jax.predict.placing import letterboxed
    from mtnet_jax.predict.predictor import read_image
    from mtnet_jax.shipped import shipped
    from mtnet_jax.weights import load_weights

    size = args.size or load_weights(source)[0].input.size
    found = find_images(args.images or [shipped("demo/images")])
    if found.left_out:
        print(found)
    return [letterboxed(read_image(path), size)[0] for path in found.images]


def _compare(folder: Path, files: list[Path], sets: list[tuple[Place, str]]) -> None:
    """Prints what is lost on the way from the weights to files that give heads."""
    from mtnet_jax.evaluation.run import measure
    from mtnet_jax.evaluation.tables import cell

    for path, split in sets:
        print(f"\n{path}:{split:10}  {'AP50':>7} {'AP50:95':>8} {'geodesic':>9}")
        for weights in [folder, *files]:
            result = measure(weights, path, split)
            detection, pose = result["detection"], result["pose"]
            print(
                f"  {weights.name:24} {cell(detection['ap50'], '%'):>7} "
                f"{cell(detection['ap50_95'], '%'):>8} {cell(pose['geodesic_mean'], '°'):>9}"
            )
