"""Heads in images that lie on their side or stand on their head.

    python -m benchmarks.turned --weights weights/release --data records/aflw2000 records/masks

Every image is predicted as it is and turned by a quarter, a half and three quarters; boxes and
rotations of the truth are turned with it. Headings say nothing of heads that lie and are left out.
"""

import functools

import numpy as np

from benchmarks.altered import parser_of, print_measured
from mtnet_jax.data import geometry
from mtnet_jax.data.fitting import Record, Records

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
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--one-look", action="store_true", help="no second looks")
    args = parser.parse_args()
    ways = {
        f"{90 * quarters}°": (functools.partial(Turned, quarters=quarters), {})
        for quarters in QUARTERS
    }
    print_measured(args, ways, batch_size=8, second_looks=False if args.one_look else None)


if __name__ == "__main__":
    main()
