"""The formats of `mtnet export`: what each is called, which file it is, what writes it.

This module imports nothing, so that the command line can list them at once.
"""

from typing import NamedTuple

# Files in an exported folder.
HEADS, NETWORK = "heads.onnx", "network.onnx"


class Format(NamedTuple):
    """A format of `mtnet export`."""

    file: str  # its name in an exported folder
    needs: str  # the package that writes it
    module: str  # has write(path, config, variables, **stated)
    about: str
    extra: str = "export"  # of this package, which installs what it needs
    halves: bool = False  # whether weights in half precision make it smaller


FORMATS = {
    "onnx": Format(
        HEADS,
        "onnx",
        "mtnet_jax.export.onnx_heads",
        "images to heads in one file",
        halves=True,
    ),
    "onnx-int8": Format(
        "heads-int8.onnx",
        "onnx",
        "mtnet_jax.export.onnx_int8",
        "the same in 8 bits: about half the size of half precision, faster, a little less accurate",
    ),
    "onnx-network": Format(
        NETWORK,
        "onnx",
        "mtnet_jax.export.onnx_network",
        "the bare network: raw predictions",
        halves=True,
    ),
    "stablehlo": Format(
        "heads.stablehlo",
        "flatbuffers",
        "mtnet_jax.export.stablehlo",
        "images to heads for jax alone, on cpu, cuda and tpu",
    ),
    "safetensors": Format(
        "weights.safetensors",
        "safetensors",
        "mtnet_jax.export.safetensors_file",
        "the arrays, with the configuration in the file",
    ),
    "orbax": Format(
        "orbax",
        "orbax.checkpoint",
        "mtnet_jax.export.orbax_folder",
        "the arrays as a checkpoint that other JAX programs restore",
        halves=True,  # compressed, and float16 leaves half of the bits 0
    ),
    "saved-model": Format(
        "saved_model",
        "tensorflow",
        "mtnet_jax.export.saved_model",
        "the bare network for TensorFlow, any batch",
        extra="tensorflow",
    ),
    "tflite": Format(
        "network.tflite",
        "tensorflow",
        "mtnet_jax.export.tflite",
        "the bare network for TensorFlow Lite, one image",
        extra="tensorflow",
    ),
}
CALIBRATED = "onnx-int8"  # the format that wants images
