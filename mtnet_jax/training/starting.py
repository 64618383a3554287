"""What a run starts with: fresh variables, those of other weights, or its last checkpoint."""

import hashlib
from typing import Any

import jax
import numpy as np
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
from mtnet_jax.network import GROUPS
from mtnet_jax.network.darknet_weights import load_darknet_weights
from mtnet_jax.system import System, TrainState, abstract_variables
from mtnet_jax.training import ema
from mtnet_jax.training.distribution import Distribution, put_same
from mtnet_jax.training.growing import grow
from mtnet_jax.weights import load_weights

_FRESH = "fresh"
_READS: dict[str, set[str]] = {  # group -> those of whose maps it makes something
    "backbone": set(),
    "neck": {"backbone"},
    "face": {"backbone", "neck"},
    "pose": {"backbone", "neck"},
}


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
    """The variables of other weights, as far as they fit; says what became of each group.

    Raises:
      ValueError: no group fits.
    """
    variables, became = start_from(load_weights(folder)[1], fresh)
    if list(became) == [_FRESH]:
        raise BadInput(f"No part of the weights in {folder} fits this network.")
    parts = [f"{', '.join(groups)} {how}" for how, groups in became.items()]
    _say(f"from {folder}: {'; '.join(parts)}")
    return variables


def start_from(
    stored: dict[str, Any], fresh: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Stored variables, and fresh ones for groups that differ (representation, ...).

    Those of a smaller network (`config.model.width`, `depth`, `pose_width`, `pose_blocks`) begin in
    a larger one as they were, see `training.growing`, unless what they read is fresh.

    Returns:
      The variables, and what became of the groups: how -> their names.
    """
    variables = {kind: dict(trees) for kind, trees in fresh.items()}
    became: dict[str, list[str]] = {}
    for group in [group for group in GROUPS if group in fresh["params"]]:
        started = grow(group, fresh, stored) if group in stored["params"] else None
        larger = started and _sizes(started["params"]) != _sizes(stored["params"][group])
        if started is None or (larger and _READS[group] & {*became.get(_FRESH, ())}):
            became.setdefault(_FRESH, []).append(group)
            continue
        became.setdefault("in a larger network" if larger else "as they are", []).append(group)
        for kind, tree in started.items():
            variables[kind][group] = tree
    return variables, became


def _sizes(tree: Any) -> list[int]:
    return [np.size(leaf) for leaf in jax.tree.leaves(tree)]


def _digest(tree: Any) -> bytes:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.digest()


def _say(text: str) -> None:
    if hosts.is_first():
        print(text)
