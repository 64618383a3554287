"""Where arrays lie: the mesh of devices, the batch split over it, parameters on all or sharded.

The mesh has two axes. Every image of a batch lies on one device, whichever axis. Along `data`
parameters, moments and averages are replicated; along `fsdp` each device keeps a part of them
(fully sharded data parallelism, Zhao et al. 2023, arXiv:2304.11277; ZeRO, Rajbhandari et al. 2020,
arXiv:1910.02054): they are gathered where the network needs them, and the gradient of a part goes
to the device that keeps it. BatchNorm and the loss see the whole batch in both.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput

AXES = ("data", "fsdp")


class Distribution(NamedTuple):
    """The mesh, and what lies where on it."""

    mesh: Mesh
    shard_above: int  # arrays of more numbers are sharded along `fsdp`, where a side divides

    @property
    def sharded(self) -> bool:
        """Whether a device keeps only a part of the parameters."""
        return self.mesh.shape["fsdp"] > 1

    @property
    def replicated(self) -> NamedSharding:
        """Everything on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_image(self) -> NamedSharding:
        """The first axis split over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXES))

    def of_state(self, shapes: Any) -> Any:
        """The shardings of parameters, moments or averages, in a tree like that of their shapes."""
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._spec(leaf.shape)), shapes)

    def _spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        parts = self.mesh.shape["fsdp"]
        divisible = [axis for axis, side in enumerate(shape) if side and side % parts == 0]
        if parts == 1 or np.prod(shape) <= self.shard_above or not divisible:
            return PartitionSpec()
        longest = max(divisible, key=lambda axis: shape[axis])
        return PartitionSpec(*("fsdp" if axis == longest else None for axis in range(len(shape))))


def distribute(config: ConfigDict) -> Distribution:
    """The distribution of a configuration over all devices of all hosts.

    Raises:
      BadInput: a number of devices that the mesh cannot have.
    """
    fsdp, devices = config.mesh.fsdp, jax.device_count()
    check_mesh(config, devices)
    return Distribution(mesh_of(jax.devices(), fsdp), config.mesh.shard_above)


def mesh_of(devices: Sequence[Any], fsdp: int) -> Mesh:
    """The mesh of devices, of one slice or of several.

    Devices of a slice have quick links to each other: the chips of a TPU slice, the GPUs of a host
    or of several that NVLink joins. `jax.make_mesh` takes one slice alone. Of several each is a
    row of blocks along `data`, so that parameters are gathered within a slice, and gradients alone
    go between them.

    Args:
      devices: of all hosts.
      fsdp: along that axis; divides their number.

    Returns:
      (devices / fsdp, fsdp) devices on `AXES`. Where `fsdp` is more than a slice, or does not
      divide it, they are in the order of hosts.
    """
    types = 2 * (AxisType.Auto,)
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1:
        return jax.make_mesh((len(devices) // fsdp, fsdp), AXES, types, devices=devices)
    each = min(slices.values())
    if each == max(slices.values()) and each % fsdp == 0:
        placed = mesh_utils.create_hybrid_device_mesh(
            (each // fsdp, fsdp), (len(slices), 1), devices, allow_split_physical_axes=True
        )
    else:
        in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
        placed = np.array(in_order, object).reshape(-1, fsdp)
    return Mesh(placed, AXES, axis_types=types)


def check_mesh(config: ConfigDict, devices: int) -> None:
    """Raises BadInput where so many devices make no mesh of the configuration."""
    if devices % config.mesh.fsdp:
        raise BadInput(
            f"config.mesh.fsdp is {config.mesh.fsdp}: it must divide the number of devices, "
            f"{devices}."
        )


def put_batch(batch: Mapping[str, np.ndarray], distribution: Distribution) -> dict[str, jax.Array]:
    """The global batch of which this host has these rows."""
    place = distribution.by_image
    return {k: jax.make_array_from_process_local_data(place, v) for k, v in batch.items()}


def put_same(tree: Any, shardings: Any) -> Any:
    """Puts arrays that every host has whole where their shardings say."""

    def put(value: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def on_this_host(tree: Any, distribution: Distribution) -> Any:
    """Arrays of the whole mesh as they are needed by this host alone; all hosts must ask.

    Returns:
      The same values, whole, on the first device of this host.
    """
    if distribution.sharded:
        tree = _gathering(distribution.replicated)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


@functools.cache  # so that it is compiled once
def _gathering(replicated: NamedSharding) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=replicated)
