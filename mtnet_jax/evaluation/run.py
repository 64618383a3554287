"""Evaluates weights, or predictions, on a record set, and writes what the metrics say of them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.evaluation.constant import ConstantPredictor, constant_predictor
from mtnet_jax.evaluation.heads import HEADS_FILE, head_errors_as_json
from mtnet_jax.evaluation.metrics import Settings, evaluate, image_state, merge_states, summarise
from mtnet_jax.evaluation.predicted import Predicted, predict_split, source_of, truth_of
from mtnet_jax.evaluation.report import (
    REPORT_FILES,
    format_bins,
    format_classes,
    format_table,
    write_report,
)
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.outputs import Outputs
from mtnet_jax.run_metrics import LAST, Step


class Evaluation(NamedTuple):
    """What became of weights on a split.

    Attributes:
      results: name of the system -> result of `metrics.evaluate`: "network" (or whatever program
        made the predictions), and constants.
      folder: of the report.
      of: the records, as `outputs` names the input.
      image_ids: of the images.
      rows: of each image, the rows of its heads (`metrics.TRUTH_ROW`); none where the protocol
        skips it.
    """

    results: dict[str, dict[str, Any]]
    folder: Path
    of: str
    image_ids: list[str]
    rows: list[np.ndarray]


def evaluate_records(weights: Any, data: Any, split: str, **options: Any) -> dict[str, dict]:
    """The results of `evaluate_split` by system."""
    return evaluate_split(weights, data, split, **options).results


def evaluate_split(
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
    step: Step = LAST,
    second_look: bool | None = None,
    called: str = "",
    outputs: Outputs | None = None,
) -> Evaluation:
    """Evaluates weights on a split; prints the table, writes all files of a report.

    Beside the network stand two constants learned from the set's "train" split, where it has one
    with poses: `constant` says the mean box and pose of every image, `constant pose` the mean
    pose on every true box. What a network learned is what it is ahead of them.

    Args:
      weights, data, split: see `predicted.predict_split`.
      out: the report goes to a folder in it named after set and split; numbered where another set
        of that name has one.
      protocol, score_threshold, iou_threshold: see `metrics.Settings`.
      batch_size, limit, size, step, second_look: see `predicted.predict_split`.
      called: what the report calls the weights; empty: by their path.
      outputs: of the run of the command, so that two sets of one name get two folders.
    """
    record_set = RecordSet.open(data)
    outputs, of = outputs or Outputs("eval"), f"{record_set.path.resolve()}:{split}"
    folder = outputs.own_folder(out, f"{record_set.name}-{split}", of)
    for name in (*REPORT_FILES, HEADS_FILE):
        outputs.check(folder / name, of)  # before the work
    predicted = predict_split(
        weights,
        data,
        split,
        size=size,
        step=step,
        batch_size=batch_size,
        limit=limit,
        second_look=second_look,
    )
    if called:
        predicted = predicted._replace(measured={**predicted.measured, "weights": called})
    settings = Settings(protocol, iou_threshold, score_threshold)
    return report(predicted, settings, folder, outputs, of)


def report(
    predicted: Predicted, settings: Settings, folder: Path, outputs: Outputs, of: str
) -> Evaluation:
    """Measures predictions; prints the table, writes all files of a report into a folder.

    Args:
      predicted: predictions and truths.
      settings: of the metrics.
      folder: of the report.
      outputs: of the run of the command.
      of: the records, as `outputs` names the input.
    """
    pairs, source = predicted.pairs, predicted.source
    named = {**settings._asdict(), "class_names": predicted.class_names}
    # Matched once: the numbers, the errors of single heads and the rows of a comparison are of it.
    states = [image_state(prediction, truth, settings) for prediction, truth in pairs]
    results = {"network": summarise(merge_states(states), settings, predicted.class_names)}
    constant = _constant_of(source, predicted.class_names)
    if constant is not None:
        truths = [truth for _, truth in pairs]
        whole = [(constant.heads(t["width"], t["height"]), t) for t in truths]
        posed = [(constant.on_boxes(*_counted(t)), t) for t in truths]
        results["constant"] = evaluate(whole, **named)
        results["constant pose"] = evaluate(posed, **named)
    for result in results.values():
        result["settings"] |= predicted.measured

    info = source.record_set
    title = (
        f"{info.name}/{source.split}: {len(pairs)} images, boxes by the rule {info.box_rule!r}, "
        f"rotations in the frame {source.frame!r}"
    )
    write_report(outputs, results, folder, title=title, of=of)
    errors = head_errors_as_json(pairs, states, settings, source.frame)
    outputs.write(folder / HEADS_FILE, errors, of)
    print(f"\n{title}")
    print(format_table(results))
    if len(results["network"]["classes"]) > 1:
        print(f"\n{format_classes(results)}")
    if results["network"]["counts"]["truths_with_heading"]:
        print(format_bins(results))
    print(f"table, JSON and plots: {folder}; the error of each head: {folder / HEADS_FILE}")
    image_ids = [truth["image_id"] for _, truth in pairs]
    return Evaluation(results, folder, of, image_ids, [state.rows for state in states])


def measure(weights: Any, data: Any, split: str) -> dict[str, Any]:
    """Evaluates weights, or an exported file that gives heads, on a split; writes nothing."""
    predicted = predict_split(weights, data, split)
    return evaluate(predicted.pairs, class_names=predicted.class_names)


def _counted(truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and classes (n,) of the heads of an image that count."""
    counts = ~np.asarray(truth["ignore"], bool)
    return truth["boxes"][counts], truth["labels"][counts]


def _constant_of(source: RecordSource, class_names: tuple[str, ...]) -> ConstantPredictor | None:
    """The constant predictor of the set's training split, None where that has no pose."""
    if "train" not in source.record_set.splits:
        return None
    path = source.record_set.path
    train = source_of(path, "train", class_names, source.frame, decode=False)
    numbers = tqdm(range(len(train)), unit="image", desc="constant", disable=None)
    truths = [truth_of(train[i]) for i in numbers]
    if not any((truth["has_pose"] & ~truth["ignore"]).any() for truth in truths):
        return None
    return constant_predictor(truths)
