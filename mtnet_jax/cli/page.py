"""`mtnet page`."""

import argparse

from mtnet_jax.cli import arguments
from mtnet_jax.shipped import DEFAULT_WEIGHTS, weights_folder


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet page`."""
    parser = commands.add_parser("page", help="a static page that finds heads in the browser")
    parser.add_argument("--out", required=True, type=arguments.path_here, metavar="DIR")
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="PATH",
        help="an exported .onnx, a folder with one, any other weights, or the name of weights that "
        "ship (default: %(default)s)",
    )
    parser.add_argument(
        "--single-file",
        action="store_true",
        help="everything in index.html: it can be sent around and opened without a server",
    )
    parser.add_argument(
        "--onnxruntime-web",
        type=arguments.path_here,
        metavar="FILE",
        help="its npm package; without it it is fetched once, which needs no npm",
    )
    parser.add_argument(
        "--serve",
        nargs="?",
        type=arguments.port,
        const=8000,
        metavar="PORT",
        help="then serve the page on this machine, with threads (default port 8000)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.mirror import weights_here
    from mtnet_jax.page.build import write_page
    from mtnet_jax.page.serve import make_server

    with weights_here(weights_folder(args.weights)) as weights:
        index = write_page(
            weights,
            args.out,
            single_file=args.single_file,
            package=args.onnxruntime_web,
        )
    total = sum(file.stat().st_size for file in index.parent.iterdir()) / 1e6
    print(f"{index}: {total:.1f} MB in all")
    if args.serve is not None:
        with make_server(args.out, args.serve) as server:
            print(f"http://localhost:{args.serve} (Ctrl-C ends)")
            server.serve_forever()
    return 0
