"""Packed inputs: head-centred crops of several records, side by side in one input.

Most pixels of an ordinary training image hold no head. A packed input is a square of tiles, each a
crop of another record round a head that is drawn at random, so that one input trains many heads for
the same cost. Heads whose heading is rare in their source are drawn more often.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from mtnet_jax.boxes import longer_side_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions, change_colour, random_turn
from mtnet_jax.data.fitting import (
    MIN_VISIBLE,
    Record,
    Records,
    fit_heads,
    naming_image,
    visible_share,
)
from mtnet_jax.data.images import decode_at_scale
from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import heading_degrees

_SMALLEST_HEAD = 12.0  # pixels along the longer side: smaller ones are not worth a tile
_SECTOR = 45.0  # degrees of heading that are counted together
# Labels are read by so many threads, each so many records in a row: elsewhere each is a request.
_READERS, _IN_A_ROW = 16, 64


class PackOptions(NamedTuple):
    """How inputs are packed."""

    share: float = 0.0  # of the inputs that are packed, 0 to 1
    tiles: tuple[int, ...] = (1, 2, 3, 4)  # along a side; drawn anew for each input
    head_min: float = 0.35  # longer side of the head, in parts of the tile's side,
    head_max: float = 0.9  # log-uniform between the two
    shift: float = 0.12  # of the head's centre from the tile's, in parts of the tile, either way
    occlude: float = 0.1  # probability that a patch hides a part of the head
    cut: float = 0.0  # probability that the photograph ends within the head
    heading_only: float = 1.0  # how often heads with a heading alone come, against posed ones
    unlabelled: float = 0.1  # how often heads without pose and heading come, against others


def check_pack_options(options: PackOptions) -> None:
    """Raises ValueError for an option out of its range, by its name in a configuration."""
    faults = {
        name: "must be from 0 to 1"
        for name in ("share", "shift", "occlude", "cut", "heading_only", "unlabelled")
        if not 0 <= getattr(options, name) <= 1
    }
    if not options.tiles or any(int(n) != n or n < 1 for n in options.tiles):
        faults["tiles"] = "must be whole numbers from 1"
    if not 0 < options.head_min <= options.head_max:
        faults["head_min"] = f"must be above 0 and at most head_max, {options.head_max}"
    for name, fault in faults.items():
        raise BadInput(f"config.pack.{name} is {getattr(options, name)}: it {fault}.")


class Packer:
    """Makes packed inputs: `packer(rng, size)` is the image and its heads as `fit_heads` has them.

    Picklable where its sources are.
    """

    def __init__(
        self,
        sources: Sequence[Records],
        weights: Sequence[float],
        options: PackOptions,
        augment: AugmentOptions,
    ):
        """Reads the labels of all records once.

        Args:
          sources: record sources, images still encoded.
          weights: share of the tiles that each source gets, relative.
          options: of the packing.
          augment: changes of each tile, but for those of scale and shift.

        Raises:
          ValueError: an option out of its range, or no head to pack.
        """
        check_pack_options(options)
        self.options = options
        self._sources, self._augment = sources, augment
        places, chances = [], []
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            found, chance = _heads_of(source, options)
            places.append(np.column_stack([np.full(len(found), number), found]))
            chances.append(chance * weight)
        self._places = np.concatenate(places).astype(np.int32)  # (n, 3) source, record, head
        self._cumulative = np.cumsum(np.concatenate(chances))
        if not len(self._places) or not self._cumulative[-1] > 0:
            raise BadInput(
                "config.pack.share is above 0, but no record has a head of "
                f"{_SMALLEST_HEAD:g} pixels to pack: set it to 0."
            )

    def __call__(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """A packed input of `size` pixels: `image` (size, size, 3) uint8 RGB, and its heads.

        Raises:
          BadRecord: an image cannot be decoded; its `image_id` is named.
        """
        count = int(rng.choice(self.options.tiles))
        # Tiles are square; where their sides do not divide, they overlap by a pixel.
        side = -(-size // count)
        starts = np.linspace(0, size - side, count).round().astype(int)
        image = np.full((size, size, 3), geometry.BORDER_GREY, np.uint8)
        draws = rng.uniform(0, self._cumulative[-1], count * count)
        chosen = np.searchsorted(self._cumulative, draws, side="right")
        heads = []
        for cell, place in enumerate(self._places[np.minimum(chosen, len(self._places) - 1)]):
            row, column = divmod(cell, count)
            left, top = starts[column], starts[row]
            tile, found = self._tile(rng, place, side)
            image[top : top + side, left : left + side] = tile
            found["boxes"] = found["boxes"] + np.array([left, top, left, top], np.float32)
            heads.append(found)
        return {
            "image": image,
            **{name: np.concatenate([each[name] for each in heads]) for name in heads[0]},
        }

    def _tile(
        self, rng: np.random.Generator, place: np.ndarray, side: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        number, index, head = (int(n) for n in place)
        record = self._sources[number][index]
        matrix = self._crop(rng, record["boxes"][head], side)
        with naming_image(record):
            image = decode_at_scale(record["image"], geometry.scale_of(matrix))
        from_pixels = geometry.compose(geometry.scale_map(image.factor), matrix)
        tile = geometry.map_image(image.pixels, from_pixels, side)
        tile = change_colour(rng, tile, self._augment)
        boxes = geometry.map_boxes(record["boxes"], matrix)
        if rng.random() < self.options.occlude:
            _occlude(rng, tile, boxes[head])
        if self.options.cut and rng.random() < self.options.cut:
            left = _cut(rng, tile, boxes[head])
            painted_over = visible_share(boxes, left) < MIN_VISIBLE
            painted_over[head] = False
            record = {**record, "ignore": record["ignore"] | painted_over}
        return tile, fit_heads(record, matrix, side)

    def _crop(self, rng: np.random.Generator, box: np.ndarray, side: int) -> np.ndarray:
        """The map (2, 3) from a record's image to a tile round the head of this box."""
        options, augment = self.options, self._augment
        part = np.exp(rng.uniform(np.log(options.head_min), np.log(options.head_max)))
        scale = part * side / max(float(longer_side_xyxy(box)), 1.0)
        flip = -1.0 if rng.random() < augment.flip else 1.0
        turn = random_turn(rng, augment)
        centre = (box[:2] + box[2:]) / 2
        target = side * (0.5 + rng.uniform(-options.shift, options.shift, 2))
        return geometry.similarity_map(scale, turn, flip, centre, target)


def make_packer(
    sources: Sequence[Records],
    weights: Sequence[float],
    options: PackOptions,
    augment: AugmentOptions,
) -> Packer | None:
    """A `Packer`, which has read the labels of all records; None where nothing is to be packed."""
    check_pack_options(options)
    return Packer(sources, weights, options, augment) if options.share > 0 else None


def _heads_of(source: Records, options: PackOptions) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) record and head of all that can be packed, and (n,) chances of sum 1 (or none)."""
    places: list[tuple[int, int]] = []
    sector_of: list[int] = []
    posed: list[bool] = []

    def read(first: int) -> list[tuple[list[int], list[int], list[bool]]]:
        return [_packable(source[i]) for i in range(first, min(first + _IN_A_ROW, len(source)))]

    firsts = range(0, len(source), _IN_A_ROW)
    with ThreadPoolExecutor(_READERS) as pool:
        for first, rows in zip(firsts, pool.map(read, firsts), strict=True):
            for index, (heads, sectors_of_heads, have_pose) in enumerate(rows, start=first):
                places += [(index, head) for head in heads]
                sector_of += sectors_of_heads
                posed += have_pose
    if not places:
        return np.zeros((0, 2), int), np.zeros(0)
    sectors = np.array(sector_of)
    values, counts = np.unique(sectors, return_counts=True)
    # Between all heads alike and all sectors alike.
    of_sector = {v: n**-0.5 for v, n in zip(values.tolist(), counts.tolist(), strict=True)}
    chances = np.array([of_sector[s] for s in sectors.tolist()])
    known = sectors >= 0
    if known.any():
        chances[~known] = options.unlabelled * chances[known].mean()
        chances[known & ~np.array(posed)] *= options.heading_only
    return np.array(places), chances / (chances.sum() or 1.0)


def _packable(record: Record) -> tuple[list[int], list[int], list[bool]]:
    """The heads of a record that can be packed: number, sector (-1: not known), has a pose."""
    fit = ~record["ignore"] & (longer_side_xyxy(record["boxes"]) >= _SMALLEST_HEAD)
    heading = np.where(record["has_pose"], heading_degrees(record["rotations"]), record["headings"])
    sector = np.round(np.asarray(heading) / _SECTOR).astype(int) % round(360 / _SECTOR)
    sector[~(record["has_pose"] | record["has_heading"])] = -1
    heads = np.flatnonzero(fit).tolist()
    return heads, sector[fit].tolist(), record["has_pose"][fit].tolist()


def _occlude(rng: np.random.Generator, tile: np.ndarray, box: np.ndarray) -> None:
    """Hides a part of a head, at most a quarter of its box, behind a patch of one colour."""
    width, height = box[2:] - box[:2]
    w, h = width * rng.uniform(0.15, 0.5), height * rng.uniform(0.15, 0.5)
    x, y = box[0] + rng.uniform(-0.2, 1) * width, box[1] + rng.uniform(-0.2, 1) * height
    rows = slice(max(round(y), 0), max(round(y + h), 0))
    columns = slice(max(round(x), 0), max(round(x + w), 0))
    tile[rows, columns] = rng.integers(0, 256, 3)


def _cut(rng: np.random.Generator, tile: np.ndarray, box: np.ndarray) -> tuple[int, ...]:
    """Ends the photograph within a head, as one that is cut close does: 5 to 35 % of it go.

    Beyond the edge lies what prediction has there, a black rim, as edited photographs have, or
    another colour. The box stays that of the whole head, as behind a patch: prediction cuts boxes
    where the image ends, and a rim within the image is like all else that hides a head.

    Returns:
      What is left of the photograph, xyxy.
    """
    edge = int(rng.integers(4))  # left, top, right, bottom
    axis, far = edge % 2, edge >= 2
    hidden = rng.uniform(0.05, 0.35) * (box[axis + 2] - box[axis])
    place = int(np.clip(round(box[edge] + (-hidden if far else hidden)), 0, len(tile)))
    colour = (geometry.BORDER_GREY, 0, rng.integers(0, 256, 3))[int(rng.integers(3))]
    beyond = slice(place, None) if far else slice(0, place)
    tile[(slice(None), beyond) if axis == 0 else beyond] = colour
    left = [0, 0, len(tile), len(tile)]
    left[edge] = place
    return tuple(left)
