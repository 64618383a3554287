"""From the options of `mtnet studio` to a layout and its folder."""

import argparse
import shlex
from pathlib import Path

from data_prep.studio.layouts import biwi, panoptic, w300_lp
from data_prep.studio.layouts.biwi import Biwi
from data_prep.studio.layouts.panoptic import Panoptic
from data_prep.studio.layouts.w300_lp import W300Lp
from data_prep.studio.layouts.writing import Layout, check_folder, write_layout
from data_prep.studio.random_scene import PoseSpread
from data_prep.studio.records import figure_of
from mtnet_jax.errors import BadInput

USUAL_POSES = {"panoptic": panoptic.POSES, "biwi": biwi.POSES, "w300lp": w300_lp.POSES}


def run(
    args: argparse.Namespace,
    poses: PoseSpread,
    targets: Path | None,
    backgrounds: tuple[Path, ...],
) -> int:
    """Writes the raw data of `args.layout`; returns 0.

    Args:
      args: of the command.
      poses: how heads turn.
      targets: folder of MakeHuman's targets, or None.
      backgrounds: images of the user.

    Raises:
      FileExistsError, FileNotFoundError, ValueError, OSError: see `write_layout`, `figure_of`.
    """
    check_folder(args.out, overwrite=args.overwrite)
    if args.test_frames is not None and args.layout != "panoptic":
        raise BadInput(
            f"--test-frames: the raw data of {args.layout} have no split, their converter makes it"
        )
    layout = _layout(args, poses, targets, backgrounds)
    figure_of(args.assets, targets)  # what is missing is said before any process starts
    about = {"layout": args.layout, "seed": args.seed}
    images = write_layout(
        layout, args.out, overwrite=args.overwrite, processes=args.processes, about=about
    )
    print(f"{images} images in {args.out}. To convert them:")
    print(f"  {_next(layout, args.out)}")
    return 0


def _layout(
    args: argparse.Namespace,
    poses: PoseSpread,
    targets: Path | None,
    backgrounds: tuple[Path, ...],
) -> Layout:
    given = {"assets": args.assets, "targets": targets, "seed": args.seed, "poses": poses}
    if args.size is not None:
        given["size"] = args.size
    if args.every is not None and args.layout != "w300lp":
        given["every"] = args.every
    if args.layout == "panoptic":
        return Panoptic(
            frames=(args.frames, 0 if args.test_frames is None else args.test_frames),
            cameras=args.cameras,
            people=args.people,
            identities=args.identities,
            video=args.video,
            **given,
        )
    if args.layout == "biwi":
        return Biwi(frames=args.frames, **given)
    return W300Lp(frames=args.frames, backgrounds=backgrounds, **given)


def _next(layout: Layout, out: Path) -> str:
    """The command that converts what was written."""
    if isinstance(layout, Panoptic):
        by_split = {
            split: ",".join(name for name in layout.sequences() if f"_{split}" in name)
            for split in ("train", "test")
        }
        return (
            f"mtnet data convert panoptic --raw {shlex.quote(str(out))} --out DIR "
            f"--every {layout.every} --min-file-size 0 "  # small images, none damaged
            f"--train-sequences {by_split['train']} --test-sequences '{by_split['test']}'"
        )
    name = "biwi" if isinstance(layout, Biwi) else "300w_lp"
    return f"mtnet data convert {name} --raw {shlex.quote(str(out))} --out DIR"
