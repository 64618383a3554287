"""Heads in images that lie on their side or stand on their head.

    python -m benchmarks.turned --weights weights/release --data records/aflw2000 records/masks

Every image is predicted as it is and turned by a quarter, a half and three quarters; boxes and
rotations of the truth are turned with it. Headings say nothing of heads that lie and are left out.
"""

import argparse
from typing import Any

import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.data.fitting import Record, Records
from mtnet_jax.data.selection import parse_selection
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.predicted import EVAL_SCORE_THRESHOLD, predict_records, source_of
from mtnet_jax.evaluation.summary import format_summary
from mtnet_jax.predict.runtimes import Wanted, open_weights
from mtnet_jax.predict.second_look import looks_again
from mtnet_jax.run_metrics import LAST
from mtnet_jax.shipped import weights_folder

QUARTERS = (0, 1, 2, 3)


class Turned:
    """Records whose images are turned clockwise by quarters of a circle."""

    def __init__(self, records: Records, quarters: int):
        self._records, self._quarters = records, quarters

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        height, width = record["image"].shape[:2]
        matrix = geometry.quarter_turn_map(width, height, self._quarters)
        return {
            **record,
            "image": np.ascontiguousarray(np.rot90(record["image"], -self._quarters)),
            "boxes": geometry.map_boxes(record["boxes"], matrix),
            "rotations": geometry.map_rotations(record["rotations"], matrix),
            "has_heading": np.zeros_like(record["has_heading"]),
        }


def main() -> None:
    """Prints a line for each set and turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", metavar="PATH", help="default: those that ship")
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR[:SPLIT]")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="images of each set")
    parser.add_argument("--one-look", action="store_true", help="no second looks")
    args = parser.parse_args()
    wanted = Wanted(EVAL_SCORE_THRESHOLD, None, "auto", None, None, LAST)
    opened = open_weights(weights_folder(args.weights), wanted)
    second_looks = looks_again(opened.config, False if args.one_look else None)
    found: dict[str, Any] = {}
    for path, split in (parse_selection(entry, default="test") for entry in args.data):
        source = source_of(path, split, tuple(opened.config.class_names), opened.config.frame)
        for quarters in QUARTERS:
            pairs = predict_records(
                opened.detect,
                Turned(source, quarters),
                size=opened.config.input.size,
                batch_size=8,
                limit=args.limit,
                iou_threshold=opened.config.decode.iou_threshold,
                second_looks=second_looks,
            )
            found[f"{path.name}, {90 * quarters}°"] = evaluate(list(pairs))
    print(format_summary(found))


if __name__ == "__main__":
    main()
