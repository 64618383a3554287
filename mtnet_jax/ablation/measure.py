"""What a trained run says of every head of a test set, kept beside it: intervals need single heads.

A file WORKDIR/RUN/measured/SET.npz holds the metrics' state (`evaluation.metrics.State`) with the
image that each row belongs to, so that images or persons can be drawn anew.
"""

import functools
import json
from collections.abc import Hashable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.ablation.spec import HeldOut
from mtnet_jax.config import flatten
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import MissingFile
from mtnet_jax.evaluation.metrics import (
    EMPTY,
    Settings,
    State,
    image_state,
    merge_states,
)
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.places import write_whole
from mtnet_jax.saved_config import write_config

FOLDER = "measured"
SETTINGS = Settings()  # stated in every report


class Measured(NamedTuple):
    """A run on a test set.

    Attributes:
      state: of all images together.
      image_of_row: (truths,) index of the image of each row of the state.
      image_of_prediction: (predictions,) the same for its predictions.
      image_ids: (images,) str.
      identity: of records, split, and how predictions are made, see `identity_of` and
        `decoding_of`.
    """

    state: State
    image_of_row: np.ndarray
    image_of_prediction: np.ndarray
    image_ids: np.ndarray
    identity: str


def measured_path(run_folder: Path, name: str) -> Path:
    """The file of a run for a test set of this name."""
    return run_folder / FOLDER / f"{name}.npz"


def measure(run_folder: Path, name: str, test_set: HeldOut, config: ConfigDict) -> None:
    """Predicts a test set with a trained run and keeps what it says; done already, does nothing.

    Where the records are not there any more, as in a work directory that was copied without them,
    what was kept stands, if heads are decoded as then.

    Args:
      run_folder: its work directory.
      name: of the test set.
      test_set: what is predicted.
      config: of the run as it is asked for now: how it decodes may have changed since it was
        trained, and is what the work directory says afterwards.
    """
    path, decoding = measured_path(run_folder, name), decoding_of(test_set, config)
    kept = read_measured(path).identity if path.is_file() else ""
    try:
        identity = f"{identity_of(test_set)} {decoding}"
    except MissingFile:
        if not kept.endswith(f" {decoding}"):
            raise
        print(f"{test_set.path} is not there: {path} is taken, as it was measured.")
        return
    if kept == identity:
        return
    write_config(run_folder, config)
    pairs = predict_split(
        run_folder, test_set.path, test_set.split, batch_size=32, limit=test_set.limit
    ).pairs
    states = [image_state(prediction, truth, SETTINGS) for prediction, truth in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        **merge_states(states)._asdict(),
        "image_of_row": _repeated([len(state.rows) for state in states]),
        "image_of_prediction": _repeated([len(state.scores) for state in states]),
        "image_ids": np.array([truth["image_id"] for _, truth in pairs], str),
        "identity": identity,
    }
    content = BytesIO()
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def read_measured(path: Path) -> Measured:
    """What `measure` kept."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    fields: dict[str, Any] = {
        name: int(arrays[name]) if isinstance(empty, int) else arrays[name]
        for name, empty in EMPTY._asdict().items()
    }
    return Measured(
        State(**fields),
        arrays["image_of_row"],
        arrays["image_of_prediction"],
        arrays["image_ids"],
        str(arrays["identity"]),
    )


def identity_of(test_set: HeldOut) -> str:
    """Of the records that a test set holds, wherever they lie; once while they stay as they are."""
    records = RecordSet.open(test_set.path)
    about = (records.name, records.version, records.box_rule, tuple(records.label_names))
    states = (shard.stat() for shard in records.shard_paths(test_set.split))
    seen = tuple((state.st_size, state.st_mtime, state.st_ino) for state in states)
    return _identity(str(records.path), test_set.split, (about, seen))


@functools.cache  # it reads all of them, and every run and every report asks
def _identity(path: str, split: str, state: Hashable) -> str:
    del state  # what is cached is of that one
    return RecordSet.open(path).identity(split, whole=True)


def decoding_of(test_set: HeldOut, config: ConfigDict) -> str:
    """What of a test set is looked at, and how heads are decoded."""
    options = flatten(config.to_dict())
    decoding = {name: options[name] for name in sorted(options) if _is_of_predictions(name)}
    return f"{test_set.split} {test_set.limit} {json.dumps(decoding)}"


def _is_of_predictions(option: str) -> bool:
    return option.startswith("decode.") or option == "input.second_look"


def _repeated(counts: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)
