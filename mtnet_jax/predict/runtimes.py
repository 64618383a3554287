"""What computes the network: JAX, or onnxruntime, which starts in a fraction of JAX's time.

JAX is loaded only where it computes.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.cpu.allocator import accelerator_installed
from mtnet_jax.errors import BadInput
from mtnet_jax.export.formats import HEADS
from mtnet_jax.heads import Heads
from mtnet_jax.mirror import weights_here
from mtnet_jax.places import Place
from mtnet_jax.predict.onnx_runtime import (
    lone_file,
    make_onnx_detector,
    open_heads,
    open_heads_beside,
)
from mtnet_jax.run_metrics import LAST, Step

RUNTIMES = ("auto", "jax", "onnxruntime")
DEVICES = ("cpu", "gpu", "tpu")


class Opened(NamedTuple):
    """Weights, ready to find heads."""

    config: ConfigDict  # what predicting needs, as trained
    detect: Callable[[np.ndarray], Heads]  # images (B, size, size, 3) uint8 -> heads in them
    runtime: str  # "jax" or "onnxruntime"
    step: int | None = None  # that was loaded, see `mtnet_jax.weights.load_step`


class Wanted(NamedTuple):
    """How weights are to be used."""

    score_threshold: float  # heads of a lower score are left out
    iou_threshold: float | None  # of the suppression; None: as the configuration says
    runtime: str  # of `RUNTIMES`
    size: int | None  # side of the input in pixels; None: as the configuration says
    device: str | None  # of `DEVICES`; None: the best that is there
    step: Step = LAST  # of a work directory, see `mtnet_jax.weights.load_step`
    precision: str | None = None  # of JAX's products, see `mtnet_jax.predict.inference`


def open_weights(weights: Place, wanted: Wanted) -> Opened:
    """Opens weights with a runtime.

    "auto" takes onnxruntime for a file of `mtnet export --format onnx`, given itself or lying in
    the folder, where no accelerator could do better and no other input size is asked for; else JAX.

    Raises:
      FileNotFoundError: no weights there.
      ValueError: weights that are damaged or do not go with what is wanted.
      RuntimeError: a package is missing.
    """
    if wanted.runtime not in RUNTIMES:
        raise BadInput(f"There is no runtime {wanted.runtime!r}: choose {_either(RUNTIMES)}.")
    if wanted.device not in (None, *DEVICES):
        raise BadInput(f"There is no device {wanted.device!r}: choose {_either(DEVICES)}.")
    if wanted.runtime == "onnxruntime":
        _check_cpu(wanted)
    with weights_here(weights, latest=wanted.step == LAST) as here:
        return _open(lone_file(here), wanted)


def _check_cpu(wanted: Wanted) -> None:
    if wanted.device not in (None, "cpu"):
        raise BadInput("onnxruntime runs on the CPU here: for another device take the runtime jax.")


def _open(weights: Path, wanted: Wanted) -> Opened:
    if wanted.step != LAST and (weights.suffix == ".onnx" or (weights / HEADS).is_file()):
        raise BadInput(f"{weights} is no work directory: it holds one state, no {wanted.step}.")
    if weights.suffix == ".onnx":
        return _open_file(weights, wanted)
    if wanted.runtime == "jax" or (wanted.runtime == "auto" and _may_accelerate(wanted.device)):
        return _open_jax(weights, wanted)
    ready = _open_beside(weights, wanted)
    if ready is not None:
        return ready
    make = _make_onnx if wanted.runtime == "onnxruntime" else _open_jax
    return make(weights, wanted)


def _open_file(path: Path, wanted: Wanted) -> Opened:
    if wanted.runtime == "jax":
        raise BadInput(f"{path} is for onnxruntime: give the folder of weights for JAX.")
    _check_cpu(wanted)
    session, config = open_heads(path)
    size = config.input.size
    if wanted.size not in (None, size):
        raise BadInput(
            f"{path} takes inputs of {size} pixels: for others export it again with --size "
            f"{wanted.size}, or give the folder of weights."
        )
    return _with_onnxruntime(session, config, wanted)


def _open_beside(folder: Path, wanted: Wanted) -> Opened | None:
    """The exported file in a folder; None where there is none of this size and of these weights."""
    beside = open_heads_beside(folder)
    if beside is None or wanted.size not in (None, beside[1].input.size):
        return None
    return _with_onnxruntime(*beside, wanted)


def _with_onnxruntime(session: Any, config: ConfigDict, wanted: Wanted) -> Opened:
    detect = make_onnx_detector(
        session,
        score_threshold=wanted.score_threshold,
        iou_threshold=_suppressing(config, wanted).decode.iou_threshold,
    )
    return Opened(config, detect, "onnxruntime")


def _make_onnx(folder: Path, wanted: Wanted) -> Opened:
    """Exports the weights in memory."""
    from mtnet_jax.export.onnx_heads import make_heads

    config, variables, step = _load(folder, wanted)
    model = make_heads(config, variables, halves=False).SerializeToString()
    return _with_onnxruntime(*open_heads(model), wanted)._replace(step=step)


def _open_jax(folder: Path, wanted: Wanted) -> Opened:
    import jax

    from mtnet_jax.predict.inference import make_detector
    from mtnet_jax.system import build_system

    config, variables, step = _load(folder, wanted)
    if wanted.device is not None:
        variables = jax.device_put(variables, _device(wanted.device))
    suppressing = _suppressing(config, wanted)
    make = make_detector(
        *(build_system(config), suppressing, wanted.score_threshold), precision=wanted.precision
    )
    detect = make(variables)

    def to_numpy(images: np.ndarray) -> Heads:
        # On the CPU the arrays are only looked at; jax.device_get would take longer than to draw up
        # the heads.
        return Heads(*map(np.asarray, detect(images)))

    return Opened(config, to_numpy, "jax", step)


def _load(folder: Path, wanted: Wanted) -> tuple[ConfigDict, dict[str, Any], int | None]:
    from mtnet_jax.system import at_size
    from mtnet_jax.weights import load_step

    config, variables, step = load_step(folder, wanted.step)
    if wanted.size is not None:
        config = at_size(config, wanted.size)
    return config, variables, step


def _suppressing(config: ConfigDict, wanted: Wanted) -> ConfigDict:
    """The configuration with the suppression that is asked for. The trained one stays what makes
    heads of two looks one."""
    changed = ConfigDict(config.to_dict())
    if wanted.iou_threshold is not None:
        changed.decode.iou_threshold = wanted.iou_threshold
    return changed


def _device(name: str) -> Any:
    import jax

    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        there = sorted({device.platform for device in jax.devices()})
        raise BadInput(f"JAX finds no {name} here, only {', '.join(there)}.") from error


def _may_accelerate(device: str | None) -> bool:
    """Whether JAX has, or was told to use, something faster than the CPU."""
    if device is not None:
        return device != "cpu"
    chosen = os.environ.get("JAX_PLATFORMS", "")
    return accelerator_installed() and chosen != "cpu" and _backend() != "cpu"


def _backend() -> str:
    import jax

    return jax.default_backend()


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
