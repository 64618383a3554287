"""One training step, compiled once a phase."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from mtnet_jax.cpu import choice
from mtnet_jax.cpu.allocator import return_freed_memory
from mtnet_jax.data.batches import truths_of
from mtnet_jax.losses import multitask_loss
from mtnet_jax.network import normalise_images
from mtnet_jax.system import System, TrainState
from mtnet_jax.training import ema
from mtnet_jax.training.accumulation import accumulated
from mtnet_jax.training.phases import Phase

Metrics = dict[str, jax.Array]


def make_train_step(
    system: System,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float = 0.0,
    whole: jax.sharding.Sharding | None = None,
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]:
    """The step of a phase: (state, batch) -> (state, metrics), to be jitted with the state donated.

    What is frozen is cut out of the gradient before anything reads it, so no backward pass runs
    through it; its parameters and BatchNorm statistics come out as the very arrays that went
    in.

    Args:
      system: the network and what its outputs answer.
      phase: what learns, for which loss.
      optimizer: of the phase.
      ema_decay: of the average in the state, see `training.ema`.
      whole: sharding in which the network reads parameters that lie sharded; None: as they lie.
    """

    def loss_of(params, batch_stats, batch):
        if whole is not None:
            params = jax.lax.with_sharding_constraint(params, whole)
        params = jax.tree_util.tree_map_with_path(
            lambda path, x: x if phase.learns(path) else jax.lax.stop_gradient(x), params
        )
        outputs, updated = system.model.apply(
            {"params": params, "batch_stats": batch_stats},
            normalise_images(batch["image"]),
            train=phase.trainable,
            frozen_stages=phase.frozen_stages,
            mutable=["batch_stats"],
        )
        loss, parts = multitask_loss(
            outputs,
            truths_of(batch),
            grid=system.grid,
            representation=system.representation,
            weights=phase.weights,
            assign=system.assign,
            iou_loss=system.iou_loss,
        )
        return loss, (updated["batch_stats"], parts)

    def train_step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        gradient_of = accumulated(jax.value_and_grad(loss_of, has_aux=True), phase.accumulate)
        (loss, (batch_stats, parts)), gradients = gradient_of(
            state.params, state.batch_stats, batch
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        moved = optax.apply_updates(state.params, updates)
        keep_frozen = lambda new, old: jax.tree_util.tree_map_with_path(  # noqa: E731
            lambda path, x, before: x if phase.learns(path) else before, new, old
        )
        metrics = {"loss": loss, **parts, "gradient_norm": optax.tree.norm(gradients)}
        metrics["dropped_heads"] = batch["dropped"].sum()
        variables = {
            "params": keep_frozen(moved, state.params),
            "batch_stats": keep_frozen(batch_stats, state.batch_stats),
        }
        average = state.ema and ema.update(state.ema, variables, ema_decay)
        return TrainState(**variables, opt_state=opt_state, ema=average), metrics

    return train_step


def compile_step(
    train_step: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]],
    state: TrainState,
    batch: Mapping[str, Any],
    replicated: jax.sharding.Sharding,
) -> jax.stages.Compiled:
    """Compiles a step for states and batches like these, as it is run everywhere.

    Args:
      train_step: from `make_train_step`.
      state: arrays, or their shapes with shardings.
      batch: the same.
      replicated: sharding of the metrics. The state comes out as it went in, so that it fits in
        again.

    Returns:
      The compiled step. It works in the state's own memory (donated): the state that went in is
      gone.
    """
    compiled = jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), replicated),
        compiler_options=choice.training_options(),
    )
    with choice.compiling():
        step = compiled.lower(state, batch).compile()
    return_freed_memory()
    return step
