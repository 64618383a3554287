"""What a configuration builds: network, grid, representation, and the variables of the network."""

from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.anchors import Grid, make_grid
from mtnet_jax.errors import BadInput
from mtnet_jax.losses import IOU_LOSSES
from mtnet_jax.network import MultitaskNet
from mtnet_jax.representations import Representation, make_representation
from mtnet_jax.targets import AssignOptions

_AVERAGED = ("vectors", "sixd")  # representations whose numbers have a mean that means something


class System(NamedTuple):
    """What a configuration builds: the network, how its outputs are read and what they answer."""

    model: MultitaskNet
    grid: Grid
    representation: Representation
    class_names: tuple[str, ...]
    assign: AssignOptions
    iou_loss: str  # of `mtnet_jax.losses.IOU_LOSSES`


def build_system(config: ConfigDict) -> System:
    """The network, grid and representation of a configuration.

    Raises:
      ValueError: an option with a value that does not exist.
    """
    representation = make_representation(
        config.model.representation,
        vector_loss=config.pose_loss.vectors,
        orthogonality=config.pose_loss.orthogonality,
    )
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if config.model.dtype not in dtypes:
        raise BadInput(f"config.model.dtype is {config.model.dtype!r}: {' or '.join(dtypes)}.")
    if config.decode.get("vote", False) and config.model.representation not in _AVERAGED:
        raise BadInput(
            f"config.decode.vote takes the mean of what the network says of a pose, which means "
            f"nothing of {config.model.representation}: set it to False, or take "
            f"{' or '.join(_AVERAGED)}."
        )
    iou_loss = config.get("iou_loss", "ciou")  # exports do without
    if iou_loss not in IOU_LOSSES:
        raise BadInput(f"config.iou_loss is {iou_loss!r}: {' or '.join(IOU_LOSSES)}.")
    class_names = tuple(config.class_names)
    model = MultitaskNet(
        num_classes=len(class_names),
        pose_size=representation.size,
        version=config.model.version,
        width=config.model.width,
        depth=config.model.depth,
        # Work directories and exports of before an option do not have it.
        pose_width=config.model.get("pose_width", 0.0),
        pose_blocks=config.model.get("pose_blocks", 0),
        box_activation=config.model.box_activation,
        pose_activation=config.model.pose_activation,
        aggregate=config.model.aggregate,
        dtype=dtypes[config.model.dtype],
        remat=config.model.get("remat", "none"),
    )
    return System(
        model,
        make_grid(config.input.size, config.input.anchors),
        representation,
        class_names,
        AssignOptions(**config.get("assign", {})),  # exports do without
        iou_loss,
    )


def at_size(config: ConfigDict, size: int) -> ConfigDict:
    """The configuration with which trained weights take inputs of another size.

    A trained network knows heads by their pixels: the same weights want the same anchors in pixels
    of any input. Anchors are written for an input of 416 (`mtnet_jax.anchors.make_grid` scales
    them), so those of a larger input are written smaller.

    Args:
      config: of the weights.
      size: side of the input in pixels, a multiple of 32.

    Raises:
      ValueError: a size that no network takes.
    """
    if not isinstance(size, Integral):
        raise BadInput(f"Input size {size!r}: give a whole number of pixels.")
    make_grid(size)  # refuses what no network takes
    changed = ConfigDict(config.to_dict())
    factor = config.input.size / size
    changed.input.anchors = tuple((w * factor, h * factor) for w, h in config.input.anchors)
    changed.input.size = int(size)  # NumPy's too
    return changed


def abstract_variables(system: System) -> dict[str, Any]:
    """Shapes of {"params", "batch_stats"}."""
    size = system.grid.size
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.eval_shape(system.model.init, jax.random.key(0), images)


class TrainState(NamedTuple):
    """All that a step changes."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any  # of optax
    ema: Any = None  # of the weights, see `mtnet_jax.training.ema`; None without
