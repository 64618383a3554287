"""Portraits of members of the United States Congress, sorted for training and testing.

    git clone --depth 1 https://github.com/voteview/member_photos
    python -m benchmarks.member_photos --raw member_photos --out congress
    for split in train test; do
        images=congress/$split
        python -m benchmarks.peers mediapipe --face-model package --images $images --out $split.json
        python -m benchmarks.peers mediapipe --face-model package --images $images --flipped \
            --out $split-flipped.json
        mtnet data convert pseudo-label --raw $images --split $split --out records/congress_$split \
            --sizes 320 --teacher $split.json $split-flipped.json
    done

Taken are the photographs of the Biographical Directory of the Congress, and of those from
Wikipedia the ones of members who left by 1927: works of the United States or old enough to belong
to everybody, as far as that goes without looking at each (docs/results.md). One in twenty, by a
hash of the file's name, is for testing. Nobody appears twice: a file is a member.
"""

import argparse
import csv
import hashlib
import os
from collections import Counter
from pathlib import Path

LAST_CONGRESS = 69  # ended in 1927
ONE_IN = 20


def main() -> None:
    """Links the chosen photographs into OUT/train and OUT/test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="the clone")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    with (args.raw / "members.csv").open(newline="", encoding="utf-8") as file:
        images = chosen(list(csv.DictReader(file)))
    counts: Counter[str] = Counter()
    for image in images:
        path = args.raw / image
        if not path.is_file():
            counts["missing"] += 1
            continue
        split = split_of(path.name)
        target = args.out / split / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
        counts[split] += 1
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def chosen(rows: list[dict[str, str]]) -> list[str]:
    """The images to take, once each, of the rows of members.csv."""
    taken = {
        row["image"]
        for row in rows
        if row["source"] == "bio_guide"
        or (row["source"] == "wiki" and float(row["congress"]) <= LAST_CONGRESS)
    }
    return sorted(taken)


def split_of(name: str) -> str:
    """ "test" for one file name in twenty, else "train"."""
    return "test" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % ONE_IN == 0 else "train"


if __name__ == "__main__":
    main()
