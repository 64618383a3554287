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


FORMATS = {
    "onnx": Format(HEADS, "onnx", "mtnet_jax.export.onnx_heads", "images to heads in one file"),
    "onnx-network": Format(
        NETWORK, "onnx", "mtnet_jax.export.onnx_network", "the bare network: raw predictions"
    ),
}
