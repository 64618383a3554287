"""The first two layers of the network at half the size of the image, with the same values.

The stem works on every pixel and gives few maps: on units of 16 numbers (AVX-512), which
onnxruntime fills with channels, half of each is idle, and its result is put into another order for
the layer after it. Here the four pixels of a cell of 2x2 are channels of their own: the stem takes
steps of two pixels and gives four times the maps, of which the next layer, which halves the image
anyway, reads two cells by two. That is 1.8 times the arithmetic of these two layers, 3 % of the
network's, for a tenth less time (docs/performance.md).
"""

from typing import NamedTuple

import numpy as np

# Of the stem: with more maps than this the units are full without it.
MOST_FEATURES = 8


class Layer(NamedTuple):
    """A convolution as an exported file has it.

    Attributes:
      kernel: (h, w, I, O).
      bias: (O,).
      stride: along both axes.
      pads: before and after, along both axes.
      half: the kernel in float16 and a factor (O,) that makes it `kernel`; None where it cannot be
        had so.
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int
    pads: tuple[int, int]
    half: tuple[np.ndarray, np.ndarray] | None = None


def suits(stem: Layer, down: Layer) -> bool:
    """Whether `at_half_size` is for these two layers, of which the second alone reads the first."""
    return (
        stem.kernel.shape[:2] == down.kernel.shape[:2] == (3, 3)
        and (stem.stride, down.stride) == (1, 2)
        and stem.pads == down.pads == (1, 1)
        and stem.kernel.shape[3] <= MOST_FEATURES
    )


def at_half_size(stem: Layer, down: Layer) -> tuple[Layer, Layer]:
    """The same two layers for images of even sides; anything by element may stand between them.

    Maps between them are ordered by row in the cell, column in the cell, feature.
    """
    *_, channels, features = stem.kernel.shape
    wide = np.zeros((4, 4, channels, 2, 2, features), stem.kernel.dtype)
    narrow = np.zeros((2, 2, 2, 2, features, down.kernel.shape[3]), down.kernel.dtype)
    for row in range(2):
        for column in range(2):
            # The window begins a pixel before the cell, as that of the cell's first pixel does.
            wide[row : row + 3, column : column + 3, :, row, column] = stem.kernel
    for i in range(3):
        for j in range(3):
            # Tap 0 is the last pixel of the cell before, taps 1 and 2 are those of the cell itself.
            (above, row), (left, column) = divmod(i + 1, 2), divmod(j + 1, 2)
            narrow[above, left, row, column] = down.kernel[i, j]
    return (
        Layer(wide.reshape(4, 4, channels, 4 * features), np.tile(stem.bias, 4), 2, (1, 1)),
        Layer(narrow.reshape(2, 2, 4 * features, -1), down.bias, 1, (1, 0)),
    )
