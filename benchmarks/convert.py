"""Frames a second of a conversion, beside the cost of its images alone.

    python -m benchmarks.convert --raw DATA/hardhat --copies 4

DATA: the folder where the data sets are unpacked (docs/data.md says where to get them).

Contenders, each a whole command from its start to its end, imports and all:

- limit: as many processes read the same images, decode them (the check that every converter
  makes) and write their bytes to a file each. No labels, no shuffling, no checksums.
- convert: `mtnet data convert yolo` on all processors.
- Beam (with --beam): the same on Apache Beam's DirectRunner with as many processes.

`--copies N` links every image N times: the time a process takes to start counts for less in a set
of real size. All files are in the page cache after the first turn, which is not counted.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import Contender, measure, ratio, table, write_json
from mtnet_jax.cpu.cores import usable_cores

Run = tuple[Callable[[], Any], dict[str, Any]]
REPOSITORY = Path(__file__).resolve().parent.parent


def command(words: list[str], out: str) -> Run:
    """Runs a command of this Python, whose output folder is removed before each run."""

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=REPOSITORY)

    return run, {}


def limit(raw: Path, out: Path, processes: int) -> None:
    """What no conversion can do without: every image is read, decoded and written."""
    paths = sorted(raw.glob("*/images/*"))
    out.mkdir()
    shares = [(paths[i::processes], out / f"{i}.bin") for i in range(processes)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.starmap(_read_decode_write, shares)


def _read_decode_write(paths: list[Path], out: Path) -> None:
    import cv2

    from mtnet_jax.data.images import decode_image

    cv2.setNumThreads(1)
    with open(out, "wb") as file:
        for path in paths:
            encoded = path.read_bytes()
            decode_image(encoded)
            file.write(encoded)


def link_copies(raw: Path, folder: Path, copies: int) -> int:
    """Makes a raw folder with every image and label file linked `copies` times."""
    shutil.copy(raw / "data.yaml", folder)
    count = 0
    for images in raw.glob("*/images"):
        for kind in ("images", "labels"):
            (folder / images.parent.name / kind).mkdir(parents=True)
        for image in images.iterdir():
            label = images.parent / "labels" / f"{image.stem}.txt"
            for copy in range(copies):
                for source in (image, label):
                    part = folder / images.parent.name / source.parent.name
                    os.symlink(source.resolve(), part / f"{copy}_{source.name}")
                count += 1
    return count


def main() -> None:
    """Prints the table of the contenders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, help="data set in YOLO layout")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--beam", action="store_true", help="measure the DirectRunner too")
    parser.add_argument("--json", type=Path, help="where every sample is written")
    parser.add_argument("--limit", type=Path, help=argparse.SUPPRESS)  # output: be the contender
    args = parser.parse_args()
    if args.limit:
        limit(args.raw, args.limit, args.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, "raw"), Path(folder, "out")
        raw.mkdir()
        images = link_copies(args.raw, raw, args.copies)
        common = ["--raw", str(raw), "--processes", str(args.processes)]
        convert = ["-m", "data_prep.convert", "yolo", "--out", str(out), *common]
        words = {"limit": ["-m", "benchmarks.convert", *common, "--limit", str(out)]}
        words["convert"] = convert
        if args.beam:
            words["Beam DirectRunner"] = [*convert, "--runner", "DirectRunner"]
        results = measure(
            {
                name: Contender(command, {"words": line, "out": str(out)})
                for name, line in words.items()
            },
            turns=args.turns,
        )
    print(f"{images} images, {args.processes} processes")
    print(table(results))
    for name, result in results.items():
        share = 1 / ratio(result, results["limit"])[0]
        print(f"{name}: {images / result.median():.0f} images/s, {share:.0%} of the limit")
    if args.json:
        write_json(args.json, results, {"images": images, "processes": args.processes})


if __name__ == "__main__":
    main()
