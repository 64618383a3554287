"""The neck: YOLOv3's feature pyramid (Fig. 1 of the paper)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.network.layers import Array, ConvBN, recomputed, scaled_channels

# Channels of the 1x1 and 3x3 convolutions of each scale, stride 32 first.
SCALE_CHANNELS = ((512, 1024), (256, 512), (128, 256))


class ScaleFeatures(NamedTuple):
    """What the branches read at one scale (channels at width 1, strides 32 / 16 / 8)."""

    face_BxKxKxC: Array  # output of the sixth convolution: 1024 / 512 / 256
    pose_BxKxKxC: Array  # input of the scale's convolutions: 1024 / 768 / 384


def upsample_twice(x_BxHxWxC: Array) -> Array:
    """Nearest-neighbour upsampling: (B, H, W, C) -> (B, 2 H, 2 W, C)."""
    b, h, w, c = x_BxHxWxC.shape
    y = jnp.broadcast_to(x_BxHxWxC[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return y.reshape(b, 2 * h, 2 * w, c)


class FeaturePyramid(nn.Module):
    """Six convolutions a scale (1x1 and 3x3 in turn), coarse scales passed down to finer ones.

    The seventh convolution of YOLOv3's scales is linear and belongs to the face branch.

    Attributes:
      width: multiplier of all channel counts, rounded to multiples of 8.
      dtype: compute type.
      remat: see `MultitaskNet`.
    """

    width: float = 1.0
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, features: tuple[Array, Array, Array], *, train: bool
    ) -> tuple[ScaleFeatures, ScaleFeatures, ScaleFeatures]:
        """Runs the pyramid.

        Args:
          features: the backbone's maps at strides 8, 16, 32.
          train: see `ConvBN`.

        Returns:
          `ScaleFeatures` at strides 32, 16, 8.
        """

        conv_of = recomputed(ConvBN) if self.remat == "blocks" else ConvBN

        def conv(x: Array, channels: int, size: int, name: str) -> Array:
            channels = scaled_channels(channels, self.width)
            return conv_of(channels, size, dtype=self.dtype, name=name)(x, train)

        outputs, fifth = [], None
        for scale, (narrow, wide) in enumerate(SCALE_CHANNELS, start=1):
            route = features[-scale]
            if fifth is not None:
                lateral = upsample_twice(conv(fifth, narrow, 1, f"lateral{scale}"))
                # Upsampled map first: the channel order of Darknet's route, so its weights fit.
                route = jnp.concatenate([lateral, route], axis=-1)
            x = route
            for number in range(1, 7):
                fifth = x  # after the loop: the input of the sixth, that is the fifth's output
                channels, size = (narrow, 1) if number % 2 else (wide, 3)
                x = conv(x, channels, size, f"scale{scale}_conv{number}")
            outputs.append(ScaleFeatures(face_BxKxKxC=x, pose_BxKxKxC=route))
        stride32, stride16, stride8 = outputs
        return stride32, stride16, stride8
