"""`mtnet export`."""

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet export`."""
    parser = commands.add_parser("export", help="weights and configuration alone, to hand on")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument("--onnx", action="store_true", help="write the network as ONNX too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.export.onnx import NETWORK, require, write_onnx
    from mtnet_jax.outputs import Outputs
    from mtnet_jax.weights import export_weights, load_weights

    if args.onnx:
        require("onnx")  # what is missing is said before anything is written
    outputs = Outputs("export")
    if args.onnx:
        outputs.check(args.out / NETWORK)
    written = [export_weights(args.workdir, args.out, half=args.half, outputs=outputs)]
    if args.onnx:
        written.append(args.out / NETWORK)
        write_onnx(written[-1], *load_weights(args.out), outputs=outputs)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
