"""Multitask-Net: Darknet-53, feature pyramid, face branch and pose branch (Fig. 1, Table 2)."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtnet_jax.anchors import STRIDES
from mtnet_jax.errors import BadInput
from mtnet_jax.network.branches import FaceBranch, PoseBranch, split_anchors
from mtnet_jax.network.convolution import Convolution, conv2d
from mtnet_jax.network.darknet53 import Darknet53
from mtnet_jax.network.fpn import FeaturePyramid
from mtnet_jax.network.layers import Array
from mtnet_jax.network.normalisation import Normalisation, batch_norm_leaky

GROUPS = ("backbone", "neck", "face", "pose")
VERSIONS = ("v1", "v2")
ACTIVATIONS = ("none", "tanh")
AGGREGATES = ("none", "boxes")
REMATS = ("none", "blocks")


class MultitaskNet(nn.Module):
    """The network of the paper, in the versions of its Table 2 and in any size.

    Parameters and statistics lie under the top-level names in `GROUPS`, which are what a training
    phase freezes or trains. Version v1 has no group "pose".

    Attributes:
      num_classes: classes of objects, 1 for heads alone.
      pose_size: numbers of the pose representation (vectors 9, sixd 6, quaternion 4, euler 3).
      version: "v1": the last convolution of the face branch gives boxes and poses together;
        "v2": poses come from a branch of their own.
      width: multiplier of all channel counts, rounded to multiples of 8.
      depth: multiplier of the residual blocks of each backbone stage.
      pose_width: multiplier of the hidden channels of the pose branch (v2); 0: `width`. They are
        1x1 convolutions, so they cost little: a narrow network may have a wide one.
      pose_blocks: residual blocks before the hidden channels of the pose branch (v2): 3x3
        convolutions, with which it sees more than one cell. The paper has none.
      box_activation: "none", or "tanh" on tx, ty, tw, th.
      pose_activation: "none", or "tanh" on the pose values (v1 with this is the paper's "v1 tanh").
      aggregate: "none", or "boxes" (v2 only): see `PoseBranch`.
      dtype: compute type, float32 or bfloat16; parameters, statistics and outputs are float32.
      remat: "none", or "blocks": training keeps only what goes into each residual block and each
        unit of the neck, and computes the rest again for the gradient. Less memory, more time, the
        same numbers.
      conv: the convolution, by default XLA's.
      norm: BatchNorm and LeakyReLU with the statistics of the batch, by default plain JAX. Others
        (`mtnet_jax.cpu.choice.fastest`) compute the same; with the defaults every transformation
        and every platform works.
    """

    num_classes: int
    pose_size: int
    version: str = "v2"
    width: float = 1.0
    depth: float = 1.0
    pose_width: float = 0.0
    pose_blocks: int = 0
    box_activation: str = "none"
    pose_activation: str = "none"
    aggregate: str = "none"
    dtype: Any = jnp.float32
    remat: str = "none"
    conv: Convolution = conv2d
    norm: Normalisation = batch_norm_leaky

    def setup(self) -> None:
        self._check_options()
        both: dict[str, Any] = {"conv": self.conv, "norm": self.norm}
        self.backbone = Darknet53(self.width, self.depth, self.dtype, self.remat, **both)
        self.neck = FeaturePyramid(self.width, self.dtype, self.remat, **both)
        shared = self.version == "v1"
        values = 5 + self.num_classes + shared * self.pose_size
        self.face = FaceBranch(values, self.dtype, self.conv)
        if not shared:
            width = self.pose_width or self.width
            of_branch = (width, self.pose_blocks, self.aggregate, self.dtype, self.remat)
            self.pose = PoseBranch(self.pose_size, *of_branch, **both)

    def __call__(
        self, images_BxHxWx3: Array, *, train: Collection[str] = (), frozen_stages: int = 0
    ) -> list[Array]:
        """Predicts raw values for every cell and anchor.

        Args:
          images_BxHxWx3: RGB images in [0, 1]; H and W multiples of 32.
          train: names in `GROUPS` whose BatchNorm normalises with the statistics of this batch and
            updates the running ones (apply with mutable=["batch_stats"]). All other groups
            normalise with their running statistics, which stay bit-identical.
          frozen_stages: the stem and so many stages of the backbone do that too; 0: none.

        Returns:
          Three float32 arrays (B, H / stride, W / stride, 3, 5 + num_classes + pose_size), strides
          32, 16, 8; the last axis is tx, ty, tw, th, objectness, classes, pose.

        Raises:
          ValueError: a side that is no multiple of 32, an unknown group.
        """
        _check_images(images_BxHxWx3.shape)
        _check_groups(train)
        features = self.backbone(
            images_BxHxWx3, train="backbone" in train, frozen_stages=frozen_stages
        )
        scales = self.neck(features, train="neck" in train)
        faces = self.face(scales)
        outputs = [split_anchors(face) for face in faces]
        if self.version == "v2":
            poses = self.pose(scales, faces, train="pose" in train)
            outputs = [
                jnp.concatenate([face, split_anchors(pose)], axis=-1)
                for face, pose in zip(outputs, poses, strict=True)
            ]
        return [self._activate(output) for output in outputs]

    def _activate(self, output_BxKxKx3xV: Array) -> Array:
        if self.box_activation == self.pose_activation == "none":
            return output_BxKxKx3xV
        box, scores, pose = jnp.split(output_BxKxKx3xV, (4, 5 + self.num_classes), axis=-1)
        if self.box_activation == "tanh":
            box = jnp.tanh(box)
        if self.pose_activation == "tanh":
            pose = jnp.tanh(pose)
        return jnp.concatenate([box, scores, pose], axis=-1)

    def _check_options(self) -> None:
        for name, allowed in (
            ("version", VERSIONS),
            ("box_activation", ACTIVATIONS),
            ("pose_activation", ACTIVATIONS),
            ("aggregate", AGGREGATES),
            ("remat", REMATS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise BadInput(f"{name} is {value!r}; it can be one of {', '.join(allowed)}")
        for name, without in (("aggregate", "none"), ("pose_width", 0), ("pose_blocks", 0)):
            if self.version == "v1" and getattr(self, name) != without:
                raise BadInput(f"{name} needs a pose branch, and version v1 has none: use v2")
        for name, least in (("num_classes", 1), ("pose_size", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("width", "depth"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} is {getattr(self, name)}; it must be positive")
        if not self.pose_width >= 0:
            raise BadInput(f"pose_width is {self.pose_width}; it must be positive, or 0: as width")
        if not self.pose_blocks >= 0:
            raise BadInput(f"pose_blocks is {self.pose_blocks}; it must be 0 or more")


def count_parameters(params: Mapping[str, Any]) -> dict[str, int]:
    """Trainable parameters of each group.

    Args:
      params: the "params" collection of `MultitaskNet`.

    Returns:
      Group name -> number of floats, in the order of `GROUPS`, groups the net lacks left out.
    """
    return {
        group: sum(leaf.size for leaf in jax.tree.leaves(params[group]))
        for group in GROUPS
        if group in params
    }


def _check_images(shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or shape[-1] != 3:
        raise BadInput(f"images of shape {shape}; expected (batch, height, width, 3)")
    height, width = shape[1:3]
    if height < STRIDES[0] or width < STRIDES[0] or height % STRIDES[0] or width % STRIDES[0]:
        raise BadInput(
            f"images of {height} x {width}; height and width must be multiples of {STRIDES[0]}"
        )


def _check_groups(train: Collection[str]) -> None:
    unknown = {train} if isinstance(train, str) else set(train) - set(GROUPS)
    if unknown:
        raise BadInput(
            f"train is {train!r}; it must be a collection of names out of {', '.join(GROUPS)}"
        )


def normalise_images(images: jax.Array) -> jax.Array:
    """(B, H, W, 3) uint8 -> float32 in [0, 1], what the network takes."""
    return images.astype(jnp.float32) / 255.0
