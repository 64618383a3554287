"""What was found in the images of a record set, beside what is true: by a network, or by a program
whose predictions lie in a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from tqdm import tqdm

from mtnet_jax.data.fitting import Record, Records
from mtnet_jax.data.images import image_size
from mtnet_jax.data.mixture import class_ids
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.evaluation.foreign import is_foreign, read_predictions
from mtnet_jax.heads import Heads
from mtnet_jax.places import place
from mtnet_jax.predict.inference import EVAL_PRECISION, EVAL_SCORE_THRESHOLD
from mtnet_jax.predict.looks import look_at
from mtnet_jax.predict.onnx_runtime import lone_file
from mtnet_jax.predict.placing import letterboxed
from mtnet_jax.predict.runtimes import Wanted, open_weights
from mtnet_jax.predict.second_look import looks_again
from mtnet_jax.predict.tiles import AUTO, Tile
from mtnet_jax.run_metrics import LAST, Step


class Predicted(NamedTuple):
    """Predictions and truths of a split.

    Attributes:
      source: of the records; their labels are classes, their rotations in the frame of the
        predictions.
      class_names: of the predictions.
      measured: what made them, as a report says it: "weights", and of a network its "step" (None
        outside of a work directory), "size" and "second_look".
      pairs: (prediction, truth) of each image, as `metrics.evaluate` takes them; a truth is the
        record without its image, with "width" and "height".
    """

    source: RecordSource
    class_names: tuple[str, ...]
    measured: dict[str, Any]
    pairs: list[tuple[dict, dict]]


def predict_split(
    weights: Any,
    data: Any,
    split: str,
    *,
    size: int | None = None,
    step: Step = LAST,
    batch_size: int = 8,
    limit: int = 0,
    second_look: bool | None = None,
) -> Predicted:
    """Predicts the images of a split, or looks up what a program found in them.

    Args:
      weights: work directory, export or one of its files; or a JSON file of predictions
        (`evaluation.foreign`).
      data: record set.
      split: of the record set.
      size: side of the network's input in pixels; None: as trained.
      step: which checkpoint of a work directory, see `mtnet_jax.weights.load_step`.
      batch_size: images a call.
      limit: at most so many images, evenly spread; 0: all.
      second_look: see `predict.predictor.Predictor`.

    Raises:
      FileNotFoundError, ValueError: what is missing, or does not fit.
    """
    if is_foreign(weights):
        return _look_up(weights, data, split, limit)
    path = place(weights)
    path = lone_file(path) if isinstance(path, Path) else path
    wanted = Wanted(
        score_threshold=EVAL_SCORE_THRESHOLD,
        iou_threshold=None,
        runtime="auto" if path.suffix == ".onnx" else "jax",
        size=size,
        device=None,
        step=step,
        precision=EVAL_PRECISION,
    )
    opened = open_weights(path, wanted)
    class_names = tuple(opened.config.class_names)
    source = source_of(data, split, class_names, opened.config.frame)
    looks = looks_again(opened.config, second_look)
    predicted = predict_records(
        opened.detect,
        source,
        size=opened.config.input.size,
        batch_size=batch_size,
        limit=limit,
        iou_threshold=opened.config.decode.iou_threshold,
        second_looks=looks,
    )
    total = len(spread(len(source), limit))
    pairs = list(tqdm(predicted, total=total, unit="image", desc="evaluate"))
    measured = {
        "weights": str(weights),
        "step": opened.step,
        "size": opened.config.input.size,
        "second_look": looks,
    }
    return Predicted(source, class_names, measured, pairs)


def source_of(
    data: Any, split: str, class_names: tuple[str, ...], frame: str, *, decode: bool = True
) -> RecordSource:
    """A split whose labels are the classes of predictions, by name."""
    ids = class_ids(RecordSet.open(data), class_names)
    return RecordSource(data, split, label_ids=ids, frame=frame, decode=decode)


def truth_of(record: Record) -> dict:
    """The labels of a record, with the size of its image instead of the encoded image."""
    width, height = image_size(record["image"])
    return {**record, "image": None, "width": width, "height": height}


def _look_up(file: Any, data: Any, split: str, limit: int) -> Predicted:
    found = read_predictions(file).among(RecordSet.open(data).label_names)
    if found.warning:
        print(f"{file}: {found.warning}")
    source = source_of(data, split, found.class_names, found.frame, decode=False)
    truths = [truth_of(source[i]) for i in spread(len(source), limit)]
    heads = found.of_images(
        [truth["image_id"] for truth in truths],
        [(truth["width"], truth["height"]) for truth in truths],
    )
    pairs = [(dict(each), truth) for each, truth in zip(heads, truths, strict=True)]
    return Predicted(source, found.class_names, {"weights": str(file)}, pairs)


def spread(length: int, limit: int) -> list[int]:
    """The numbers of at most `limit` records, spread evenly; 0 takes all."""
    count = min(limit, length) if limit else length
    return np.linspace(0, max(length - 1, 0), count).round().astype(int).tolist()


def predict_records(
    detect: Callable[[np.ndarray], Heads],
    source: Records,
    *,
    size: int,
    batch_size: int,
    threads: int = 2,
    limit: int = 0,
    iou_threshold: float = 0.5,
    second_looks: bool = False,
    tile: Tile = AUTO,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[tuple[dict, dict]]:
    """Predicts every record in order.

    Args:
      detect: images (B, size, size, 3) uint8 -> heads in them.
      source: random access to decoded records.
      size: side of the network's input.
      batch_size: images a call; the last batch is filled up, so nothing recompiles.
      threads: that read, decode and letterbox.
      limit: at most so many records, spread evenly over the source; 0 takes all.
      iou_threshold: of heads of several looks that are one.
      second_looks: whether images are looked at more than once.
      tile: see `predict.looks.look_at`.
      host: number of this host, from 0.
      hosts: how many share the records; each has every so many-th of them.

    Yields:
      (prediction, truth) in pixels of the image; the truth is the record without its image.
    """
    prepared = (
        grain.MapDataset.source(spread(len(source), limit)[host::hosts])
        .map(lambda i: _prepare(source[i], size))
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
        )
    )
    looks = {"iou_threshold": iou_threshold, "second_looks": second_looks, "tile": tile}
    waiting: list[dict] = []
    for item in prepared:
        waiting.append(item)
        if len(waiting) == batch_size:
            yield from _predict(detect, waiting, batch_size, looks)
            waiting = []
    if waiting:
        yield from _predict(detect, waiting, batch_size, looks)


def _prepare(record: Record, size: int) -> dict:
    image = record["image"]
    network_input, matrix = letterboxed(image, size)
    truth = {name: value for name, value in record.items() if name != "image"}
    truth["width"], truth["height"] = image.shape[1], image.shape[0]
    return {
        "input": network_input,
        "matrix": matrix,
        "image": image,
        "truth": truth,
    }


def _predict(
    detect: Callable[[np.ndarray], Heads],
    items: list[dict],
    batch_size: int,
    looks: dict[str, Any],
) -> Iterator[tuple[dict, dict]]:
    def filled_up(inputs: np.ndarray) -> Heads:
        empty = [(0, batch_size - len(inputs)), (0, 0), (0, 0), (0, 0)]
        return jax.device_get(detect(np.pad(inputs, empty)))

    images, inputs, matrices = (
        [item[name] for item in items] for name in ("image", "input", "matrix")
    )
    found = look_at(filled_up, images, inputs, matrices, **looks)
    yield from zip(found, (item["truth"] for item in items), strict=True)
