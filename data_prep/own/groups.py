"""Images without splits: a share of their groups becomes the split `test`.

A group is what must not lie in two splits, such as a person or a video, or whoever is in a folder.
"""

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mtnet_jax.errors import BadInput, MissingFile


def add_test_share_argument(parser: argparse.ArgumentParser, groups: str, default: str) -> None:
    """The option --test-share; `groups` says what they are, `default` what happens without it."""
    parser.add_argument(
        "--test-share",
        type=_open_share,
        metavar="SHARE",
        help=f"put this share of the groups ({groups}) into the split test (default: {default})",
    )


def share_out(
    groups: Sequence[str], images: Sequence[Path], share: float, place: str, cure: str
) -> list[str]:
    """The split of each image, "train" or "test": all images of one group lie in one.

    A share of the groups, at least one, goes into "test", by a hash: the same for the same groups,
    in any order. Of sorted names the first would often be the oldest images; a hash mixes them.
    Groups of which no image is there count for nothing, and are in "train".

    Args:
      groups: the name of the group of each image.
      images: their files.
      share: of the groups, between 0 and 1.
      place: where they come from, for the message.
      cure: of data with one group alone.

    Raises:
      MissingFile: none of the images is there.
      BadInput: those that are there are of one group.
    """
    there = {group for group, image in zip(groups, images, strict=True) if image.is_file()}
    if not there:
        raise MissingFile(
            f"{place}: none of {len(images)} images is there, such as {images[0]}: correct the "
            "folder of the images"
        )
    if len(there) < 2:
        raise BadInput(
            f"{place}: all images that are there are of one group ({min(there)!r}), so "
            f"--test-share would let the same persons lie in train and test: {cure}"
        )
    ranked = sorted(there, key=_digest)
    count = min(max(round(share * len(there)), 1), len(there) - 1)
    test = set(ranked[:count])
    return ["test" if group in test else "train" for group in groups]


def _digest(group: str) -> bytes:
    """That of the bytes of a name: folders may have names that are no UTF-8."""
    return hashlib.sha256(group.encode(errors="surrogateescape")).digest()


def folder_of(image: Path, folder: Path) -> str:
    """The folder that an image lies in, seen from `folder`, however the two are written."""
    return Path(os.path.relpath(image.parent, folder)).as_posix()


def splits_by_folder(images: Sequence[Path], folder: Path, share: float) -> list[str]:
    """The split of each image by `share_out`, its folder being its group.

    Args:
      images: files below `folder`.
      folder: that they lie in, or in folders of it.
      share: of the folders that goes into "test".

    Raises:
      MissingFile, BadInput: see `share_out`.
    """
    cure = "give each person or video a folder of its own there, or leave --test-share out"
    groups = [folder_of(image, folder) for image in images]
    return share_out(groups, images, share, str(folder), cure)


def _open_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 0 and 1")
    return share
