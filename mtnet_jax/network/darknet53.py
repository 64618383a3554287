"""Darknet-53, the backbone (Redmon and Farhadi, YOLOv3; Fig. 1 of the paper)."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.network.convolution import Convolution, conv2d
from mtnet_jax.network.layers import Array, ConvBN, recomputed, scaled_channels
from mtnet_jax.network.normalisation import Normalisation, batch_norm_leaky

STAGE_BLOCKS = (1, 2, 8, 8, 4)
STAGE_CHANNELS = (64, 128, 256, 512, 1024)

# A residual block starts close to the identity. At scale 1 every block of a fresh net doubles the
# variance while its running statistics are not learnt yet, and the maps of a backbone that is
# frozen from the start, as in the first phase of training, come out in the thousands.
RESIDUAL_SCALE_INIT = 0.2


def stage_of(layer: str) -> int:
    """The stage that a layer of the backbone belongs to, by its name: 1 to 5; 0 is the stem."""
    return 0 if layer == "stem" else int(layer.removeprefix("stage").partition("_")[0])


def scaled_blocks(blocks: int, depth: float) -> int:
    """Residual blocks of a stage in a shallower or deeper net: rounded, at least 1."""
    return max(1, int(blocks * depth + 0.5))


class ResidualBlock(nn.Module):
    """1x1 convolution to half the channels, 3x3 back to all of them, plus the input."""

    dtype: Any = jnp.float32
    conv: Convolution = conv2d
    norm: Normalisation = batch_norm_leaky

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool) -> Array:
        channels = x_BxHxWxC.shape[-1]
        unit = partial(ConvBN, dtype=self.dtype, conv=self.conv, norm=self.norm)
        y = unit(channels // 2, 1, name="conv1")(x_BxHxWxC, train=train)
        conv2 = unit(channels, 3, scale_init=RESIDUAL_SCALE_INIT, name="conv2")
        return x_BxHxWxC + conv2(y, train=train)


class Darknet53(nn.Module):
    """Darknet-53 without its classifier: 52 convolutions.

    Attributes:
      width: multiplier of all channel counts, rounded to multiples of 8.
      depth: multiplier of the residual blocks of each stage, rounded, at least 1.
      dtype: compute type.
      remat, conv, norm: see `MultitaskNet`.
    """

    width: float = 1.0
    depth: float = 1.0
    dtype: Any = jnp.float32
    remat: str = "none"
    conv: Convolution = conv2d
    norm: Normalisation = batch_norm_leaky

    @nn.compact
    def __call__(
        self, images_BxHxWx3: Array, *, train: bool, frozen_stages: int = 0
    ) -> tuple[Array, Array, Array]:
        """Computes the three maps the FPN reads.

        Args:
          images_BxHxWx3: images in [0, 1], RGB, sides multiples of 32.
          train: see `ConvBN`.
          frozen_stages: the stem and so many stages are not trained all the same; 0: all are.

        Returns:
          Maps at strides 8, 16 and 32: (B, H/8, W/8, 256), (B, H/16, W/16, 512) and
          (B, H/32, W/32, 1024) at width 1.
        """
        block_of = recomputed(ResidualBlock) if self.remat == "blocks" else ResidualBlock
        settings: dict[str, Any] = {"dtype": self.dtype, "conv": self.conv, "norm": self.norm}
        stem = ConvBN(scaled_channels(32, self.width), 3, **settings, name="stem")
        x = stem(images_BxHxWx3, train=train and not frozen_stages)
        outputs = []
        for stage, (channels, blocks) in enumerate(
            zip(STAGE_CHANNELS, STAGE_BLOCKS, strict=True), start=1
        ):
            channels = scaled_channels(channels, self.width)
            learns = train and stage > frozen_stages
            down = ConvBN(channels, 3, stride=2, **settings, name=f"stage{stage}_down")
            x = down(x, train=learns)
            for block in range(1, scaled_blocks(blocks, self.depth) + 1):
                residual = block_of(**settings, name=f"stage{stage}_block{block}")
                x = residual(x, learns)
            outputs.append(x)
        stride8, stride16, stride32 = outputs[-3:]
        return stride8, stride16, stride32
