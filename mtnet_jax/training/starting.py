"""What a run starts with: fresh variables, those of other weights, or its last checkpoint."""

import hashlib
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.checkpoints import (
    START,
    Checkpoints,
    DamagedCheckpoint,
    Position,
    all_finite,
    with_shardings,
)
from mtnet_jax.errors import BadInput
from mtnet_jax.network.darknet_weights import load_darknet_weights
from mtnet_jax.system import System, TrainState, abstract_variables
from mtnet_jax.training import ema
from mtnet_jax.training.distribution import Distribution, put_same
from mtnet_jax.weights import load_weights

SILENT = ("conv2", "bn", "scale")  # of a residual block: where it is zero, the block adds nothing


def initial_variables(
    system: System, config: ConfigDict, distribution: Distribution
) -> dict[str, Any]:
    """Fresh variables from the seed, with what `config.init` names in their place.

    Every host makes them by itself, the same.

    Raises:
      BadInput: weights that do not fit, or that are others on another host.
    """
    images = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    # This generator compiles in a fifth of the default one's time; it may differ between backends.
    variables = jax.jit(system.model.init)(jax.random.key(config.seed, impl="rbg"), images)
    if config.init.darknet_weights:
        variables, report = load_darknet_weights(config.init.darknet_weights, variables)
        if not all_finite(variables):
            raise BadInput(f"{config.init.darknet_weights} holds values that are no numbers.")
        _say(str(report))
    if config.init.weights:
        variables = _start_from(config.init.weights, variables)
    if hosts.several():
        hosts.check_same("What training starts with (config.init)", _digest(variables))
    return put_same(variables, distribution.of_state(variables))


def first_state(
    variables: dict[str, Any],
    average: ema.Average | None,
    optimizer: Any,
    config: ConfigDict,
    distribution: Distribution,
) -> TrainState:
    """The state a phase begins with.

    Args:
      variables: that the phase before has left, or fresh ones.
      average: of the weights, as the phase before has left it.
      optimizer: of the phase.
      config: of the run.
      distribution: of the run.
    """
    # Each phase starts with fresh moments: it has another loss, another rate, other groups.
    places = distribution.of_state(jax.eval_shape(optimizer.init, variables["params"]))
    opt_state = jax.jit(optimizer.init, out_shardings=places)(variables["params"])
    if config.ema_decay and average is None:
        places = distribution.of_state(jax.eval_shape(ema.start, variables))
        average = jax.jit(ema.start, out_shardings=places)(variables)
    return TrainState(**variables, opt_state=opt_state, ema=average)


def resume(
    checkpoints: Checkpoints,
    system: System,
    optimizers: list[Any],
    config: ConfigDict,
    distribution: Distribution,
) -> tuple[Position, TrainState | None, list[str]]:
    """Position and state of the latest checkpoint that is whole; `START` and None where none is.

    Returns:
      The two, and a line for each checkpoint that was set aside.

    Raises:
      DamagedCheckpoint: the only one there is.
    """
    abstract = abstract_variables(system)
    average = jax.eval_shape(ema.start, abstract) if config.ema_decay else None
    said: list[str] = []
    steps = checkpoints.steps()
    for step in steps:
        try:
            position = checkpoints.position(step)
            opt_state = jax.eval_shape(optimizers[position.phase].init, abstract["params"])
            shapes = TrainState(**abstract, opt_state=opt_state, ema=average)
            state = checkpoints.restore(step, with_shardings(shapes, distribution.of_state(shapes)))
            return position, state, said
        except DamagedCheckpoint as error:
            if step == steps[-1]:
                raise DamagedCheckpoint(
                    f"{error}, and no older one is kept: begin anew in another --workdir"
                ) from error
            place = checkpoints.set_aside(step)
            said.append(f"{error}: set aside as {place}, training goes on from the one before")
    return START, None, said


def _start_from(folder: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """The variables of other weights; a group of another shape (representation, ...) stays fresh.

    A pose branch that was narrower or had fewer blocks (`config.model.pose_width`, `pose_blocks`)
    begins as it was, see `_grown`.

    Raises:
      ValueError: no group fits.
    """
    _, stored = load_weights(folder)
    shapes = lambda tree: jax.tree.map(np.shape, tree)  # noqa: E731
    new, old = ({kind: tree[kind].get("pose") for kind in fresh} for tree in (fresh, stored))
    if shapes(new) != shapes(old) and (grown := _grown(new, old)) is not None:
        _say(f"{folder}: the pose branch gets more channels or blocks, and begins as it was")
        stored = {kind: {**stored[kind], "pose": grown[kind]} for kind in fresh}
    fits = [
        group
        for group in fresh["params"]
        if shapes(fresh["params"][group]) == shapes(stored["params"].get(group))
    ]
    if not fits:
        raise BadInput(f"No part of the weights in {folder} fits this network.")
    left = [group for group in fresh["params"] if group not in fits]
    _say(f"from {folder}: {', '.join(fits)}" + (f"; fresh: {', '.join(left)}" if left else ""))
    return {
        kind: {
            group: stored[kind][group] if group in fits else tree for group, tree in trees.items()
        }
        for kind, trees in fresh.items()
    }


def _grown(fresh: Any, stored: Any) -> Any | None:
    """A stored pose branch with the channels and blocks of a fresh one, which says the same.

    New hidden channels are those of the fresh branch, and nothing is made of them yet: what reads
    them begins with zeros. New residual blocks add nothing yet: the scale of their last BatchNorm
    is zero, and learns.

    Returns:
      None where the two differ in anything else.
    """
    if None in (*fresh.values(), *stored.values()):
        return None
    new, old = (flatten_dict(tree) for tree in (fresh, stored))
    added = [path for path in new if path not in old]
    if len(new) - len(added) != len(old) or not all("_block" in path[1] for path in added):
        return None
    grown = {
        path: np.zeros(leaf.shape, leaf.dtype) if path[2:] == SILENT else np.asarray(leaf)
        for path, leaf in new.items()
        if path in added
    }
    for path, leaf in old.items():
        wider = _widened(path, np.array(new[path]), np.asarray(leaf))
        if wider is None:
            return None
        grown[path] = wider
    return unflatten_dict(grown)


def _widened(path: tuple[str, ...], new: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """A stored array in a fresh one with more hidden channels; None where that is not all."""
    if new.shape == old.shape:
        return old
    # The first convolution gives the hidden channels, in its last axis; the second takes them.
    gives = path[1].startswith("hidden")
    axis = new.ndim - 1 if gives else new.ndim - 2
    if new.ndim != old.ndim or (np.delete(new.shape, axis) != np.delete(old.shape, axis)).any():
        return None
    if new.shape[axis] < old.shape[axis]:
        return None
    if not gives:
        new[:] = 0
    new[tuple(map(slice, old.shape))] = old
    return new


def _digest(tree: Any) -> bytes:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.digest()


def _say(text: str) -> None:
    if hosts.is_first():
        print(text)
