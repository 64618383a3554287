"""What more heads in an image cost: one network for all, or a second network for each.

    python -m benchmarks.heads_in_image

Draws docs/images/heads_cost.png. Images of 1, 5, 20 and 50 heads (cut out of demo/images) go

- one pass: through the weights that ship, image to heads and poses;
- two stages: through the same, for the boxes, and then each head through a network of its own,
  ResNet-50 at 224 pixels (Hopenet's) or FSA-Net's streams at 64 pixels, all heads in one batch, in
  onnxruntime. Their weights are random: cost does not depend on them. The two stages are measured
  apart and added up, the first once for both.

The one pass is measured once more, all images in one process: how much more heads cost at all; and
so are the looks that are taken unless one alone is asked for: the second shows all small heads.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.timing import Contender, Result, measure, table, write_json
from mtnet_jax import Predictor
from mtnet_jax.predict.predictor import read_image

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = str(REPOSITORY / "weights" / "release")
IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))
COUNTS = (1, 5, 20, 50)
COLUMNS, ROWS, CELL = 8, 7, 96  # of the image: places for heads, pixels of each
ROUNDS = 250  # of the images, for the growth
SCORE = 0.05  # low: tiny heads must be found, of images made by scissors
ONE_PASS = "one pass"
STAGES = {"resnet50": "detector, then ResNet-50", "fsanet": "detector, then FSA-Net"}
WAYS = {ONE_PASS: "one pass (this network)", **STAGES}


def image_of_heads(count: int) -> np.ndarray:
    """A grey image with so many heads on it, spread evenly."""
    canvas = np.full((ROWS * CELL, COLUMNS * CELL, 3), 120, np.uint8)
    heads = [_cut_out(path) for path in IMAGES]
    for number, top, left in _places(count):
        canvas[top : top + CELL, left : left + CELL] = heads[number % len(heads)]
    return canvas


def _places(count: int) -> list[tuple[int, int, int]]:
    """Number, top and left of each head."""
    cells = np.linspace(0, ROWS * COLUMNS - 1, count).round().astype(int)
    return [
        (number, int(cell) // COLUMNS * CELL, int(cell) % COLUMNS * CELL)
        for number, cell in enumerate(cells)
    ]


def _cut_out(path: Path) -> np.ndarray:
    """The upper middle of a portrait, where its head is."""
    image = read_image(path)
    height, width = image.shape[:2]
    left = (width - height) // 2
    return cv2.resize(image[:, left : left + height], (CELL, CELL), interpolation=cv2.INTER_AREA)


def one_pass(count: int) -> tuple[Callable, dict[str, Any]]:
    image = image_of_heads(count)
    predictor = Predictor.load(WEIGHTS, score_threshold=SCORE, second_look=False)
    return lambda: predictor(image), {"found": len(predictor(image))}


def growth(rounds: int, second_look: bool) -> dict[int, float]:
    """Milliseconds of the one pass by number of heads, medians.

    One process takes the images in turn: the differences are smaller than those between
    processes.
    """
    # Tiles cost more, once there is a small head.
    predictor = Predictor.load(WEIGHTS, score_threshold=SCORE, second_look=second_look, tile=None)
    images = {count: image_of_heads(count) for count in COUNTS}
    times = {count: [] for count in COUNTS}
    for _ in range(rounds):
        for count, image in images.items():
            start = time.perf_counter()
            predictor(image)
            times[count].append(1e3 * (time.perf_counter() - start))
    return {count: float(np.median(values)) for count, values in times.items()}


def second_stage(count: int, path: str, side: int) -> tuple[Callable, dict[str, Any]]:
    """Crops and their network; the boxes are given: as many as there are heads, found or not."""
    from benchmarks.onnx_models import as_onnx_input, session

    image, network = image_of_heads(count), session(Path(path))
    corners = [(top, left) for _, top, left in _places(count)]

    def run():
        parts = [image[top : top + CELL, left : left + CELL] for top, left in corners]
        crops = np.stack([cv2.resize(part, (side, side)) for part in parts])
        return network.run(None, {"images": as_onnx_input(crops)})

    return run, {}


def seconds_of(results: dict[str, Result], way: str, count: int) -> float:
    """From image to poses: of the one pass, or of both stages."""
    first = results[_name(ONE_PASS, count)].median()
    return first if way == ONE_PASS else first + results[_name(way, count)].median()


def draw(results: dict[str, Result], path: Path) -> None:
    """Milliseconds over the number of heads, one curve a way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.4), dpi=160)
    colours = {ONE_PASS: "#d1495b", "resnet50": "#30638e", "fsanet": "#6a994e"}
    for way, colour in colours.items():
        medians = [1e3 * seconds_of(results, way, count) for count in COUNTS]
        axes.plot(COUNTS, medians, "o-", color=colour, linewidth=2.4, markersize=6)
        axes.annotate(
            f"{WAYS[way]}\n{medians[-1]:,.0f} ms at {COUNTS[-1]} heads",
            (COUNTS[-1], medians[-1]),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
        )
    axes.set_yscale("log")
    axes.set_xlim(0, COUNTS[-1] + 1)
    axes.set_xticks(COUNTS)
    axes.set_xlabel("heads in the image")
    axes.set_ylabel("milliseconds from image to poses")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What more heads in an image cost (two CPU cores)", loc="left", fontsize=11)
    figure.subplots_adjust(left=0.11, right=0.7, top=0.91, bottom=0.13)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _name(way: str, count: int) -> str:
    return f"{way}, {count}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--plot", type=Path, default=REPOSITORY / "docs/images/heads_cost.png")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample")
    args = parser.parse_args()

    from benchmarks.onnx_models import write_crop_network

    with tempfile.TemporaryDirectory() as folder:
        contenders = {_name(ONE_PASS, n): Contender(one_pass, {"count": n}) for n in COUNTS}
        for way in STAGES:
            path = Path(folder) / f"{way}.onnx"
            second = {"path": str(path), "side": write_crop_network(path, way)}
            for count in COUNTS:
                contenders[_name(way, count)] = Contender(second_stage, {"count": count, **second})
        results = measure(contenders, turns=args.turns)
    print(table(results))
    found = [results[_name(ONE_PASS, n)].facts["found"] for n in COUNTS]
    print(f"of {COUNTS} heads the network saw {found} (a score of {SCORE} is enough)")
    print(f"\n{'milliseconds from image to poses':36}" + "".join(f"{n:>9}" for n in COUNTS))
    for way, title in WAYS.items():
        row = [1e3 * seconds_of(results, way, count) for count in COUNTS]
        print(f"{title:36}" + "".join(f"{value:9.1f}" for value in row))
    grown = {}
    for second_look, title in ((False, "the one pass again"), (True, "with second looks")):
        print(f"{title}, {ROUNDS} rounds in one process:")
        medians = grown[title] = growth(ROUNDS, second_look)
        fewest = medians[COUNTS[0]]
        for count, value in medians.items():
            print(f"  {count:2d} heads: {value:.2f} ms, {value / fewest:.3f} of one head's")
    draw(results, args.plot)
    if args.json:
        write_json(args.json, results, {**vars(args), "growth_ms": grown})


if __name__ == "__main__":
    main()
