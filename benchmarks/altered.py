"""Weights on record sets whose images are altered in several ways: what the scripts share."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from mtnet_jax.data.fitting import Records
from mtnet_jax.data.selection import parse_selection
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.predicted import EVAL_SCORE_THRESHOLD, predict_records, source_of
from mtnet_jax.evaluation.summary import format_summary
from mtnet_jax.predict.runtimes import Wanted, open_weights
from mtnet_jax.predict.second_look import looks_again
from mtnet_jax.run_metrics import LAST
from mtnet_jax.shipped import weights_folder

# Name of a row -> the records as they are altered, and options of `predict_records`.
Ways = Mapping[str, tuple[Callable[[Records], Records], dict[str, Any]]]


def parser_of(title: str) -> argparse.ArgumentParser:
    """The options that all have."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--weights", metavar="PATH", help="default: those that ship")
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR[:SPLIT]")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="images of each set")
    return parser


def print_measured(
    args: argparse.Namespace, ways: Ways, *, batch_size: int, second_looks: bool | None = None
) -> None:
    """Prints a line for each set and way; `second_looks` None: as the weights ask for."""
    wanted = Wanted(EVAL_SCORE_THRESHOLD, None, "auto", None, None, LAST)
    opened = open_weights(weights_folder(args.weights), wanted)
    config = opened.config
    found: dict[str, Any] = {}
    for path, split in (parse_selection(entry, default="test") for entry in args.data):
        source = source_of(path, split, tuple(config.class_names), config.frame)
        for name, (altered, options) in ways.items():
            pairs = predict_records(
                opened.detect,
                altered(source),
                size=config.input.size,
                batch_size=batch_size,
                limit=args.limit,
                iou_threshold=config.decode.iou_threshold,
                second_looks=looks_again(config, second_looks),
                **options,
            )
            found[f"{path.name}, {name}"] = evaluate(list(pairs))
    print(format_summary(found))
