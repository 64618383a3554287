"""`mtnet data`: record sets are made, looked at, checked, and anchors fitted to them."""

import argparse

from mtnet_jax.cli import arguments


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet data` and its tasks."""
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
    show.add_argument(
        "--out", required=True, type=arguments.path_here, metavar="FILE", help="image to write"
    )
    show.add_argument(
        "--by",
        choices=("random", "yaw", "small", "worst"),
        default="random",
        help="random images (default), heads of every 30 degrees of yaw, the smallest heads, or "
        "those with the largest errors",
    )
    show.add_argument(
        "--count", type=arguments.positive, default=24, metavar="N", help="default: 24"
    )
    show.add_argument(
        "--metrics",
        type=arguments.path_here,
        metavar="FILE",
        help="for worst: heads.json of mtnet eval",
    )
    show.add_argument(
        "--seed", type=arguments.natural, default=0, metavar="N", help="of the choice"
    )
    show.set_defaults(run=_show)

    images = tasks.add_parser("images", help="the images of a record set as files")
    images.add_argument(
        "data", metavar="DIR[:SPLIT]", help="record set; all splits unless one is named"
    )
    images.add_argument(
        "--out", required=True, type=arguments.path_here, metavar="DIR", help="folder to write"
    )
    images.set_defaults(run=_images)

    check = tasks.add_parser("check", help="verify every checksum, image and label of record sets")
    check.add_argument(
        "data", nargs="+", metavar="DIR[:SPLIT]", help="record sets; all splits unless one is named"
    )
    check.set_defaults(run=_check)

    index = tasks.add_parser("index", help="write the indexes of record sets, from their shards")
    index.add_argument(
        "data", nargs="+", metavar="DIR[:SPLIT]", help="record sets; all splits unless one is named"
    )
    index.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> int:
    from mtnet_jax.data.index import write_index
    from mtnet_jax.data.selection import selected_splits

    for entry in args.data:
        record_set, splits = selected_splits(entry)
        for split in splits:
            path = record_set.index_path(split)
            print(f"{path}: {write_index(path, record_set.shard_paths(split))} records")
    return 0


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


def _images(args: argparse.Namespace) -> int:
    from mtnet_jax.inspection.extract import write_images

    print(f"{args.out}: {write_images(args.data, args.out)} images")
    return 0


def _check(args: argparse.Namespace) -> int:
    from mtnet_jax.inspection.check import print_check

    return 1 if print_check(args.data) else 0
