"""The errors of single heads as a JSON file, to look up what went wrong where.

    {"settings": {...}, "heads": [{"image_id": ..., "head": 0, "iou": ..., "geodesic": ...,
     "prediction": {"score": ..., "box": [...], "rotation": [...]}}, ...]}

`head` is the index in the record. `iou` is 0 and `prediction` null where the head was missed;
`geodesic` (degrees) is null there and where there is no pose. Heads that are ignored are left out.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.metrics import Settings, image_state

HEADS_FILE = "heads.json"


def head_errors(pairs: Iterable[tuple[dict, dict]], settings: Settings) -> Iterator[dict[str, Any]]:
    """The entries of the file; images that the `authors` protocol skips have none.

    Args:
      pairs: (prediction, truth) of each image, as `metrics.evaluate` takes them; truths with
        their "image_id".
      settings: see `metrics.Settings`.
    """
    for prediction, truth in pairs:
        rows = image_state(prediction, truth, settings).rows
        heads = np.flatnonzero(~np.asarray(truth["ignore"], bool))
        # Without rows the image was skipped, or has no heads.
        for head, row in zip(heads, rows, strict=bool(len(rows))):
            geodesic = float(row["geodesic"])
            yield {
                "image_id": truth["image_id"],
                "head": int(head),
                "iou": float(row["iou"]),
                "geodesic": geodesic if np.isfinite(geodesic) else None,
                "prediction": _prediction(prediction, int(row["prediction"])),
            }


def head_errors_as_json(pairs: Iterable[tuple[dict, dict]], settings: Settings) -> str:
    """The content of the file; see `head_errors` for what goes in."""
    content = {"settings": settings._asdict(), "heads": list(head_errors(pairs, settings))}
    return json.dumps(content, allow_nan=False) + "\n"


def read_head_errors(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The entries of a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not such a file.
    """
    try:
        heads = json.loads(Path(path).read_text(encoding="utf-8"))["heads"]
        for entry in heads:
            entry["image_id"], entry["head"], entry["iou"], entry["geodesic"], entry["prediction"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not the {HEADS_FILE} of `mtnet eval` (WORKDIR/eval/SET-SPLIT): {error}"
        ) from error
    return heads


def _prediction(prediction: dict, index: int) -> dict[str, Any] | None:
    if index < 0:
        return None
    rotation = np.asarray(prediction["rotations"][index], np.float64)
    return {
        "score": float(prediction["scores"][index]),
        "box": np.asarray(prediction["boxes"][index], np.float64).tolist(),
        "rotation": rotation.tolist() if np.isfinite(rotation).all() else None,
    }
