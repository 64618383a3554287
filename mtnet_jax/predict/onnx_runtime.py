"""Images -> heads by onnxruntime on the CPU, without JAX; docs/performance.md has the times."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.cpu.cores import usable_cores
from mtnet_jax.cpu.instructions import lacks_vnni
from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.export.formats import HEADS
from mtnet_jax.export.metadata import (
    HEADS_OUTPUTS,
    INPUT,
    IOU_THRESHOLD,
    SCORE_THRESHOLD,
    WEIGHTS_KEY,
)
from mtnet_jax.heads import Heads
from mtnet_jax.saved_config import (
    CONFIG,
    SECTIONS,
    WEIGHTS,
    config_of,
    for_prediction,
    read_config,
)
from mtnet_jax.sums import check_sum, sha256_of


def open_heads(model: Path | bytes) -> tuple[Any, ConfigDict]:
    """An exported file that gives heads (`heads.onnx`, `heads-int8.onnx`) or its bytes.

    Returns:
      The session, and the configuration of the network in it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a model, or not one that `mtnet export` wrote for heads; by name.
    """
    name = model if isinstance(model, Path) else "the model"
    session = make_session(model)
    config = config_of(session.get_modelmeta().custom_metadata_map, name)
    outputs = [output.name for output in session.get_outputs()]
    if outputs != list(HEADS_OUTPUTS):
        raise BadInput(
            f"{name} gives {', '.join(outputs)}: to predict with it, export it with --format onnx."
        )
    return session, config


def open_heads_beside(folder: Path) -> tuple[Any, ConfigDict] | None:
    """As `open_heads`, the exported file in a folder of weights; None where there is none, or, with
    a warning, where it was made of other weights or with another configuration.

    Raises:
      ValueError: of the file, see `open_heads`, or of the configuration beside it.
    """
    path = folder / HEADS
    if not path.is_file():
        return None
    session, config = open_heads(path)
    of = session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY, "")
    if of != sha256_of(folder / WEIGHTS):
        other = f"of other weights than {folder / WEIGHTS}"
    elif not _agrees(config, folder):
        other = f"with another configuration than {folder / CONFIG}"
    else:
        return session, config
    warnings.warn(
        f"{path} was made {other} and is not used: export it again, or remove it.", stacklevel=2
    )
    return None


def _agrees(config: ConfigDict, folder: Path) -> bool:
    """Whether the configuration in a folder, where there is one, is this one as far as predicting
    needs it."""
    beside = read_config(folder)
    if beside is None:
        return True
    beside = for_prediction(beside, folder / CONFIG)
    return all(beside.get(name) == config.get(name) for name in SECTIONS)


def lone_file(weights: Path) -> Path:
    """These weights, or the exported file in their folder where it is all that lies there."""
    others = [weights / name for name in (CONFIG, WEIGHTS)]
    alone = (weights / HEADS).is_file() and not any(other.exists() for other in others)
    return weights / HEADS if alone else weights


def make_onnx_detector(
    session: Any, *, score_threshold: float, iou_threshold: float
) -> Callable[[np.ndarray], Heads]:
    """The function images (B, size, size, 3) uint8 -> Heads of a session of `open_heads`."""
    thresholds = {
        SCORE_THRESHOLD: np.array(score_threshold, np.float32),
        IOU_THRESHOLD: np.array(iou_threshold, np.float32),
    }

    def detect(images: np.ndarray) -> Heads:
        boxes, scores, labels, rotations = session.run(HEADS_OUTPUTS, {INPUT: images, **thresholds})
        return Heads(boxes, scores, labels, rotations, valid=scores > 0)

    return detect


def make_session(model: Path | bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU with a thread for each core.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or no ONNX model, by name.
    """
    import onnxruntime  # half of the start-up: only when it is needed

    if isinstance(model, Path) and not model.is_file():
        raise MissingFile(f"There is no file {model}.")
    if isinstance(model, Path):
        check_sum(model)
    options = onnxruntime.SessionOptions()
    # The cores this process may use. Left alone, onnxruntime takes those of the whole machine.
    options.intra_op_num_threads = usable_cores()
    options.inter_op_num_threads = 1
    # Its threads wait actively for each other during an image, but not after it: there they would
    # take the cores from what decodes it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if lacks_vnni():
        # Of weights in 8 bits onnxruntime would sum pairs of products in 16 bits, which overflow.
        # With VNNI they do not, and this would about double the time.
        options.add_session_config_entry("session.x64quantprecision", "1")
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        name = model if isinstance(model, Path) else "the model"
        raise BadInput(f"onnxruntime cannot open {name}: {error}") from error
