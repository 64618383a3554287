"""Names of the inputs and outputs of exported files, and what the files say of themselves.

Reading them needs no JAX.
"""

import json

from ml_collections import ConfigDict

from mtnet_jax.saved_config import CONFIG_KEY

# Inputs of heads.onnx by name, in their order, and its outputs; network.onnx has the first input
# alone.
INPUT, SCORE_THRESHOLD, IOU_THRESHOLD = "images", "score_threshold", "iou_threshold"
HEADS_OUTPUTS = ("boxes", "scores", "labels", "rotations")
OUTPUT = "predictions"  # of network.onnx

LICENSE_KEY, NOT_STATED = "license", "not stated"
WEIGHTS_KEY = "weights_sha256"  # of the weights.npz beside which the file was written, or ""

FRAMES = {
    "camera": "rotations take head axes to camera axes (x right, y down, z forward)",
    "ray": (
        "rotations take head axes to the axes (x right, y down, z forward) of a camera that looks "
        "at the middle of the head's box: as a crop shows the head"
    ),
}


def describe(config: ConfigDict, *, weights_sha256: str = "", license: str = "") -> dict[str, str]:
    """What exported files say of themselves, those with a place for it: key -> text.

    Args:
      config: a configuration that predicting can be done with.
      weights_sha256: see `WEIGHTS_KEY`.
      license: of the weights, an SPDX name or any text.
    """
    size = config.input.size
    return {
        CONFIG_KEY: config.to_json(),
        WEIGHTS_KEY: weights_sha256,
        "class_names": json.dumps(list(config.class_names)),
        "input_size": str(size),
        "frame": config.frame,
        "convention": (
            f"images are RGB, scaled to fit {size} x {size}, centred, the rest grey 114; boxes are "
            f"left, top, right, bottom in their pixels; {FRAMES[config.frame]}; head axes are x "
            "to the subject's left, y to the chin, z to the back of the head: a face looks along "
            "minus the third column"
        ),
        LICENSE_KEY: license or NOT_STATED,
    }
