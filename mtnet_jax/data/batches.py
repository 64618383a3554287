"""Records -> batches of fixed shape: letterbox or augmentation, padding, shuffling, position.

Built on grain: random access gives a global shuffle for a seed, a slice for each host, and an exact
position to resume from, whatever the number of threads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from mtnet_jax.anchors import STRIDES
from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions, change_colour, check_options, random_map
from mtnet_jax.data.fitting import Record, Records, fit_heads, naming_image
from mtnet_jax.data.images import decode_shrunk
from mtnet_jax.data.packing import Packer
from mtnet_jax.errors import BadInput
from mtnet_jax.targets import Truths
from mtnet_jax.workers import Elsewhere

Batch = dict[str, np.ndarray]
# Of each row of a batch: number of the source, number of the record, seed of its changes.
_Work = list[tuple[int, int, int]]

# Rows of a batch that a process reads at once. Whole batches of 1,024 at 416 pixels, one or two for
# each of 32 processes, would be 35 GB.
ROWS_AT_ONCE = 64

_CURE = (
    "config.loader_processes=0 needs the least memory; the same command goes on from the last "
    "checkpoint"
)


def augment_record(
    record: Record, rng: np.random.Generator, size: int, options: AugmentOptions
) -> dict[str, np.ndarray]:
    """Decodes a record's image and changes it at random.

    Args:
      record: `image` still encoded.
      rng: what the change depends on, and nothing else does.
      size: side of the network's input.
      options: how far it may be changed.

    Returns:
      `image` (size, size, 3) uint8 RGB, and the heads as of `fit_heads`.

    Raises:
      BadRecord: the image cannot be decoded; its `image_id` is named.
    """
    change = random_map(rng, size, options)
    with naming_image(record):
        # The whole image is letterboxed to `size`, then changed, all in one map: no more of its
        # pixels are needed than end up in the input.
        decoded = decode_shrunk(record["image"], longest=size * geometry.scale_of(change))
    letterbox = geometry.letterbox_map(decoded.width, decoded.height, size)
    matrix = geometry.compose(letterbox, change)
    from_pixels = geometry.compose(geometry.scale_map(decoded.factor), matrix)
    image = geometry.map_image(decoded.pixels, from_pixels, size)
    return {"image": change_colour(rng, image, options), **fit_heads(record, matrix, size)}


def pad_heads(fitted: Mapping[str, np.ndarray], max_heads: int) -> Batch:
    """Pads the heads of a fitted record to `max_heads` slots, the largest boxes first.

    Returns:
      `image`, the fields of `Truths`, and `dropped`: how many heads found no slot.
    """
    boxes = fitted["boxes"]
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
    largest, rest = order[:max_heads], order[max_heads:]
    count = len(largest)
    padded: dict[str, Any] = {
        "boxes": np.zeros((max_heads, 4), np.float32),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (max_heads, 1, 1)),
        "has_pose": np.zeros(max_heads, bool),
        "ignore": np.zeros(max_heads, bool),
        "labels": np.zeros(max_heads, np.int32),
        "headings": np.zeros(max_heads, np.float32),
        "has_heading": np.zeros(max_heads, bool),
        "valid": np.arange(max_heads) < count,
    }
    for name in padded.keys() - {"valid"}:
        padded[name][:count] = fitted[name][largest]
    return {
        "image": fitted["image"],
        **padded,
        "unlabelled": touched_cells(boxes[rest], fitted["image"].shape[0]),
        "dropped": np.int32(len(rest)),
    }


def touched_cells(boxes: np.ndarray, size: int) -> np.ndarray:
    """Which cells of the three grids share area with any of some boxes.

    A prediction that overlaps a box by half has its centre in it, hence in one of these cells.

    Args:
      boxes: (n, 4) xyxy pixels of the input.
      size: side of the input.

    Returns:
      (sum of K^2,) bool, coarse to fine, row by row, as the predictions are numbered.
    """
    grids = []
    for stride in STRIDES:
        touched = np.zeros((size // stride, size // stride), bool)
        first = np.floor(boxes[:, :2] / stride).astype(int).clip(0)
        last = np.ceil(boxes[:, 2:] / stride).astype(int)
        for (left, top), (right, bottom) in zip(first, last, strict=True):
            touched[top:bottom, left:right] = True
        grids.append(touched.ravel())
    return np.concatenate(grids)


def truths_of(batch: Mapping[str, Any]) -> Truths:
    """The true heads of a batch."""
    return Truths(**{name: batch[name] for name in Truths._fields if name in batch})


def training_batches(
    sources: Sequence[Records],
    weights: Sequence[float],
    *,
    size: int,
    batch_size: int,
    max_heads: int,
    options: AugmentOptions,
    seed: int,
    threads: int,
    processes: int = 0,
    packer: Packer | None = None,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator:
    """An endless stream of training batches, the same for a seed whatever reads them.

    Args:
      sources: record sources (random access, images still encoded), mixed for each batch.
      weights: relative share of each source in the stream.
      size: side of the network's input.
      batch_size: images a batch, of all hosts together.
      max_heads: slots an image.
      options: augmentation.
      seed: of order and augmentation.
      threads: that read, decode and augment, where no processes do.
      processes: that do it beside this one, for threads that wait for them; 0: none.
      packer: packs a share of the images from crops of several records; None packs none.
      host: number of this host.
      hosts: how many share each batch, alike: each has its rows of it.

    Returns:
      An iterator with `get_state()` and `set_state(state)`: the exact position, which is the same
      for any number of hosts, threads and processes. A record that cannot be read raises (see
      `RecordSource`) when its batch is due.

    Raises:
      ValueError: an option of augmentation out of its range, or a source without records.
    """
    check_options(options)
    # Records are worked on side by side: threads of OpenCV's own would only be in the way.
    cv2.setNumThreads(1)
    for source in sources:
        if not len(source):
            raise BadInput(f"{source!r}: it has 0 records.")
    # The [:] selects all: without it grain would derive other seeds, and with them another order,
    # than runs of before had.
    #
    # grain orders the places of records; their content first comes in with a whole batch. So its
    # work for each element of each stage stays small.
    places = [
        grain.MapDataset.source(_Places(number, source)).seed(seed + number)[:]
        for number, source in enumerate(sources)
    ]
    read: Callable[[_Work], Batch] = _Reader(sources, size, max_heads, options, packer)
    if processes:
        read = _InParts(Elsewhere(read, processes, [__name__], when_one_dies=_CURE))
        threads = threads_for(processes, rows=-(-batch_size // hosts))
    streams = [place.shuffle().repeat() for place in places]
    mixed = grain.MapDataset.mix(streams, weights) if len(streams) > 1 else streams[0]
    return iter(
        grain.MapDataset.source(_Rows(mixed, batch_size, host, hosts))
        .seed(seed)
        .random_map(_ReadBatch(read))
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * max(threads, 1))
        )
    )


def threads_for(processes: int, *, rows: int) -> int:
    """How many batches must be read at once to keep all processes busy, and one more.

    Args:
      processes: that read up to `ROWS_AT_ONCE` rows each.
      rows: of a batch, on this host.
    """
    parts = -(-rows // ROWS_AT_ONCE)
    return -(-processes // parts) + 1


class _Places:
    """Stands for a record source: (number of the source, number of the record)."""

    def __init__(self, number: int, source: Records):
        self._number, self._source = number, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._number, int(index)

    def __repr__(self) -> str:
        # grain keeps it in its iterator state, to notice a changed source.
        return repr(self._source)


class _Rows:
    """The rows of each batch that are this host's: places, and which rows of how many they are.

    Each host orders its own rows alone, out of the one order of all: work that would grow with the
    number of hosts stays small.
    """

    def __init__(self, places: grain.MapDataset, batch_size: int, host: int, hosts: int):
        self._places, self._batch_size = places, batch_size
        self._rows = range(host * batch_size // hosts, (host + 1) * batch_size // hosts)

    def __len__(self) -> int:
        return len(self._places) // self._batch_size

    def __getitem__(self, number: int) -> tuple[list[tuple[int, int]], range, int]:
        first = number * self._batch_size
        return [self._places[first + row] for row in self._rows], self._rows, self._batch_size


class _ReadBatch(grain.transforms.RandomMap):
    """Gives each record of a batch of places its seed, and has them read."""

    def __init__(self, read: Callable[[_Work], Batch]):
        self._read = read

    def random_map(
        self, batch: tuple[list[tuple[int, int]], range, int], rng: np.random.Generator
    ) -> Batch:
        places, mine, batch_size = batch
        # Seeds for the rows of all hosts: a record is changed alike whichever host it is on.
        seeds = rng.integers(0, 2**63, batch_size)[mine.start : mine.stop]
        return self._read([(*place, int(seed)) for place, seed in zip(places, seeds, strict=True)])


class _InParts:
    """Has processes read a batch, each a part of its rows at a time."""

    def __init__(self, elsewhere: Elsewhere):
        self._elsewhere = elsewhere

    def __call__(self, batch: _Work) -> Batch:
        starts = range(0, len(batch), ROWS_AT_ONCE)
        parts = self._elsewhere.of_each([batch[i : i + ROWS_AT_ONCE] for i in starts])
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Reader:
    """Reads, augments and pads the records of a batch. Picklable where its sources are."""

    def __init__(
        self,
        sources: Sequence[Records],
        size: int,
        max_heads: int,
        options: AugmentOptions,
        packer: Packer | None,
    ):
        self._sources, self._packer = sources, packer
        self._size, self._max_heads, self._options = size, max_heads, options

    def __call__(self, batch: _Work) -> Batch:
        rows = []
        for number, index, seed in batch:
            rng = np.random.Generator(np.random.SFC64(seed))
            if self._packer is not None and rng.random() < self._packer.options.share:
                changed = self._packer(rng, self._size)
            else:
                record = self._sources[number][index]
                changed = augment_record(record, rng, self._size, self._options)
            rows.append(pad_heads(changed, self._max_heads))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
