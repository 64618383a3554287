"""Faces that nobody has, cut out of the sheets of a dataset of generated ones.

    git clone --depth 1 https://github.com/SelfishGene/SFHQ-T2I-dataset
    python -m benchmarks.generated_faces --raw SFHQ-T2I-dataset --out generated

then labelled like the portraits in `benchmarks/member_photos.py`. SFHQ-T2I (Beniaguev 2024, MIT)
is made by text-to-image networks (FLUX.1, SDXL) from descriptions that were drawn at random: people
of every age and look, in every light, who laugh, shout, wear hats and glasses and look every way,
which portraits do not show. The whole dataset is to be had from Kaggle; its repository has some
2,000 of the images, in the sheets of `figures/textual_search_*.jpg`, at 255 or 475 pixels.

An image that stands on several sheets is taken once, from the one where it is largest. One in ten,
by a hash of its place, is for testing.
"""

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from benchmarks.member_photos import held_out

ONE_IN = 10
SHEETS = "figures/textual_search_*.jpg"
BLACK = 12  # between the images of a sheet no pixel is brighter, but for the writing
FULL = 0.4  # of the pixels of a column or row through images are brighter, where writing has fewer
LEAST = 200  # pixels: the images of all sheets are larger
THUMBNAIL = 8  # pixels: two images with the same one, within `SAME`, are one
SAME = 6.0  # grey values, root mean square


def main() -> None:
    """Writes the images of all sheets into OUT/train and OUT/test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="the clone")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    sheets = sorted(args.raw.glob(SHEETS))
    if not sheets:
        raise SystemExit(f"{args.raw} has no {SHEETS}: --raw is a clone of SFHQ-T2I-dataset")
    found = [(path, *cell) for path in sheets for cell in images_of(read(path))]
    found.sort(key=lambda each: -len(each[3]))
    counts = Counter(images=len(found))
    for path, row, column, image in once_each(found):
        name = f"{path.stem.removeprefix('textual_search_')}_{row}_{column}".replace(" ", "_")
        split = "test" if held_out(name, ONE_IN) else "train"
        counts[split] += 1
        (args.out / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(args.out / split / f"{name}.png"), image)
    counts["seen before"] = counts["images"] - counts["train"] - counts["test"]
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def read(path: Path) -> np.ndarray:
    """The pixels of a sheet."""
    sheet = cv2.imread(str(path))
    if sheet is None:
        raise SystemExit(f"{path} is no image: clone the repository anew")
    return sheet


def images_of(sheet: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Row, column and pixels of each image of a sheet: a grid of squares on black."""
    bright = sheet.max(axis=2) > BLACK
    rows = _runs(bright.mean(axis=1) > FULL)
    if not rows:
        return []
    bright_rows = np.concatenate([bright[start:stop] for start, stop in rows])
    return [
        (row, column, sheet[top:bottom, left:right])
        for row, (top, bottom) in enumerate(rows)
        for column, (left, right) in enumerate(_runs(bright_rows.mean(axis=0) > FULL))
    ]


def _runs(full: np.ndarray) -> list[tuple[int, int]]:
    """Where a row of booleans is true for at least `LEAST` in a row: start, end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(int)))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(start, stop) for start, stop in pairs if stop - start >= LEAST]


def once_each(found: list[tuple]) -> list[tuple]:
    """Those whose last item, an image, looks like none before it."""
    kept, seen = [], np.zeros((0, THUMBNAIL * THUMBNAIL * 3))
    for each in found:
        small = cv2.resize(each[-1], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        differences = np.sqrt(((seen - small.ravel()) ** 2).mean(axis=1))
        if not (differences < SAME).any():
            kept.append(each)
            seen = np.concatenate([seen, small.ravel()[None].astype(float)])
    return kept


if __name__ == "__main__":
    main()
