"""Pictures -> heads with the network in onnxruntime; decoding and suppression stay those of JAX.

Which is faster depends on processor and width: docs/performance.md.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.decode import DecodeOptions, Heads, decode_flat
from mtnet_jax.export.onnx import INPUT, OUTPUT, make_model, require
from mtnet_jax.predict.inference import Detector, compile_for_prediction
from mtnet_jax.system import System


def make_onnx_detector(system: System, config: ConfigDict, score_threshold: float) -> Detector:
    """As `mtnet_jax.predict.inference.make_detector`: the same heads up to rounding.

    Raises:
      RuntimeError: the package onnx or onnxruntime is missing; the message says how to install it.
    """
    for package in ("onnx", "onnxruntime"):
        require(package)
    options = DecodeOptions(score_threshold=score_threshold, **config.decode)

    @compile_for_prediction
    def to_heads(predictions: Any) -> Heads:
        return decode_flat(
            predictions, grid=system.grid, representation=system.representation, options=options
        )

    def with_weights(variables: Mapping[str, Any]) -> Callable[[Any], Heads]:
        session = make_session(make_model(config, dict(variables)).SerializeToString())

        def detect(images: np.ndarray) -> Heads:
            (predictions,) = session.run([OUTPUT], {INPUT: images})
            return to_heads(predictions)

        return detect

    return with_weights


def make_session(model: bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU with a thread for each core."""
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    # The cores this process may use. Left alone, onnxruntime takes those of the whole machine.
    options.intra_op_num_threads = usable_cores()
    options.inter_op_num_threads = 1
    # Its threads wait actively for each other during a picture, but not after it: there they would
    # take the cores from what decodes it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
