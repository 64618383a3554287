"""Images without splits: a share of their groups becomes the split `test`.

A group is what must not lie in two splits, such as a person or a video, or whoever is in a folder.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from mtnet_jax.errors import BadInput


def add_test_share_argument(parser: argparse.ArgumentParser, groups: str, default: str) -> None:
    """The option --test-share; `groups` says what they are, `default` what happens without it."""
    parser.add_argument(
        "--test-share",
        type=_open_share,
        metavar="SHARE",
        help=f"put this share of the groups ({groups}) into the split test (default: {default})",
    )


def choose_test_groups(groups: set[str], share: float, place: str, cure: str) -> set[str]:
    """A share of the groups, at least one, by a hash: the same for the same groups, in any order.

    Of sorted names the first would often be the oldest images; a hash mixes them.

    Args:
      groups: names of them.
      share: between 0 and 1.
      place: where they come from, for the message.
      cure: of data with one group alone.

    Returns:
      The groups of the split `test`.

    Raises:
      BadInput: there is only one group.
    """
    if len(groups) < 2:
        raise BadInput(
            f"{place}: all images are of one group ({min(groups)!r}), so --test-share would let "
            f"the same persons lie in train and test: {cure}"
        )
    ranked = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    count = min(max(round(share * len(groups)), 1), len(groups) - 1)
    return set(ranked[:count])


def folder_of(image: Path, folder: Path) -> str:
    """The folder that an image lies in, as a path below `folder` where it is below it."""
    try:
        return image.parent.relative_to(folder).as_posix()
    except ValueError:
        return image.parent.as_posix()


def splits_by_folder(images: Sequence[Path], folder: Path, share: float) -> list[str]:
    """The split of each image, "train" or "test": all images of one folder lie in one.

    Args:
      images: files below `folder`.
      folder: that they lie in, or in folders of it.
      share: of the folders that goes into "test".

    Raises:
      BadInput: all images lie in one folder.
    """
    groups = [folder_of(image, folder) for image in images]
    cure = "give each person or video a folder of its own there, or leave --test-share out"
    test = choose_test_groups(set(groups), share, str(folder), cure)
    return ["test" if group in test else "train" for group in groups]


def _open_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 0 and 1")
    return share
