"""`mtnet protocol`: the paper's protocols from raw folders to its tables."""

import argparse
import shlex

from mtnet_jax.cli import arguments


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet protocol`."""
    parser = commands.add_parser(
        "protocol",
        help="one of the paper's protocols: convert, check, train, evaluate, and its table",
        description="1: 300W-LP to BIWI, 2: BIWI 70/30, 3: CMU Panoptic. Any option of the "
        "configuration can be changed: --config.KEY=VALUE. Given again, the command goes on.",
    )
    parser.add_argument("number", type=int, choices=(1, 2, 3), metavar="1|2|3")
    parser.add_argument("--workdir", required=True, type=arguments.path_here, metavar="DIR")
    for option, text in (
        ("--raw300wlp", "300W-LP, for protocol 1"),
        ("--rawbiwi", "BIWI, for protocols 1 and 2"),
        ("--rawpanoptic", "CMU Panoptic, for protocol 3"),
        ("--rawaflw2000", "AFLW2000: one more test set of any protocol"),
    ):
        parser.add_argument(option, type=arguments.path_here, metavar="DIR", help=text)
    parser.add_argument(
        "--rawdirectmhp",
        type=arguments.path_here,
        nargs="+",
        default=[],
        metavar="DIR",
        help="CMU-HPE or AGORA-HPE as DirectMHP publishes them: more test sets of any protocol",
    )
    parser.add_argument(
        "--subject-disjoint",
        action="store_true",
        help="protocol 2: no person both trains and tests",
    )
    parser.add_argument(
        "--convert",
        action="append",
        default=[],
        type=_options,
        metavar="SET=OPTIONS",
        help="more options of a set's converter, in one word: --convert='biwi=--box-rule sphere'; "
        "sets: w300_lp, biwi, panoptic, aflw2000, directmhp1, ...",
    )
    parser.add_argument(
        "--config",
        default="",
        metavar="NAME",
        help="a configuration instead of the protocol's (protocol1, ...), with the same sets",
    )
    parser.add_argument("--processes", type=arguments.positive, default=1, metavar="N",
        help="that convert")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs what was parsed; returns the exit code."""
    from mtnet_jax.errors import BadInput
    from mtnet_jax.protocols import plan
    from mtnet_jax.protocols.steps import run_protocol

    protocol = plan.protocol(args.number, subject_disjoint=args.subject_disjoint)
    given = {
        "300w_lp": args.raw300wlp,
        "biwi": args.rawbiwi,
        "panoptic": args.rawpanoptic,
        "aflw2000": args.rawaflw2000,
    }
    wanted = (*protocol.needed, plan.AFLW2000)
    raw = {each: given[each.converter] for each in wanted if given[each.converter] is not None}
    used = {each.converter for each in raw}
    unused = [name for name, folder in given.items() if folder is not None and name not in used]
    if unused:
        raise BadInput(f"Protocol {args.number} has no part for {', '.join(unused)}.")
    for number, folder in enumerate(args.rawdirectmhp, 1):
        raw[plan.directmhp(number)] = folder
    options = dict(args.convert)
    if len(options) < len(args.convert):
        raise BadInput("--convert names a set twice: give all of its options in one.")
    strangers = sorted(set(options) - {each.name for each in raw})
    if strangers:
        raise BadInput(
            f"--convert {', '.join(strangers)}: the sets here are "
            f"{', '.join(each.name for each in raw)}."
        )
    run_protocol(
        protocol,
        raw,
        args.workdir,
        config=args.config,
        overrides=overrides,
        options=options,
        processes=args.processes,
    )
    return 0


def _options(text: str) -> tuple[str, list[str]]:
    """Reads "biwi=--box-rule sphere"."""
    name, equals, options = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not SET=OPTIONS")
    return name, shlex.split(options)
