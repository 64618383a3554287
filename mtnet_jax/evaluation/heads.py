"""The errors of single heads as a JSON file, to look up what went wrong where.

    {"settings": {...}, "frame": "camera", "heads": [{"image_id": ..., "head": 0, "iou": ...,
     "geodesic": ..., "heading": ..., "prediction": {"score": ..., "box": [...],
     "rotation": [...]}}, ...]}

`frame` is that of the rotations. `head` is the index in the record. `iou` is 0 and `prediction`
null where the head was missed. `geodesic` and `heading` are errors in degrees: null there, where
there is no pose, and where there is neither pose nor heading. Ignored heads are left out.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.metrics import Settings, State

HEADS_FILE = "heads.json"
_FIELDS = ("image_id", "head", "iou", "geodesic", "heading", "prediction")


def head_errors(
    pairs: Iterable[tuple[dict, dict]], states: Iterable[State]
) -> Iterator[dict[str, Any]]:
    """The entries of the file; images that the `authors` protocol skips have none.

    Args:
      pairs: (prediction, truth) of each image, as `metrics.evaluate` takes them; truths with
        their "image_id".
      states: of each image, by `metrics.image_state`.
    """
    for (prediction, truth), state in zip(pairs, states, strict=True):
        rows = state.rows
        heads = np.flatnonzero(~np.asarray(truth["ignore"], bool))
        # Without rows the image was skipped, or has no heads.
        for head, row in zip(heads, rows, strict=bool(len(rows))):
            yield {
                "image_id": truth["image_id"],
                "head": int(head),
                "iou": float(row["iou"]),
                "geodesic": _finite(row["geodesic"]),
                "heading": _finite(row["heading_error"]),
                "prediction": _prediction(prediction, int(row["prediction"])),
            }


def head_errors_as_json(
    pairs: Iterable[tuple[dict, dict]], states: Iterable[State], settings: Settings, frame: str
) -> str:
    """The content of the file; see `head_errors` for what goes in, and `frame` above.

    `settings` are those the states were made with.
    """
    heads = list(head_errors(pairs, states))
    content = {"settings": settings._asdict(), "frame": frame, "heads": heads}
    return json.dumps(content, allow_nan=False) + "\n"


def read_head_errors(path: str | os.PathLike) -> tuple[str, list[dict[str, Any]]]:
    """The frame of the rotations, and the entries of a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        frame, heads = content["frame"], content["heads"]
        for entry in heads:
            _ = [entry[field] for field in _FIELDS]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(
            f"{path} is not the {HEADS_FILE} of `mtnet eval` (WORKDIR/eval/SET-SPLIT) of this "
            f"version: {error}"
        ) from error
    return frame, heads


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _prediction(prediction: dict, index: int) -> dict[str, Any] | None:
    if index < 0:
        return None
    rotation = np.asarray(prediction["rotations"][index], np.float64)
    return {
        "score": float(prediction["scores"][index]),
        "box": np.asarray(prediction["boxes"][index], np.float64).tolist(),
        "rotation": rotation.tolist() if np.isfinite(rotation).all() else None,
    }
