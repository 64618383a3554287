"""Small heads in large images: photographs side by side, looked at with and without tiles.

    python -m benchmarks.collages --data records/hardhat records/masks --limit 12

Each image is a square of photographs of 416 pixels or less, which no look changes: what a network
finds in them alone (`mtnet eval`) is what it could find here. Heads of 20 pixels are 7 pixels large
in the input of the first look.
"""

import functools

import cv2
import numpy as np

from benchmarks.altered import parser_of, print_measured
from mtnet_jax.data.fitting import Record, Records
from mtnet_jax.data.geometry import BORDER_GREY
from mtnet_jax.predict.tiles import AUTO, Tile

CELL = 416  # pixels of the side that a photograph gets
OF_HEADS = ("boxes", "labels", "ignore", "rotations", "has_pose", "headings", "has_heading")
TILES: dict[str, Tile] = {"no tiles": None, "tiles": AUTO}


class Collages:
    """Records of several photographs each, in an order of chance that is always the same."""

    def __init__(self, records: Records, along: int):
        self._records, self._along = records, along
        self._order = np.random.default_rng(0).permutation(len(records))

    def __len__(self) -> int:
        return len(self._order) // self._along**2

    def __getitem__(self, index: int) -> Record:
        side, count = self._along * CELL, self._along**2
        image = np.full((side, side, 3), BORDER_GREY, np.uint8)
        parts = []
        for cell, number in enumerate(self._order[index * count : (index + 1) * count]):
            row, column = divmod(cell, self._along)
            record = self._records[int(number)]
            pixels = record["image"]
            scale = min(CELL / max(pixels.shape[:2]), 1.0)
            if scale < 1:
                pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            left, top = column * CELL, row * CELL
            image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            boxes = record["boxes"] * scale + np.array([left, top, left, top], np.float32)
            parts.append({**record, "boxes": boxes})
        heads = {name: np.concatenate([part[name] for part in parts]) for name in OF_HEADS}
        return {"image_id": f"collage {index}", "image": image, **heads}


def main() -> None:
    """Prints a line for each set, with tiles and without."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument(
        "--along", type=int, default=3, metavar="N", help="photographs along a side"
    )
    args = parser.parse_args()
    collages = functools.partial(Collages, along=args.along)
    ways = {name: (collages, {"tile": tile}) for name, tile in TILES.items()}
    print_measured(args, ways, batch_size=1)


if __name__ == "__main__":
    main()
