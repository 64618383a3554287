"""The phases of training (section 4.1): what learns, for how long, how fast, for which loss."""

from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput
from mtnet_jax.losses import LossWeights
from mtnet_jax.network import GROUPS
from mtnet_jax.network.darknet53 import STAGE_BLOCKS, stage_of

Params = dict[str, Any]

FROZEN = "frozen_stages"  # what the optimizer calls these, of a backbone that learns

# How the learning rate grows with the batch, as a power of it. "linear": Goyal et al. 2017
# (arXiv:1706.02677), of SGD; "sqrt": Malladi et al. 2022 (arXiv:2205.10287), derived for Adam.
RATE_RULES = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}


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
    accumulate: int = 1
    rate_rule: str = "none"
    rate_batch: int = 0
    frozen_stages: int = 0
    weight_decay: float = 0.0
    b2: float = 0.999

    @property
    def peak_rate(self) -> float:
        """The learning rate at its highest, by the rule for this batch size."""
        larger = self.batch_size / (self.rate_batch or self.batch_size)
        return self.learning_rate * larger ** RATE_RULES[self.rate_rule]

    def learns(self, path: tuple[Any, ...]) -> bool:
        """Whether a parameter or statistic with this path of keys learns: its group, its stage."""
        group = path[0].key
        if group not in self.trainable:
            return False
        return not (
            self.frozen_stages
            and group == "backbone"
            and stage_of(path[1].key) <= self.frozen_stages
        )

    def steps(self, images: float) -> int:
        """Steps of the phase for an epoch of so many images: one at least, none in 0 epochs."""
        return max(1, round(self.epochs * images / self.batch_size)) if self.epochs else 0

    def steps_between(self, epochs: float, steps: int) -> int:
        """Steps of so many epochs, where the phase has `steps`: one at least, none in 0 epochs."""
        return max(1, round(epochs * steps / self.epochs)) if epochs else 0


def read_phases(config: ConfigDict) -> tuple[Phase, ...]:
    """The phases of a configuration in the order of their names.

    Raises:
      ValueError: no phase, an unknown group or schedule, a pose loss while the pose is frozen, none
        where nothing else learns.
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
    """Adam for what learns, nothing at all (no moments either) for what is frozen.

    With `phase.weight_decay` it is AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Args:
      phase: which groups learn.
      params: the parameters, or their shapes; top-level names are groups.
      steps: length of the phase, for the schedule.
      clip_norm: of the global gradient norm, 0 does not clip.

    Raises:
      ValueError: a parameter that belongs to no group, by name.
    """

    def label(path: tuple[Any, ...], group: str) -> str:
        return FROZEN if group in phase.trainable and not phase.learns(path) else group

    labels = jax.tree_util.tree_map_with_path(label, group_labels(params))
    rate = learning_rate(phase, steps)
    adam = optax.adam(rate, b2=phase.b2)
    if phase.weight_decay:  # its state is another tree: checkpoints without have that of Adam
        decay = {"weight_decay": phase.weight_decay, "mask": _kernels}
        adam = optax.adamw(rate, b2=phase.b2, **decay)
    transforms = {
        group: adam if group in phase.trainable else optax.set_to_zero() for group in GROUPS
    }
    if phase.frozen_stages:
        transforms[FROZEN] = optax.set_to_zero()
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optax.multi_transform(transforms, labels))


def _kernels(params: Params) -> Params:
    """Which parameters are kernels, neither biases nor of BatchNorm, in a tree like `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def learning_rate(phase: Phase, steps: int) -> optax.Schedule:
    """The learning rate at each step of a phase."""
    peak, warmup = phase.peak_rate, phase.warmup_steps
    if phase.schedule == "constant":
        main = optax.constant_schedule(peak)
    else:
        main = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=0.01)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def warmup_warning(phase: Phase, steps: int) -> str:
    """Says that a phase ends before its learning rate is at its highest; empty where none does."""
    if not 0 < steps <= phase.warmup_steps:
        return ""
    reached = phase.peak_rate * (steps - 1) / phase.warmup_steps
    return (
        f"WARNING: config.phases.{phase.name}.warmup_steps is {phase.warmup_steps}, and the phase "
        f"has {steps} steps: its learning rate comes to {reached:g} of {phase.peak_rate:g}. Give "
        "it a shorter warm-up, or more epochs."
    )


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
    if phase.frozen_stages not in range(len(STAGE_BLOCKS)):
        raise BadInput(
            f"config.phases.{phase.name}.frozen_stages is {phase.frozen_stages}: it must be from 0 "
            f"to {len(STAGE_BLOCKS) - 1}. To freeze the whole backbone, leave it out of trainable."
        )
    if phase.frozen_stages and "backbone" not in phase.trainable:
        raise BadInput(
            f"config.phases.{phase.name}.frozen_stages is {phase.frozen_stages}, but its trainable "
            f"{phase.trainable} leaves the whole backbone out: set it to 0."
        )
    pose_alone = set(phase.trainable) == {"pose"} and phase.epochs > 0
    if version == "v1" and pose_alone:
        raise BadInput(
            f"config.phases.{phase.name}.trainable is {phase.trainable}, but in version v1 the "
            "face branch says the pose: nothing would learn. Name the face branch, or give the "
            "phase 0 epochs."
        )
    if version == "v2" and pose_alone and phase.weights.alpha == 1:
        raise BadInput(
            f"config.phases.{phase.name} trains the pose branch alone, and loss.alpha = 1 leaves "
            "its loss out: nothing would learn. Set loss.alpha below 1, or give the phase 0 epochs."
        )
    if phase.schedule not in ("constant", "cosine"):
        raise BadInput(
            f"config.phases.{phase.name}.schedule is {phase.schedule!r}: 'constant' or 'cosine'."
        )
    if phase.rate_rule not in RATE_RULES:
        raise BadInput(
            f"config.phases.{phase.name}.rate_rule is {phase.rate_rule!r}: "
            f"one of {', '.join(RATE_RULES)}."
        )
    if phase.rate_rule != "none" and not phase.rate_batch:
        raise BadInput(
            f"config.phases.{phase.name}.rate_rule is {phase.rate_rule!r}, but rate_batch does not "
            "say for which batch size the learning_rate is."
        )
    if version == "v2" and "pose" not in phase.trainable and phase.weights.alpha < 1:
        raise BadInput(
            f"config.phases.{phase.name} freezes the pose branch but weighs its loss: the gradient "
            "would push the other groups for a frozen reader. Set loss.alpha = 1 in this phase."
        )


def check_devices(phases: tuple[Phase, ...], devices: int) -> None:
    """Raises BadInput where so many devices cannot share a phase's batches alike."""
    for phase in phases:
        parts = devices * phase.accumulate
        if phase.batch_size % parts:
            raise BadInput(
                f"config.phases.{phase.name}.batch_size is {phase.batch_size}: it must be a "
                f"multiple of the {devices} devices"
                + (f" times accumulate, {parts}." if phase.accumulate > 1 else ".")
            )
