"""Training: one linear loop over the phases."""

import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.checkpoints import START, Checkpoints, NotFinite, Position
from mtnet_jax.cpu.allocator import keep_large_buffers
from mtnet_jax.cpu.choice import fastest, steps_in_flight, type_warning
from mtnet_jax.data.mixture import Sources, describe, stream_weights
from mtnet_jax.data.packing import Packer
from mtnet_jax.data.stream import packer_of, training_stream
from mtnet_jax.errors import Failed
from mtnet_jax.run_metrics import best_step
from mtnet_jax.system import System, TrainState, abstract_variables
from mtnet_jax.training import ema
from mtnet_jax.training.distribution import Distribution, distribute, put_batch
from mtnet_jax.training.evaluating import Evaluator, as_line
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.meter import Meter
from mtnet_jax.training.phases import Phase, learning_rate, make_optimizer, warmup_warning
from mtnet_jax.training.profiling import FIRST, Profile
from mtnet_jax.training.run_checks import check_run, check_share
from mtnet_jax.training.starting import first_state, initial_variables, resume
from mtnet_jax.training.step import compile_step, make_train_step
from mtnet_jax.training.stopping import Stopping
from mtnet_jax.training.threads import failing_in_one_line
from mtnet_jax.training.utilisation import least_seconds
from mtnet_jax.training.workdir import Reached, claim, identities, locked


class TrainingDiverged(Failed):
    """The loss, a parameter or a moment is no longer a number."""


class Run(NamedTuple):
    """What stays the same through all phases of a run."""

    config: ConfigDict
    system: System
    distribution: Distribution
    train_sources: Sources
    eval_sources: Sources
    packer: Packer | None
    evaluator: Evaluator
    checkpoints: Checkpoints
    log: TrainingLog
    stopping: Stopping
    profile: Profile


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    profile_steps: int = 0,
    profile_after: int = FIRST,
) -> dict[str, Any]:
    """Trains through all phases, or goes on from the last checkpoint of the work directory.

    You can likely skip to `_run_phase`, which is the loop itself. Several processes (`hosts.join`)
    make one run; all call this with the same arguments and see the same files.

    Args:
      config: see `mtnet_jax.config.default_config`.
      workdir: where checkpoints, `config.json`, `metrics.jsonl` and TensorBoard files go.
      profile_steps: so many steps are traced by JAX's profiler; 0: none.
      profile_after: steps of this start before the trace.

    Returns:
      {"params", "batch_stats"} of the trained network, their average where `config.ema_decay` asks
      for one.

    Raises:
      ValueError: a configuration that does not fit itself, the data, or the work directory's run.
      TrainingDiverged: the loss is not finite.
      Preempted: SIGTERM came; what was done is saved.
    """
    keep_large_buffers()
    # Whatever is wrong with an option is said here, before the work directory belongs to the run.
    system, phases, train_sources, eval_sources = check_run(config)
    check_share(config, phases, jax.device_count())
    system = system._replace(model=fastest(system.model))
    distribution = distribute(config)
    shapes = abstract_variables(system)["params"]
    for phase in phases:
        make_optimizer(phase, shapes, steps=1, clip_norm=config.clip_norm)
    hosts.check_same("The configuration", config.to_json().encode())
    records = identities(train_sources)
    if hosts.several():  # a path may be another folder on another host
        for use, found in (("training", records), ("evaluation", identities(eval_sources))):
            hosts.check_same(f"The {use} set (config.data)", json.dumps(found).encode())
    with locked(workdir), failing_in_one_line():
        traced = profile_steps if hosts.is_first() else 0
        profile = Profile(Path(workdir), traced, profile_after)
        return _train(
            *(config, workdir, system, phases, train_sources, eval_sources, records),
            *(distribution, profile),
        )


def _train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    system: System,
    phases: tuple[Phase, ...],
    train_sources: Sources,
    eval_sources: Sources,
    records: dict[str, str],
    distribution: Distribution,
    profile: Profile,
) -> dict[str, Any]:
    """Goes through the phases, from where the work directory stands."""
    shapes = abstract_variables(system)["params"]
    images = sum(stream_weights(config, train_sources))
    steps = [phase.steps(images) for phase in phases]
    evaluator = Evaluator(system, config, distribution)

    optimizers = [
        make_optimizer(phase, shapes, steps=count, clip_norm=config.clip_norm)
        for phase, count in zip(phases, steps, strict=True)
    ]
    with Stopping() as stopping, Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        # Claimed first: what another configuration cannot read is no damaged checkpoint.
        latest = checkpoints.latest_position()
        reached = latest and Reached(latest.phase, latest.step, steps)
        said = claim(workdir, config, records, reached)
        position, state, set_aside = resume(checkpoints, system, optimizers, config, distribution)
        variables = average = None
        with (
            TrainingLog(workdir, position.total_step, sum(steps), hosts.is_first()) as log,
            profile,
        ):
            for line in (*said, *set_aside):
                log.say(line)
            log.say(describe(config, train_sources, eval_sources))
            if warning := type_warning(system.model.dtype):
                log.say(warning)
            _describe(log, shapes, phases, steps, position)
            run = Run(
                *(config, system, distribution, train_sources, eval_sources),
                packer_of(config, train_sources),
                *(evaluator, checkpoints, log, stopping, profile),
            )
            _keep_best(run)
            for number in range(position.phase, len(phases)):
                phase, optimizer = phases[number], optimizers[number]
                if not steps[number]:
                    log.say(f"{phase.name}: skipped, it has 0 epochs")
                    continue
                if state is None:
                    variables = variables or initial_variables(system, config, distribution)
                    state = first_state(variables, optimizer, config, distribution)
                if position.phase != number:
                    position = Position(number, 0, position.total_step, None)
                try:
                    state, position = _run_phase(
                        state, position, run, phase, steps[number], optimizer
                    )
                except NotFinite as error:
                    done = [p.name for p, n in zip(phases[:number], steps, strict=False) if n]
                    cure = _cure(workdir, phase.name, done, saved=bool(checkpoints.steps()))
                    raise TrainingDiverged(f"{phase.name}: {error}. {cure}") from error
                variables = {"params": state.params, "batch_stats": state.batch_stats}
                average, state = state.ema, None
            if said_of_profile := profile.shortfall():
                log.say(said_of_profile)
    assert variables is not None, "check_values refuses a run of nothing"
    return ema.weights_of(average) if average is not None else variables


def _run_phase(
    state: TrainState, position: Position, run: Run, phase: Phase, steps: int, optimizer: Any
) -> tuple[TrainState, Position]:
    """The loop.

    The next batch is read and copied to the device while it computes, an accelerator has another
    step waiting (`steps_in_flight`), and numbers are fetched one logging interval late.
    """
    config, distribution, checkpoints, log = run.config, run.distribution, run.checkpoints, run.log
    batches = training_stream(
        config,
        run.train_sources,
        batch_size=phase.batch_size,
        seed=config.seed * 1000 + position.phase,
        packer=run.packer,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )
    if position.data is not None:
        batches.set_state(position.data)
    train_step = None
    eval_every = phase.steps_between(config.eval_every_epochs, steps)
    meter, metrics, rate_at = Meter(phase.batch_size), None, learning_rate(phase, steps)
    in_flight, most_in_flight = deque[Any](), steps_in_flight()

    def evaluate_where_owed() -> None:
        """Makes the evaluations of this position, but those that an earlier run has made."""
        if position.step and (
            position.step == steps or (eval_every and position.step % eval_every == 0)
        ):
            _evaluate(run, state, position, phase)
            meter.restart()

    evaluate_where_owed()
    while position.step < steps:
        with meter.waiting(metrics):
            batch = next(batches)
        batch = put_batch(batch, distribution)
        if train_step is None:
            start = time.perf_counter()
            step = make_train_step(
                *(run.system, phase, optimizer),
                ema_decay=config.ema_decay,
                whole=distribution.replicated if distribution.sharded else None,
            )
            train_step = compile_step(step, state, batch, distribution.replicated)
            seconds = time.perf_counter() - start
            meter.least_seconds = least_seconds(config, run.system, phase, optimizer, state, batch)
            meter.leave_out(time.perf_counter() - start)
            log.say(f"{phase.name}: step compiled in {seconds:.1f} s")
        if len(in_flight) == most_in_flight:
            jax.block_until_ready(in_flight.popleft())
        state, metrics = train_step(state, batch)
        in_flight.append(metrics)
        position = position._replace(step=position.step + 1, total_step=position.total_step + 1)
        last = position.step == steps
        log.advance(phase.name)
        run.profile.step(metrics, log)

        if position.total_step % config.log_every_steps == 0 or last:
            rate = {"learning_rate": rate_at(position.step - 1)}  # optax counts from 0
            meter.report(log, position, phase, {**metrics, **rate})
        due = eval_every and position.step % eval_every == 0
        saving = position.total_step % config.save_every_steps == 0 or last or due
        ending = run.stopping.asked(position.total_step)
        if saving or ending:
            meter.flush(log, phase)  # what is checkpointed is logged: resuming starts after it
            position = position._replace(data=batches.get_state())
            checkpoints.save(state, position)
        if ending:
            run.stopping.end()
        evaluate_where_owed()
    return state, position


def _evaluate(run: Run, state: TrainState, position: Position, phase: Phase) -> None:
    """Evaluates on every set on which that has not been done, and keeps the best checkpoint."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if state.ema is not None:
        variables = ema.weights_of(state.ema)
    for name, source in run.eval_sources.items():
        # All processes or none: the log is that of the first.
        on = run.evaluator.on(source)
        if not hosts.from_first(run.log.has(f"eval/{name}", position.total_step, on)):
            values = run.evaluator(variables, source, run.stopping)
            run.log.metrics(f"eval/{name}", position.total_step, phase.name, values, on)
            run.log.say(as_line(name, position.total_step, values))
    _keep_best(run)


def _keep_best(run: Run) -> None:
    """Keeps the best checkpoint of those that there are."""
    if run.config.best_metric:
        steps = run.checkpoints.steps()
        run.checkpoints.protect(best_step(run.log.lines, run.config.best_metric, steps))


def _cure(workdir: str | os.PathLike, phase: str, done: list[str], *, saved: bool) -> str:
    """What to do about a phase that left the finite numbers."""
    lower = f"a lower --config.phases.{phase}.learning_rate, or --config.clip_norm=1"
    if not saved:
        return f"Nothing was saved yet, so the same --workdir begins anew: run it with {lower}."
    skipped = "".join(f" --config.phases.{name}.epochs=0" for name in done)
    return (
        f"Begin in a new --workdir from the last checkpoint, with --config.init.weights={workdir}"
        f"{skipped} and {lower}."
    )


def _describe(
    log: TrainingLog,
    shapes: dict[str, Any],
    phases: tuple[Phase, ...],
    steps: list[int],
    position: Position,
) -> None:
    """Prints what is about to happen."""
    log.say(
        f"devices: {jax.device_count()} ({jax.devices()[0].device_kind})"
        + f" of {jax.process_count()} processes" * hosts.several()
    )
    for group, tree in shapes.items():
        count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        log.say(f"group {group}: {count / 1e6:.2f} M parameters")
    for phase, count in zip(phases, steps, strict=True):
        log.say(
            f"{phase.name}: {phase.epochs:g} epochs, {count} steps of {phase.batch_size}, "
            f"learning rate {phase.peak_rate:g} ({phase.schedule}), "
            f"trains {', '.join(phase.trainable)}"
            + f" but the backbone's first stages, up to {phase.frozen_stages}"
            * bool(phase.frozen_stages)
        )
        if warning := warmup_warning(phase, count):
            log.say(warning)
    if position != START:
        log.say(f"resuming after step {position.total_step} ({phases[position.phase].name})")
