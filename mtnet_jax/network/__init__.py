"""The network: Darknet-53, feature pyramid, face and pose branches, Darknet weight files."""

from mtnet_jax.network.multitask_net import (
    GROUPS,
    STRIDES,
    MultitaskNet,
    count_parameters,
    normalise_images,
)

__all__ = ["GROUPS", "STRIDES", "MultitaskNet", "count_parameters", "normalise_images"]
