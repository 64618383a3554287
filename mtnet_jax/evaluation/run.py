"""Runs a detector over a record set: yields (prediction, truth) pairs for `metrics.evaluate`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.inference import Detector, heads_in_picture

Record = Mapping[str, Any]


def predict_records(
    detector: Detector,
    variables: Mapping[str, Any],
    source: Sequence[Record],
    *,
    size: int,
    batch_size: int,
    threads: int = 2,
    limit: int = 0,
) -> Iterator[tuple[dict, dict]]:
    """Predicts every record in order.

    Args:
      detector: from `make_detector`.
      variables: of the network.
      source: random access to decoded records.
      size: side of the network's input.
      batch_size: pictures a call; the last batch is filled up, so nothing recompiles.
      threads: that read, decode and letterbox.
      limit: at most so many records, spread evenly over the source; 0 takes all.

    Yields:
      (prediction, truth) in pixels of the picture; the truth is the record without its picture.
    """
    count = min(limit, len(source)) if limit else len(source)
    indices = np.linspace(0, len(source) - 1, count).round().astype(int) if count else []
    prepared = (
        grain.MapDataset.source([int(i) for i in indices])
        .map(lambda i: _prepare(source[i], size))
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
        )
    )
    waiting: list[dict] = []
    for item in prepared:
        waiting.append(item)
        if len(waiting) == batch_size:
            yield from _predict(detector, variables, waiting, batch_size)
            waiting = []
    if waiting:
        yield from _predict(detector, variables, waiting, batch_size)


def _prepare(record: Record, size: int) -> dict:
    image = record["image"]
    matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
    truth = {name: value for name, value in record.items() if name != "image"}
    truth["width"], truth["height"] = image.shape[1], image.shape[0]
    return {
        "input": geometry.map_picture(image, matrix, size),
        "matrix": matrix,
        "shape": image.shape,
        "truth": truth,
    }


def _predict(
    detector: Detector, variables: Mapping[str, Any], items: list[dict], batch_size: int
) -> Iterator[tuple[dict, dict]]:
    images = np.zeros((batch_size, *items[0]["input"].shape), np.uint8)
    for row, item in enumerate(items):
        images[row] = item["input"]
    heads = jax.device_get(detector(variables, images))
    for row, item in enumerate(items):
        yield heads_in_picture(heads, row, item["matrix"], item["shape"]), item["truth"]
