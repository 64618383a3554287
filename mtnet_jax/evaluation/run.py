"""Runs a network over a record set, and writes what the metrics say of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from tqdm import tqdm

from mtnet_jax.data.fitting import Record, Records
from mtnet_jax.data.images import image_size
from mtnet_jax.data.mixture import class_ids
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.evaluation.constant import ConstantPredictor, constant_predictor
from mtnet_jax.evaluation.heads import HEADS_FILE, head_errors_as_json
from mtnet_jax.evaluation.metrics import Settings, evaluate
from mtnet_jax.evaluation.report import (
    REPORT_FILES,
    format_bins,
    format_classes,
    format_table,
    write_report,
)
from mtnet_jax.heads import FOUND_SCORE, Heads
from mtnet_jax.outputs import Outputs
from mtnet_jax.places import place
from mtnet_jax.predict.far_look import far_look_iou, with_far_looks
from mtnet_jax.predict.inference import EVAL_SCORE_THRESHOLD
from mtnet_jax.predict.placing import heads_in_image, letterboxed
from mtnet_jax.predict.runtimes import Opened, Wanted, open_weights


def evaluate_records(
    weights: Any,
    data: Any,
    split: str,
    *,
    out: Path,
    protocol: str = "matched",
    score_threshold: float = FOUND_SCORE,
    iou_threshold: float = 0.5,
    batch_size: int = 8,
    limit: int = 0,
    size: int | None = None,
    outputs: Outputs | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluates weights on a split; prints the table, writes all files of a report.

    Beside the network stand two constants learned from the set's "train" split, where it has one
    with poses: `constant` says the mean box and pose of every image, `constant pose` the mean
    pose on every true box. What a network learned is what it is ahead of them.

    Args:
      weights: work directory or exported folder.
      data: record set.
      split: of the record set.
      out: the report goes to a folder in it named after set and split; numbered where another set
        of that name has one.
      protocol, score_threshold, iou_threshold: see `metrics.Settings`.
      batch_size: images a call.
      limit: at most so many images, evenly spread; 0: all.
      size: side of the network's input in pixels; None: as trained.
      outputs: of the run of the command, so that two sets of one name get two folders.

    Returns:
      The results of `metrics.evaluate` by system.
    """
    record_set = RecordSet.open(data)
    outputs, of = outputs or Outputs("eval"), f"{record_set.path.resolve()}:{split}"
    folder = outputs.own_folder(out, f"{record_set.name}-{split}", of)
    for name in (*REPORT_FILES, HEADS_FILE):
        outputs.check(folder / name, of)  # before the work
    opened, source, pairs = _predict_split(
        weights, data, split, size=size, batch_size=batch_size, limit=limit
    )
    config = opened.config
    names = tuple(config.class_names)
    settings: dict[str, Any] = {
        "protocol": protocol,
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
    }
    named = {**settings, "class_names": names}
    results = {"network": evaluate(pairs, **named)}
    constant = _constant_of(source, names)
    if constant is not None:
        truths = [truth for _, truth in pairs]
        whole = [(constant.heads(t["width"], t["height"]), t) for t in truths]
        posed = [(constant.on_boxes(t["boxes"], t["labels"]), t) for t in truths]
        results["constant"] = evaluate(whole, **named)
        results["constant pose"] = evaluate(posed, **named)

    info = source.record_set
    title = (
        f"{info.name}/{split}: {len(pairs)} images, boxes by the rule {info.box_rule!r}, "
        f"rotations in the frame {config.frame!r}"
    )
    write_report(outputs, results, folder, title=title, of=of)
    errors = head_errors_as_json(pairs, Settings(**settings))
    outputs.write(folder / HEADS_FILE, errors, of)
    print(f"\n{title}")
    print(format_table(results))
    if len(results["network"]["classes"]) > 1:
        print(f"\n{format_classes(results)}")
    if results["network"]["counts"]["truths_with_heading"]:
        print(format_bins(results))
    print(f"table, JSON and plots: {folder}; the error of each head: {folder / HEADS_FILE}")
    return results


def measure(weights: Any, data: Any, split: str) -> dict[str, Any]:
    """Evaluates weights, or an exported file that gives heads, on a split; writes nothing."""
    opened, _, pairs = _predict_split(weights, data, split, size=None, batch_size=8, limit=0)
    return evaluate(pairs, class_names=tuple(opened.config.class_names))


def _predict_split(
    weights: Any,
    data: Any,
    split: str,
    *,
    size: int | None,
    batch_size: int,
    limit: int,
) -> tuple[Opened, RecordSource, list[tuple[dict, dict]]]:
    path = place(weights)
    wanted = Wanted(
        score_threshold=EVAL_SCORE_THRESHOLD,
        iou_threshold=None,
        runtime="auto" if path.suffix == ".onnx" else "jax",
        size=size,
        device=None,
    )
    opened = open_weights(path, wanted)
    ids = class_ids(RecordSet.open(data), opened.config.class_names)
    source = RecordSource(data, split, label_ids=ids, frame=opened.config.frame)
    predicted = predict_records(
        opened.detect,
        source,
        size=opened.config.input.size,
        batch_size=batch_size,
        limit=limit,
        far_look=far_look_iou(opened.config),
    )
    total = min(limit, len(source)) if limit else len(source)
    return opened, source, list(tqdm(predicted, total=total, unit="image", desc="evaluate"))


def _constant_of(source: RecordSource, class_names: Sequence[str]) -> ConstantPredictor | None:
    """The constant predictor of the set's training split, None where that has no pose."""
    if "train" not in source.record_set.splits:
        return None
    train = RecordSource(
        source.record_set.path,
        "train",
        decode=False,
        label_ids=class_ids(source.record_set, class_names),
        frame=source.frame,
    )
    numbers = tqdm(range(len(train)), unit="image", desc="constant", disable=None)
    truths = [_truth_of(train[i]) for i in numbers]
    if not any((truth["has_pose"] & ~truth["ignore"]).any() for truth in truths):
        return None
    return constant_predictor(truths)


def _truth_of(record: Record) -> dict:
    """The labels of a record, with the size of its image instead of the encoded image."""
    width, height = image_size(record["image"])
    return {**record, "image": None, "width": width, "height": height}


def predict_records(
    detect: Callable[[np.ndarray], Heads],
    source: Records,
    *,
    size: int,
    batch_size: int,
    threads: int = 2,
    limit: int = 0,
    far_look: float | None = None,
) -> Iterator[tuple[dict, dict]]:
    """Predicts every record in order.

    Args:
      detect: images (B, size, size, 3) uint8 -> heads in them.
      source: random access to decoded records.
      size: side of the network's input.
      batch_size: images a call; the last batch is filled up, so nothing recompiles.
      threads: that read, decode and letterbox.
      limit: at most so many records, spread evenly over the source; 0 takes all.
      far_look: second looks are taken (`predict.far_look`), and two heads that overlap by more
        are one; None takes none.

    Yields:
      (prediction, truth) in pixels of the image; the truth is the record without its image.
    """
    count = min(limit, len(source)) if limit else len(source)
    indices = np.linspace(0, max(len(source) - 1, 0), count).round().astype(int).tolist()
    prepared = (
        grain.MapDataset.source(indices)
        .map(lambda i: _prepare(source[i], size))
        .to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
        )
    )
    waiting: list[dict] = []
    for item in prepared:
        waiting.append(item)
        if len(waiting) == batch_size:
            yield from _predict(detect, waiting, batch_size, far_look)
            waiting = []
    if waiting:
        yield from _predict(detect, waiting, batch_size, far_look)


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
    far_look: float | None,
) -> Iterator[tuple[dict, dict]]:
    def filled_up(inputs: np.ndarray) -> Heads:
        empty = [(0, batch_size - len(inputs)), (0, 0), (0, 0), (0, 0)]
        return jax.device_get(detect(np.pad(inputs, empty)))

    heads = filled_up(np.stack([item["input"] for item in items]))
    images = [item["image"] for item in items]
    found = [
        heads_in_image(heads, row, item["matrix"], item["image"].shape)
        for row, item in enumerate(items)
    ]
    if far_look is not None:
        size = items[0]["input"].shape[0]
        found = with_far_looks(filled_up, images, found, size=size, iou_threshold=far_look)
    yield from zip(found, (item["truth"] for item in items), strict=True)
