"""The two branches that read the feature pyramid: faces (boxes, objectness, classes) and poses."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.anchors import ANCHORS_PER_CELL
from mtnet_jax.network.convolution import Convolution, conv2d
from mtnet_jax.network.darknet53 import ResidualBlock
from mtnet_jax.network.fpn import ScaleFeatures
from mtnet_jax.network.layers import Array, ConvBN, LinearConv, recomputed, scaled_channels
from mtnet_jax.network.normalisation import Normalisation, batch_norm_leaky

OBJECTNESS = 4  # its place among an anchor's values: tx, ty, tw, th, objectness, classes, pose
# An untrained net calls one anchor in a hundred an object. Nearly all anchors are empty: from
# probability 1/2 the first steps would do little but push objectness down everywhere.
OBJECTNESS_PRIOR = 0.01
POSE_CHANNELS = (512, 256, 128)  # hidden channels at strides 32, 16, 8


def objectness_prior_bias(
    values_per_anchor: int, prior: float = OBJECTNESS_PRIOR
) -> nn.initializers.Initializer:
    """Bias initialiser: zero, and logit(prior) for the objectness of each anchor.

    Args:
      values_per_anchor: 5 + classes (+ pose) of the convolution's output layout.
      prior: probability of an object.

    Returns:
      Initialiser for a bias of 3 * values_per_anchor entries, anchor by anchor.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        del key
        bias = jnp.zeros((ANCHORS_PER_CELL, values_per_anchor), dtype)
        logit = math.log(prior / (1 - prior))
        return bias.at[:, OBJECTNESS].set(logit).reshape(shape)

    return init


def split_anchors(x_BxKxKxC: Array) -> Array:
    """(B, K, K, 3 n) -> (B, K, K, 3, n): the channels of one anchor lie side by side."""
    return x_BxKxKxC.reshape(*x_BxKxKxC.shape[:-1], ANCHORS_PER_CELL, -1)


class FaceBranch(nn.Module):
    """One linear 1x1 convolution a scale.

    Attributes:
      values_per_anchor: 5 + classes; in version v1, where this head gives the pose too,
        5 + classes + pose.
      dtype: compute type; the outputs are float32.
      conv: see `MultitaskNet`.
    """

    values_per_anchor: int
    dtype: Any = jnp.float32
    conv: Convolution = conv2d

    @nn.compact
    def __call__(self, scales: Sequence[ScaleFeatures]) -> list[Array]:
        """Returns raw outputs at strides 32, 16, 8: (B, K, K, 3 * values_per_anchor) float32."""
        return [
            LinearConv(
                ANCHORS_PER_CELL * self.values_per_anchor,
                bias_init=objectness_prior_bias(self.values_per_anchor),
                dtype=self.dtype,
                conv=self.conv,
                name=f"scale{number}",
            )(scale.face_BxKxKxC)
            for number, scale in enumerate(scales, start=1)
        ]


class PoseBranch(nn.Module):
    """Two 1x1 convolutions a scale on the inputs of the pyramid (version v2).

    Attributes:
      pose_size: numbers of the pose representation.
      width: multiplier of the hidden channels, rounded to multiples of 8.
      blocks: residual blocks of Darknet-53 before the two convolutions; the paper has none.
      aggregate: "none"; or "boxes": the raw outputs of the face branch join the features the
        branch reads. No gradient passes back through them, so poses do not pull at the boxes.
      dtype: compute type; the outputs are float32.
      remat, conv, norm: see `MultitaskNet`.
    """

    pose_size: int
    width: float = 1.0
    blocks: int = 0
    aggregate: str = "none"
    dtype: Any = jnp.float32
    remat: str = "none"
    conv: Convolution = conv2d
    norm: Normalisation = batch_norm_leaky

    @nn.compact
    def __call__(
        self, scales: Sequence[ScaleFeatures], faces: Sequence[Array], *, train: bool
    ) -> list[Array]:
        """Predicts poses.

        Args:
          scales: the pyramid's features at strides 32, 16, 8.
          faces: raw outputs of the face branch, (B, K, K, 3 (5 + classes)) at the same strides.
          train: see `ConvBN`.

        Returns:
          Raw outputs at strides 32, 16, 8: (B, K, K, 3 * pose_size) float32.
        """
        settings: dict[str, Any] = {"dtype": self.dtype, "conv": self.conv, "norm": self.norm}
        block_of = recomputed(ResidualBlock) if self.remat == "blocks" else ResidualBlock
        outputs = []
        for number, (scale, face, channels) in enumerate(
            zip(scales, faces, POSE_CHANNELS, strict=True), start=1
        ):
            x = scale.pose_BxKxKxC
            if self.aggregate == "boxes":
                x = jnp.concatenate([x, jax.lax.stop_gradient(face).astype(x.dtype)], axis=-1)
            for block in range(1, self.blocks + 1):
                x = block_of(**settings, name=f"scale{number}_block{block}")(x, train)
            hidden = ConvBN(
                scaled_channels(channels, self.width), 1, **settings, name=f"hidden{number}"
            )
            linear = LinearConv(
                ANCHORS_PER_CELL * self.pose_size,
                dtype=self.dtype,
                conv=self.conv,
                name=f"scale{number}",
            )
            outputs.append(linear(hidden(x, train=train)))
        return outputs
