"""Portraits of members of the United States Congress, sorted for training and testing.

    git clone --depth 1 https://github.com/voteview/member_photos
    python -m benchmarks.member_photos --raw member_photos --out congress
    for split in train test; do
        images=congress/$split
        .venv-peers/bin/python -m benchmarks.peers mediapipe --face-model package \
            --images $images --out $split.json
        .venv-peers/bin/python -m benchmarks.peers mediapipe --face-model package \
            --images $images --flipped --out $split-flipped.json
        mtnet data convert pseudo-label --raw $images --split $split --out records/congress_$split \
            --weights release --sizes 320 --teacher $split.json $split-flipped.json \
            --teacher-heading 35 --teacher-outward 1.1
    done

(`benchmarks/peers.py` says how to make .venv-peers and package. What was trained before
`configs/release_fine.py` had labels without the last two options: docs/results.md.) Taken are the
photographs of the Biographical Directory of the Congress, and of those from Wikipedia the ones of
members who left by 1927: works of the United States or old enough to belong to everybody, as far as
that goes without looking at each (docs/results.md). One in twenty, by a hash of the file's name, is
for testing; of these, whoever is in the other part too (members who changed their party have
several files) is left out.

The network that labels them gives the boxes, and rotations where the face mesh cannot: AP on these
images says how well a network agrees with that one.
"""

import argparse
import csv
import hashlib
import shutil
from collections import Counter
from pathlib import Path

from mtnet_jax.sums import sha256_of

LAST_CONGRESS = 69  # ended in 1927
ONE_IN = 20
Row = dict[str, str]  # of members.csv


def main() -> None:
    """Copies the chosen photographs into OUT/train and OUT/test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="the clone")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    with (args.raw / "members.csv").open(newline="", encoding="utf-8") as file:
        rows = chosen(list(csv.DictReader(file)))
    present = [row for row in rows if (args.raw / row["image"]).is_file()]
    contents = {row["image"]: sha256_of(args.raw / row["image"]) for row in present}
    counts = Counter(missing=len(rows) - len(present))
    for row, split in zip(present, splits(present, contents), strict=True):
        counts[split or "of the test in training too, left out"] += 1
        if split:
            target = args.out / split / Path(row["image"]).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.raw / row["image"], target)
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def chosen(rows: list[Row]) -> list[Row]:
    """The rows of members.csv whose images are taken, one for each image."""
    taken = {
        row["image"]: row
        for row in rows
        if row["source"] == "bio_guide"
        or (row["source"] == "wiki" and float(row["congress"]) <= LAST_CONGRESS)
    }
    return [taken[image] for image in sorted(taken)]


def splits(rows: list[Row], contents: dict[str, str]) -> list[str]:
    """ "train", "test" or, for who would be in both, "".

    Args:
      rows: of members.csv, one an image.
      contents: image -> a hash of its file.
    """
    named = [split_of(Path(row["image"]).name) for row in rows]
    whose = [{contents[row["image"]], (row["name"], row["born"], row["died"])} for row in rows]
    trained = {
        key for keys, split in zip(whose, named, strict=True) if split == "train" for key in keys
    }
    return [
        "" if split == "test" and keys & trained else split
        for keys, split in zip(whose, named, strict=True)
    ]


def split_of(name: str) -> str:
    """ "test" for one file name in twenty, else "train"."""
    return "test" if held_out(name, ONE_IN) else "train"


def held_out(name: str, one_in: int) -> bool:
    """Whether a name is one of so many that are kept for testing, by its hash."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % one_in == 0


if __name__ == "__main__":
    main()
