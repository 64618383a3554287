"""Sheets of predictions beside the truth."""

from pathlib import Path

from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation.predicted import spread
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict.draw import contact_sheet, draw_heads
from mtnet_jax.predict.files import write_image
from mtnet_jax.predict.head import as_arrays
from mtnet_jax.predict.predictor import Predictor


def write_predictions(
    outputs: Outputs, predictor: Predictor, source: RecordSource, path: Path, count: int = 24
) -> None:
    """A contact sheet of evenly spread records with prediction and truth drawn."""
    sheet = []
    for i in spread(len(source), count):
        record = source[i]
        heads = as_arrays(predictor(record["image"]))
        sheet.append(draw_heads(record["image"], heads, truth=record, label=False))
    write_image(outputs, path, contact_sheet(sheet, columns=6, size=(320, 240)))
