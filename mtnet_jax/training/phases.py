"""The phases of training (section 4.1): what learns, for how long, how fast, for which loss."""

from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput
from mtnet_jax.losses import LossWeights
from mtnet_jax.network import GROUPS

Params = dict[str, Any]


class Phase(NamedTuple):
    """One phase; see `mtnet_jax.config.phase` for the fields."""

    name: str
    trainable: tuple[str, ...]
    epochs: float
    batch_size: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weights: LossWeights

    def steps(self, images: float) -> int:
        """Steps of the phase for an epoch of so many images: one at least, none in 0 epochs."""
        return max(1, round(self.epochs * images / self.batch_size)) if self.epochs else 0


def read_phases(config: ConfigDict) -> tuple[Phase, ...]:
    """The phases of a configuration in the order of their names.

    Raises:
      ValueError: no phase, an unknown group or schedule, a pose loss while the pose is frozen.
    """
    phases = []
    for name in sorted(config.phases):
        fields = dict(config.phases[name])
        weights = LossWeights(**fields.pop("loss"))
        phases.append(Phase(name=name, weights=weights, **fields))
        _check(phases[-1], config.model.version)
    if not phases:
        raise BadInput("config.phases is empty: add one with mtnet_jax.config.phase(...).")
    return tuple(phases)


def make_optimizer(
    phase: Phase, params: Params, *, steps: int, clip_norm: float
) -> optax.GradientTransformation:
    """Adam for the trainable groups, nothing at all (no moments either) for the frozen ones.

    Args:
      phase: which groups learn.
      params: the parameters, or their shapes; top-level names are groups.
      steps: length of the phase, for the schedule.
      clip_norm: of the global gradient norm, 0 does not clip.

    Raises:
      ValueError: a parameter that belongs to no group, by name.
    """
    labels = group_labels(params)
    adam = optax.adam(learning_rate(phase, steps))
    transforms = {
        group: adam if group in phase.trainable else optax.set_to_zero() for group in GROUPS
    }
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optax.multi_transform(transforms, labels))


def learning_rate(phase: Phase, steps: int) -> optax.Schedule:
    """The learning rate at each step of a phase."""
    peak, warmup = phase.learning_rate, phase.warmup_steps
    if phase.schedule == "constant":
        main = optax.constant_schedule(peak)
    else:
        main = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=0.01)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def group_labels(params: Params) -> Params:
    """The group of each parameter, in a tree like `params`.

    Raises:
      ValueError: a parameter that belongs to no group, by name.
    """

    def label(path: tuple, _: Any) -> str:
        group = path[0].key
        if group not in GROUPS:
            raise BadInput(
                f"Parameter {jax.tree_util.keystr(path)} belongs to no group: its top-level name "
                f"must be one of {GROUPS} so that every phase knows whether it learns."
            )
        return group

    return jax.tree_util.tree_map_with_path(label, params)


def _check(phase: Phase, version: str) -> None:
    unknown = [group for group in phase.trainable if group not in GROUPS]
    if unknown or not phase.trainable:
        raise BadInput(
            f"config.phases.{phase.name}.trainable is {phase.trainable}: "
            f"name one or more of {GROUPS}."
        )
    if phase.schedule not in ("constant", "cosine"):
        raise BadInput(
            f"config.phases.{phase.name}.schedule is {phase.schedule!r}: 'constant' or 'cosine'."
        )
    if version == "v2" and "pose" not in phase.trainable and phase.weights.alpha < 1:
        raise BadInput(
            f"config.phases.{phase.name} freezes the pose branch but weighs its loss: the gradient "
            "would push the other groups for a frozen reader. Set loss.alpha = 1 in this phase."
        )


def check_devices(phases: tuple[Phase, ...]) -> None:
    """Raises BadInput where the devices cannot share a phase's batches alike."""
    devices = jax.device_count()
    for phase in phases:
        if phase.batch_size % devices:
            raise BadInput(
                f"config.phases.{phase.name}.batch_size is {phase.batch_size}: it must be a "
                f"multiple of the {devices} devices."
            )
