"""Weights on photographs of many kinds, in one table.

    python -m benchmarks.photographs --data DATA --records records --convert
    python -m benchmarks.photographs --records records --weights weights/release

Sets that are there stay as they are, so `records` must be a folder of its own, or without the
`hardhat` and `pointing04` that README.md makes. Its `hardhat` has the splits `train` and `valid`
and no headings, the one made here `train`, `test` and headings; `pointing04` has other rotations.

DATA holds the images, and `labels/NAME.csv` with a row for each head: image, x1 to y2, heading and
its confidence, and yaw, pitch, roll (canonical) where they are known. With --convert they become
record sets. The split `test` is held out: Hard Hat's `valid`, persons 11 and 12 of Pointing'04, a
fifth of masks and portraits by a hash of the file name, and all of AFLW2000. (What the weights that
ship started from had seen that of masks, portraits and Pointing'04: weights/README.md.) Where
records has them, three more are measured: portraits of the Congress (`benchmarks/member_photos.py`;
a network found their heads, so AP there says how well another agrees with it), generated faces
(`benchmarks/generated_faces.py`; the same goes for them) and rendered people.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.member_photos import held_out
from configs.release import RECORD_SETS
from data_prep.engine.builder import write_record_set
from data_prep.own import csv_heads
from data_prep.own.teacher import Trust, believed, outward
from data_prep.sets import aflw2000
from mtnet_jax.evaluation.run import evaluate_records
from mtnet_jax.evaluation.summary import format_summary
from mtnet_jax.rotations import euler_to_rotation, rotation_to_euler

LABELLED = tuple(name for name in RECORD_SETS if not name.startswith("studio"))
MEASURED = ("hardhat", "masks", "portraits", "pointing04", "aflw2000")
# Measured where they are: benchmarks/member_photos.py and generated_faces.py; rendered people,
# `configs/release_416.py`.
MORE = ("congress_test", "generated_test", "studio_42")
LEAST_CONFIDENCE = 0.5  # of a heading that is used
MESH = Trust(heading=35, outward=1.1)  # docs/results.md, What a face mesh says of turned faces
ANGLES = ("yaw", "pitch", "roll")
COLUMNS = (
    "image",
    "x1",
    "y1",
    "x2",
    "y2",
    *ANGLES,
    "convention",
    "heading",
    "split",
)


def main() -> None:
    """Converts the sets, evaluates weights on them, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, metavar="DIR", help="of the sets")
    parser.add_argument("--data", type=Path, metavar="DIR", help="images and labels")
    parser.add_argument("--convert", action="store_true", help="make the record sets first")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="to be measured")
    parser.add_argument("--size", type=int, metavar="N", help="side of the network's input")
    parser.add_argument("--one-look", action="store_true", help="no second looks")
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"), metavar="DIR")
    args = parser.parse_args()
    if args.convert and args.data is None:
        parser.error("--convert needs --data DIR")
    if args.convert:
        convert(args.data, args.records)
    if args.weights is not None:
        found = {}
        absent = [name for name in MORE if not (args.records / name).exists()]
        for name in (*MEASURED, *(name for name in MORE if name not in absent)):
            results = evaluate_records(
                args.weights,
                args.records / name,
                "test",
                out=args.out,
                size=args.size,
                second_look=False if args.one_look else None,
            )
            found[name] = results["network"]
        print(f"\n{args.weights}, split test\n\n{format_summary(found)}")
        if absent:
            print(f"not in {args.records} and left out: {', '.join(absent)}")


def convert(data: Path, records: Path) -> None:
    """Writes the record sets; those that are there already stay."""
    for name in LABELLED:
        if (records / name).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / f"{name}.csv"
            with table.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(rows(name, data / "labels" / f"{name}.csv"))
            conversion = csv_heads.conversion(data, table, name=name)
            print(write_record_set(conversion, records / name, processes=2).text())
    if not (records / "aflw2000").exists():
        write_record_set(aflw2000.conversion(data / "aflw2000"), records / "aflw2000")


def rows(name: str, labels: Path) -> Iterator[tuple[str, ...]]:
    """The rows of a table of heads, in the order of `COLUMNS`.

    What a face mesh says of faces turned to the side is trained on as docs/results.md mends it. The
    split `test` keeps it as it is, and so does Pointing'04, most of whose rotations are of another
    kind.
    """
    with labels.open(newline="") as file:
        for row in csv.DictReader(file):
            split = split_of(name, row["image"])
            angles = [row[column] for column in ANGLES]
            if row["yaw"] and split == "train" and name != "pointing04":
                angles = mended(angles)
            posed = bool(angles[0])
            sure = row["heading"] and float(row["heading_confidence"]) > LEAST_CONFIDENCE
            yield (
                *(row[column] for column in COLUMNS[:5]),
                *angles,
                "canonical" if posed else "",
                row["heading"] if sure and not posed else "",
                split,
            )


def mended(angles: list[str]) -> list[str]:
    """A face mesh's yaw, pitch and roll, turned out; empty for a face that it cannot read."""
    rotation = euler_to_rotation(np.array([float(x) for x in angles]), convention="canonical")
    if believed(rotation, None, MESH) == "no":
        return ["", "", ""]
    return [f"{x:.2f}" for x in rotation_to_euler(outward(rotation, MESH), convention="canonical")]


def split_of(name: str, image: str) -> str:
    """ "test" for an image that must not be trained on, else "train"."""
    if name == "hardhat":
        return "test" if "/valid/" in image else "train"
    if name == "pointing04":
        return "test" if image.split("/")[1] in ("Person11", "Person12") else "train"
    if name in ("masks", "portraits"):
        return "test" if held_out(image, 5) else "train"
    return "train"


if __name__ == "__main__":
    main()
