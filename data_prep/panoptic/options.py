"""What becomes a label and an image of CMU Panoptic: options, and their command line."""

import argparse
from dataclasses import dataclass, field

from data_prep.engine import arguments
from data_prep.panoptic.labels import (
    HeadRule,
)
from data_prep.panoptic.splits import (
    PUBLIC,
)


@dataclass(frozen=True)
class Options:
    """What becomes a label and what becomes an image; every value has its command line option.

    Attributes:
      heads: when landmarks make a head, and the size of its sphere.
      max_aspect: a clipped box with one side longer than this times the other is ignored.
      max_size: a clipped box wider or higher than this share of the image is ignored.
      min_kilobytes: smaller JPEGs are taken for damaged; 0 keeps all.
      drop_frames_with_lost_faces: leave out frames with a face that cannot be fitted.
      keep_empty: keep images in which no head is to be found.
      body_only: coarse poses from body joints instead of faces.
      quality: of the JPEGs made from videos, 1 to 100.
    """

    heads: HeadRule = field(default_factory=HeadRule)
    max_aspect: float = 1.5
    max_size: float = 0.7
    min_kilobytes: float = 100
    drop_frames_with_lost_faces: bool = False
    keep_empty: bool = False
    body_only: bool = False
    quality: int = 95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert panoptic`."""
    rule, options = HeadRule(), Options()
    add = parser.add_argument
    add("--every", type=arguments.positive, default=60, metavar="N", help="frames (default: 60)")
    add(
        "--sequences",
        type=arguments.names,
        default=(),
        metavar="A,B",
        help="only these (default: all of both splits)",
    )
    add(
        "--cameras",
        type=arguments.numbers,
        default=(),
        metavar="N,N",
        help="HD cameras, 0 to 30 (default: all that have images)",
    )
    for split in ("train", "test"):
        add(
            f"--{split}-sequences",
            type=arguments.names,
            default=(PUBLIC,),
            metavar="A,B",
            help=f"sequences of the split '{split}': names, 'all', or '' for none (default: "
            "'public', those of the public split that are there)",
        )
    add(
        "--test-cameras",
        type=arguments.numbers,
        default=(),
        metavar="N,N",
        help="'test' sees its sequences with these cameras only, 'train' with the others only",
    )
    add(
        "--sphere-radius",
        type=float,
        default=rule.sphere_radius,
        metavar="CM",
        help="of the sphere round a head, named in the box rule: 18 (DirectMHP, default) or 22 "
        "(WHENet)",
    )
    add(
        "--min-score",
        type=arguments.amount,
        default=rule.min_score,
        metavar="S",
        help="landmarks count above this score (default: 0.1)",
    )
    add(
        "--min-points",
        type=arguments.positive,
        default=rule.min_points,
        metavar="N",
        help="of the 14 landmarks that a fit needs (default: 7)",
    )
    add(
        "--max-residual",
        type=arguments.amount,
        default=rule.max_residual,
        metavar="CM",
        help="faces whose fit leaves more (root mean square) are lost faces (default: no limit)",
    )
    add(
        "--max-aspect",
        type=arguments.amount,
        default=options.max_aspect,
        metavar="A",
        help="boxes longer than this times their shorter side are ignored (default: 1.5)",
    )
    add(
        "--max-size",
        type=arguments.amount,
        default=options.max_size,
        metavar="S",
        help="boxes wider or higher than this share of the image are ignored (default: 0.7)",
    )
    add(
        "--min-file-size",
        type=arguments.amount,
        default=options.min_kilobytes,
        metavar="KB",
        help="images below are taken for damaged, as files and as encoded from videos; 0 keeps "
        "all (default: 100)",
    )
    add(
        "--drop-frames-with-lost-faces",
        action="store_true",
        help="leave such frames out (default: the face is marked to be ignored)",
    )
    add(
        "--keep-empty",
        action="store_true",
        help="keep images without a head to be found (default: left out)",
    )
    add(
        "--body-only",
        action="store_true",
        help="COARSE poses from nose, eyes and ears of the body joints; the set is then named "
        "panoptic_body",
    )
    add(
        "--quality",
        type=arguments.positive,
        choices=range(1, 101),
        default=options.quality,
        metavar="Q",
        help="of JPEGs made from videos (default: 95)",
    )
