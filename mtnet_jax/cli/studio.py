"""`mtnet studio`; its options and what it does are `data_prep.studio.command`."""

import argparse


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet studio`."""
    parser = commands.add_parser(
        "studio", help="render people at exactly known head rotation, all 360 degrees"
    )
    from data_prep.studio import command  # its options are part of this parser

    command.add_arguments(parser)
    parser.set_defaults(run=command.run)
