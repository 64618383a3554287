"""What a run starts with: fresh variables, those of other weights, or its last checkpoint."""

import hashlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.anchors import ANCHOR_SIZE
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
from mtnet_jax.training.config_changes import differences
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

_MEANS = {  # option -> the group whose numbers mean something else with another value
    "class_names": "face",
    "model.box_activation": "face",
    "model.pose_activation": "pose",
    "model.representation": "pose",
}


_SHAPES = ("class_names", *(f"model.{n}" for n in ("version", "representation", "width", "depth")))


def initial_variables(
    system: System, config: ConfigDict, distribution: Distribution
) -> dict[str, Any]:
    """Fresh variables from the seed, with what `config.init` names in their place.

    Every host makes them by itself, the same.

    Raises:
      BadInput: weights that do not fit, or that are others on another host.
    """
    images = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    variables = jax.jit(system.model.init)(_key(config.seed), images)
    if config.init.darknet_weights:
        variables, report = load_darknet_weights(config.init.darknet_weights, variables)
        if not all_finite(variables):
            raise BadInput(f"{config.init.darknet_weights} holds values that are no numbers.")
        _say(str(report))
    if config.init.weights:
        variables = _start_from(config, variables)
    if hosts.several():
        hosts.check_same("What training starts with (config.init)", _digest(variables))
    return put_same(variables, distribution.of_state(variables))


def first_state(
    variables: dict[str, Any],
    optimizer: Any,
    config: ConfigDict,
    distribution: Distribution,
) -> TrainState:
    """The state a phase begins with.

    Args:
      variables: that the phase before has left, or fresh ones.
      optimizer: of the phase.
      config: of the run.
      distribution: of the run.
    """
    # Each phase starts with fresh moments: it has another loss, another rate, other groups.
    places = distribution.of_state(jax.eval_shape(optimizer.init, variables["params"]))
    opt_state = jax.jit(optimizer.init, out_shardings=places)(variables["params"])
    # And with a fresh average: a group that learns for the first time would else weigh in it, for
    # long, as the noise that it was.
    average = None
    if config.ema_decay:
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
      DamagedCheckpoint: all that there are.
      Unavailable: one was not read, and may be whole.
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
            goes_on = "training goes on from the one before"
            return position, state, [f"{each}, {goes_on}" for each in said]
        except DamagedCheckpoint as error:
            if step == steps[-1]:
                raise DamagedCheckpoint(
                    "; ".join((*said, f"{error}, and no older one is kept"))
                    + ": begin anew in another --workdir"
                ) from error
            place = checkpoints.set_aside(step)
            said.append(f"{error}: set aside as {place}")
    return START, None, said


def _start_from(config: ConfigDict, fresh: dict[str, Any]) -> dict[str, Any]:
    """The variables of other weights, as far as they fit; says what became of each group.

    Raises:
      ValueError: no group fits.
    """
    folder = config.init.weights
    found, stored = load_weights(folder)
    otherwise = means_otherwise(found, config, fresh["params"])
    variables, became = start_from(stored, fresh, otherwise)
    said = [f"{group}: {why}" for group, why in otherwise.items()]
    if list(became) == [_FRESH]:
        raise BadInput(_no_part_fits(found, config))
    parts = [f"{', '.join(groups)} {how}" for how, groups in became.items()]
    _say(f"from {folder}: {'; '.join((*parts, *said))}")
    for warning in start_warnings(found, config):
        _say(f"WARNING: {folder}: {warning}")
    return variables


def _no_part_fits(found: ConfigDict, config: ConfigDict) -> str:
    """Says in which options of the network weights differ that do not fit it at all."""
    differ = [
        f" config.{name} is {old!r} there, {new!r} here;"
        for name, (old, new) in differences(found, config).items()
        if name in _SHAPES
    ]
    return (
        f"No part of the weights in {config.init.weights} fits this network:{''.join(differ)} "
        "begin with those of the same options, or of a network that is narrower or shallower."
    )


def means_otherwise(
    found: ConfigDict, config: ConfigDict, groups: Collection[str]
) -> dict[str, str]:
    """Groups whose weights would say something else in another network, whatever their shapes.

    Args:
      found: configuration of the weights.
      config: of the network that is to begin with them.
      groups: of that network.

    Returns:
      Group -> the options that differ.
    """
    changed = differences(found, config)
    if len(found.class_names) == len(config.class_names) == 1:
        changed.pop("class_names", None)  # whatever it is called, it is all that is found
    reasons: dict[str, list[str]] = {}
    for option, group in _MEANS.items():
        if option in changed:
            old, new = changed[option]
            # Of a network of one head for everything, the pose is said by the face branch.
            speaker = group if group in groups else "face"
            reasons.setdefault(speaker, []).append(f"{option} is {old!r} there, {new!r} here")
    if "face" in reasons and "pose" in groups and config.model.aggregate == "boxes":
        reasons.setdefault("pose", []).extend(f"it reads faces: {why}" for why in reasons["face"])
    return {group: ", ".join(of_group) for group, of_group in reasons.items()}


def start_warnings(found: ConfigDict, config: ConfigDict) -> list[str]:
    """What a network has to learn anew that begins with weights of another configuration."""
    changed, warnings = differences(found, config), []
    if "frame" in changed:
        warnings.append(
            f"its rotations are in the frame {changed['frame'][0]!r}, those of this training in "
            f"{config.frame!r} (docs/conventions.md): it has to learn them anew"
        )
    old, new = (_anchor_pixels(each) for each in (found, config))
    if old.shape == new.shape and not np.allclose(old, new, rtol=0.01):
        warnings.append(
            f"its anchors are others, in pixels of the input {_listed(old)}, here {_listed(new)}: "
            "it has to learn boxes anew. Anchors are written for an input of 416: to keep them, "
            f"multiply those that it had by {found.input.size / config.input.size:.6g}, its input "
            "size by this one"
        )
    return warnings


def _anchor_pixels(config: ConfigDict) -> np.ndarray:
    """(n, 2) width and height of the anchors in pixels of the input."""
    return np.array(config.input.anchors, np.float64) * config.input.size / ANCHOR_SIZE


def _listed(anchors: np.ndarray) -> str:
    return " ".join(f"{width:.0f}x{height:.0f}" for width, height in anchors)


def start_from(
    stored: dict[str, Any], fresh: dict[str, Any], otherwise: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Stored variables, and fresh ones for groups that differ (representation, ...).

    Those of a smaller network (`config.model.width`, `depth`, `pose_width`, `pose_blocks`) begin in
    a larger one as they were, see `training.growing`. What reads a fresh group is fresh itself.

    Args:
      stored: variables of other weights.
      fresh: of the network that is to begin with them.
      otherwise: groups that differ in what their numbers mean.

    Returns:
      The variables, and what became of the groups: how -> their names.
    """
    variables = {kind: dict(trees) for kind, trees in fresh.items()}
    became: dict[str, list[str]] = {}
    for group in [group for group in GROUPS if group in fresh["params"]]:
        fits = group in stored["params"] and group not in otherwise
        if fits and not _READS[group] & {*became.get(_FRESH, ())}:
            started = grow(group, fresh, stored)
        else:
            started = None
        if started is None:
            became.setdefault(_FRESH, []).append(group)
            continue
        larger = _sizes(started["params"]) != _sizes(stored["params"][group])
        became.setdefault("in a larger network" if larger else "as they are", []).append(group)
        for kind, tree in started.items():
            variables[kind][group] = tree
    return variables, became


def _sizes(tree: Any) -> list[int]:
    return [np.size(leaf) for leaf in jax.tree.leaves(tree)]


def _key(seed: int) -> jax.Array:
    """The key of a seed below 2^63, of which JAX by itself reads the lower 32 bits alone."""
    # This generator compiles in a fifth of the default one's time; it may differ between backends.
    key = jax.random.key(seed % 2**32, impl="rbg")
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def _digest(tree: Any) -> bytes:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.digest()


def _say(text: str) -> None:
    if hosts.is_first():
        print(text)
