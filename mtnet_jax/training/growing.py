"""Weights of a smaller network in a larger one that begins by saying the same.

A larger one is wider, deeper, or has a wider or deeper pose branch. Channels that are new compute
something from the start, out of random weights, but nothing reads them yet: what the old channels
make of them begins as zero. Residual blocks that are new add nothing yet. Both learn from the first
steps on (Chen et al., Net2Net, where new channels are copies instead).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Variables = Mapping[str, Any]  # {"params", "batch_stats"}
Channels = list[tuple[int, int]]  # old and new number of channels of each map that is concatenated

# Of a residual block: where these are zero, it adds nothing.
_SILENT = (("conv2", "bn", "scale"), ("conv2", "bn", "bias"))
_OF_ROUTE = re.compile(r"scale(\d)_(?:conv1|block\d+)$|hidden(\d)$")  # neck, pose: reads the route


def grow(group: str, fresh: Variables, stored: Variables) -> dict[str, Any] | None:
    """One group of a network with the weights of a smaller one.

    Args:
      group: one of `mtnet_jax.network.GROUPS`, which both have.
      fresh: variables of the larger network, which new channels and blocks have.
      stored: variables of the smaller one.

    Returns:
      {"params", "batch_stats"} of the group, as far as it has them; None where the two differ in
      anything but size, or the stored one is the larger.
    """
    new, old = (
        flatten_dict({kind: tree[kind][group] for kind in tree if group in tree[kind]})
        for tree in (fresh, stored)
    )
    if not set(old) <= set(new) or (group == "pose" and not _same_boxes(fresh, stored)):
        return None
    grown = {}
    for path, leaf in new.items():
        value = np.array(leaf)
        if path in old:
            before = np.asarray(old[path])
            unit = "bn" in path or (*path[:-1], "bn", "scale") in new
            if not unit and before.shape[-1] != value.shape[-1]:
                return None  # what a branch says: another representation, other classes
            reads, gives = _channels(path[1:], fresh, stored)
            placed = _place(value, before, path[-1] == "kernel", reads, gives)
        else:
            placed = _added(path, value)
        if placed is None:
            return None
        grown[path] = placed
    return unflatten_dict(grown)


def _added(path: tuple[str, ...], value: np.ndarray) -> np.ndarray | None:
    """An array of a residual block that the smaller network does not have."""
    if "_block" not in path[1]:
        return None
    return np.zeros_like(value) if path[-3:] in _SILENT else value


def _place(
    value: np.ndarray, old: np.ndarray, kernel: bool, reads: Channels, gives: Channels
) -> np.ndarray | None:
    """An old array among the fresh values of a larger one."""
    if value.ndim != old.ndim or value.shape[:-2] != old.shape[:-2]:
        return None
    outputs = _places(gives, old.shape[-1], value.shape[-1])
    inputs = _places(reads, old.shape[-2], value.shape[-2]) if kernel else None
    if outputs is None or (kernel and inputs is None):
        return None
    if kernel:
        value[..., outputs] = 0
        value[..., np.asarray(inputs)[:, None], outputs] = old
    else:
        value[..., outputs] = old
    return value


def _places(parts: Channels, old: int, new: int) -> np.ndarray | None:
    """Where old channels lie among the new ones.

    Args:
      parts: of the first channels; those after them are one more part.
      old, new: numbers of channels.
    """
    rest = (old - sum(part[0] for part in parts), new - sum(part[1] for part in parts))
    places, first = [], 0
    for before, after in (*parts, rest):
        if not 0 <= before <= after:
            return None
        places.append(np.arange(first, first + before))
        first += after
    return np.concatenate(places)


def _channels(
    path: tuple[str, ...], fresh: Variables, stored: Variables
) -> tuple[Channels, Channels]:
    """The maps that a layer reads and those that it gives, where they are several in one."""
    match = _OF_ROUTE.match(path[0])
    if match is None:
        return [], []
    route = _route(match[1] or match[2], fresh, stored)
    # A residual block of the pose branch gives what it reads, by half as many channels.
    return ([], route) if path[1] == "conv2" else (route, [])


def _same_boxes(fresh: Variables, stored: Variables) -> bool:
    """Whether both pose branches read as many numbers of the face branch, or none."""
    read = [tree["params"]["pose"]["hidden1"]["kernel"].shape[-2] for tree in (stored, fresh)]
    of_pyramid = [sum(part) for part in zip(*_route("1", fresh, stored), strict=True)]
    return read[0] - of_pyramid[0] == read[1] - of_pyramid[1]


def _route(scale: str, fresh: Variables, stored: Variables) -> Channels:
    """The input of the pyramid at a scale: what comes down from the coarser one, then the
    backbone's map."""
    parts = []
    for tree in (stored, fresh):
        neck = tree["params"]["neck"]
        down = neck[f"lateral{scale}"]["kernel"].shape[-1] if f"lateral{scale}" in neck else 0
        parts.append((down, neck[f"scale{scale}_conv1"]["kernel"].shape[-2] - down))
    return list(zip(*parts, strict=True))
