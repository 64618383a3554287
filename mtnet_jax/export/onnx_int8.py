"""Images to heads, convolutions in 8 bits: about half the size of half precision, and faster.

Static quantisation by onnxruntime: weights per channel, activations by their range on calibration
images. The first convolution and the last ones, which give boxes, scores and poses, stay in
float32, and so does everything between convolutions: in 8 bits that ruins the poses.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.export.graph import require, write_model
from mtnet_jax.export.metadata import INPUT, IOU_THRESHOLD, SCORE_THRESHOLD
from mtnet_jax.export.onnx_heads import make_heads


def write(
    path: Path,
    config: ConfigDict,
    variables: dict[str, Any],
    *,
    calibration: Iterable[np.ndarray],
    **stated: str,
) -> None:
    """Writes the model of `make_int8`; calibration: inputs (size, size, 3) uint8."""
    # onnxruntime quantises kernels that are constants, and no others.
    model = make_heads(config, variables, halves=False, **stated)
    write_model(path, make_int8(model, calibration))


def make_int8(model: Any, calibration: Iterable[np.ndarray]) -> Any:
    """A model of `make_heads`, without halves, with its inner convolutions in 8 bits."""
    onnx = require("onnx")
    from onnxruntime import quantization

    kept = _first_and_last(model)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        inferred = onnx.shape_inference.infer_shapes(model)
        # onnxruntime warns, twice, of models that do not say that shapes were inferred.
        inferred.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        source.write_bytes(inferred.SerializeToString())
        quantization.quantize_static(
            source,
            result,
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            nodes_to_exclude=kept,
        )
        quantised = onnx.load(result)
    quantised.producer_name = model.producer_name
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(model.metadata_props)
    return quantised


def _first_and_last(model: Any) -> list[str]:
    """Names of the first convolution and of those that no activation follows."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    activated = {node.input[0] for node in model.graph.node if node.op_type == "LeakyRelu"}
    last = [node.name for node in convolutions if node.output[0] not in activated]
    return [convolutions[0].name, *last]


class _Reader:
    """Calibration images as onnxruntime asks for them, one by one."""

    def __init__(self, images: Iterable[np.ndarray]):
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        if image is None:
            return None
        thresholds = {SCORE_THRESHOLD: 0.3, IOU_THRESHOLD: 0.5}
        scalars = {name: np.array(value, np.float32) for name, value in thresholds.items()}
        return {INPUT: image[None], **scalars}
