"""Training: one linear loop over the phases."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mtnet_jax.checkpoints import START, Checkpoints, Position, with_sharding
from mtnet_jax.cpu.allocator import keep_large_buffers
from mtnet_jax.data.augment import AugmentOptions, check_options
from mtnet_jax.data.batches import training_batches
from mtnet_jax.data.mixture import describe, open_sources, stream_weights
from mtnet_jax.data.packing import PackOptions, check_pack_options
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.run import predict_records
from mtnet_jax.network.darknet_weights import load_darknet_weights
from mtnet_jax.predict.inference import EVAL_SCORE_THRESHOLD, Detector, make_detector
from mtnet_jax.saved_config import differing_fields, read_config, write_config
from mtnet_jax.system import System, TrainState, abstract_variables, build_system
from mtnet_jax.targets import check_assign_options
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.phases import Phase, make_optimizer, read_phases
from mtnet_jax.training.step import compile_step, make_train_step
from mtnet_jax.weights import load_weights

# One that the device does and one that waits for it. On a CPU each has temporary memory of its own
# from the moment it is started, on other devices a batch.
STEPS_IN_FLIGHT = 2


class TrainingDiverged(Failed):
    """The loss is no longer a number."""


def train(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains through all phases, or goes on from the last checkpoint of the work directory.

    You can likely skip to `_run_phase`, which is the loop itself.

    Args:
      config: see `mtnet_jax.config.default_config`.
      workdir: where checkpoints, `config.json`, `metrics.jsonl` and TensorBoard files go.

    Returns:
      {"params", "batch_stats"} of the trained network.

    Raises:
      ValueError: a configuration that does not fit itself, the data, or the work directory's run.
      TrainingDiverged: the loss is not finite.
    """
    keep_large_buffers()
    system, phases = build_system(config), read_phases(config)
    train_sources, eval_sources = open_sources(config)
    _check_devices(phases)
    # Whatever is wrong with an option is said here, before the work directory belongs to the run.
    check_options(AugmentOptions(**config.augment))
    check_pack_options(PackOptions(**config.pack))
    check_assign_options(system.assign)
    shapes = abstract_variables(system)["params"]
    _claim_workdir(config, workdir)

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    by_picture = NamedSharding(mesh, PartitionSpec("data"))
    pictures = sum(stream_weights(config, train_sources))
    steps = [phase.steps(pictures) for phase in phases]
    main = jax.process_index() == 0
    detector = make_detector(system, config, EVAL_SCORE_THRESHOLD)

    with Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        position = checkpoints.position() or START
        variables = None
        with TrainingLog(workdir, position.total_step, sum(steps), main) as log:
            log.say(describe(config, train_sources, eval_sources))
            _describe(log, shapes, phases, steps, position)
            for number in range(position.phase, len(phases)):
                phase = phases[number]
                optimizer = make_optimizer(
                    phase,
                    shapes,
                    steps=steps[number],
                    clip_norm=config.clip_norm,
                )
                state = _phase_state(
                    system, config, optimizer, variables, position, checkpoints, replicated
                )
                if position.phase != number:
                    position = Position(number, 0, position.total_step, None)
                state, position = _run_phase(
                    state,
                    position,
                    config=config,
                    system=system,
                    phase=phase,
                    steps=steps[number],
                    optimizer=optimizer,
                    train_sources=train_sources,
                    eval_sources=eval_sources,
                    detector=detector,
                    replicated=replicated,
                    by_picture=by_picture,
                    checkpoints=checkpoints,
                    log=log,
                )
                variables = {"params": state.params, "batch_stats": state.batch_stats}
    assert variables is not None, "read_phases gives at least one"
    return variables


def _run_phase(
    state: TrainState,
    position: Position,
    *,
    config: ConfigDict,
    system: System,
    phase: Phase,
    steps: int,
    optimizer: Any,
    train_sources: dict[str, RecordSource],
    eval_sources: dict[str, RecordSource],
    detector: Detector,
    replicated: NamedSharding,
    by_picture: NamedSharding,
    checkpoints: Checkpoints,
    log: TrainingLog,
) -> tuple[TrainState, Position]:
    """The loop.

    The device always has a step to do: one is only started, so the next batch is read and copied to
    the device while it computes, and numbers are fetched one logging interval late.
    """
    batches = training_batches(
        list(train_sources.values()),
        stream_weights(config, train_sources),
        size=config.input.size,
        batch_size=phase.batch_size // jax.process_count(),
        max_heads=config.input.max_heads,
        options=AugmentOptions(**config.augment),
        seed=config.seed * 1000 + position.phase,
        threads=config.loader_threads,
        pack=PackOptions(**config.pack),
        host=jax.process_index(),
        hosts=jax.process_count(),
    )
    if position.data is not None:
        batches.set_state(position.data)
    train_step = None
    eval_every = round(config.eval_every_epochs * steps / phase.epochs)
    meter, metrics = _Meter(phase.batch_size), None
    in_flight: deque[Any] = deque()

    while position.step < steps:
        if len(in_flight) == STEPS_IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
        with meter.waiting(metrics):
            batch = next(batches)
        batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_picture, x), batch)
        if train_step is None:
            start = time.perf_counter()
            step = make_train_step(system, phase, optimizer)
            train_step = compile_step(step, state, batch, replicated)
            seconds = time.perf_counter() - start
            meter.leave_out(seconds)
            log.say(f"{phase.name}: step compiled in {seconds:.1f} s")
        state, metrics = train_step(state, batch)
        in_flight.append(metrics)
        position = position._replace(step=position.step + 1, total_step=position.total_step + 1)
        last = position.step == steps
        log.advance(phase.name)

        if position.total_step % config.log_every_steps == 0 or last:
            meter.report(log, position, phase, metrics)
        if position.total_step % config.save_every_steps == 0 or last:
            meter.flush(log, phase)  # what is checkpointed is logged: resuming starts after it
            position = position._replace(data=batches.get_state())
            checkpoints.save(state, position)
        if last or (eval_every and position.step % eval_every == 0):
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            for name, source in eval_sources.items():
                values = _evaluate(config, detector, variables, source, phase.batch_size)
                log.metrics(f"eval/{name}", position.total_step, phase.name, values)
                log.say(_evaluation_line(name, position, values))
            meter.restart()
    return state, position


class _Meter:
    """Times steps and waiting, and hands over the metrics of the previous interval."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._pending: tuple[Position, Any, dict[str, float]] | None = None
        self.restart()

    def restart(self) -> None:
        """Leaves what came before (an evaluation) out of the rates."""
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def leave_out(self, seconds: float) -> None:
        """Leaves time that was spent on something else out of the rates."""
        self._start += seconds

    def waiting(self, last_metrics: Any) -> "_Meter":
        """Times the device's wait for a batch, given what the step before returned (or None)."""
        self._steps += 1
        self._last_metrics = last_metrics
        return self

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        # Steps are handed over ahead: the device waits only once it has done all of them.
        if all(leaf.is_ready() for leaf in jax.tree.leaves(self._last_metrics)):
            self._waited += time.perf_counter() - self._wait_start

    def report(self, log: TrainingLog, position: Position, phase: Phase, metrics: Any) -> None:
        elapsed = time.perf_counter() - self._start
        rates = {
            "pictures_per_second": self._batch_size * self._steps / elapsed,
            "wait_share": self._waited / elapsed,
        }
        self.restart()
        self.flush(log, phase)
        self._pending = (position, metrics, rates)

    def flush(self, log: TrainingLog, phase: Phase) -> None:
        if self._pending is None:
            return
        position, metrics, rates = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        log.metrics("train", position.total_step, phase.name, {**values, **rates})
        if not np.isfinite(values["loss"]):
            raise TrainingDiverged(
                f"The loss is {values['loss']} at step {position.total_step} of {phase.name}. "
                f"Lower config.phases.{phase.name}.learning_rate, or set config.clip_norm, and "
                "start again: the same work directory goes on from its last checkpoint."
            )


def initial_variables(system: System, config: ConfigDict, sharding: Any) -> dict[str, Any]:
    """Fresh variables from the seed, with what `config.init` names in their place."""
    images = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    init = jax.jit(system.model.init, out_shardings=sharding)
    # This generator compiles in a fifth of the default one's time; it may differ between backends.
    variables = init(jax.random.key(config.seed, impl="rbg"), images)
    if config.init.darknet_weights:
        variables, report = load_darknet_weights(config.init.darknet_weights, variables)
        print(report)
    if config.init.weights:
        variables = _start_from(config.init.weights, variables)
    return jax.device_put(variables, sharding)


def _start_from(folder: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """The variables of other weights; a group of another shape (representation, ...) stays fresh.

    Raises:
      ValueError: no group fits.
    """
    _, stored = load_weights(folder)
    shapes = lambda tree: jax.tree.map(np.shape, tree)  # noqa: E731
    fits = [
        group
        for group in fresh["params"]
        if shapes(fresh["params"][group]) == shapes(stored["params"].get(group))
    ]
    if not fits:
        raise BadInput(f"No part of the weights in {folder} fits this network.")
    left = [group for group in fresh["params"] if group not in fits]
    print(f"from {folder}: {', '.join(fits)}" + (f"; fresh: {', '.join(left)}" if left else ""))
    return {
        kind: {
            group: stored[kind][group] if group in fits else tree for group, tree in trees.items()
        }
        for kind, trees in fresh.items()
    }


def _phase_state(
    system: System,
    config: ConfigDict,
    optimizer: Any,
    variables: dict[str, Any] | None,
    position: Position,
    checkpoints: Checkpoints,
    sharding: NamedSharding,
) -> TrainState:
    """The state a phase begins with: of the checkpoint, of the phase before, or fresh."""
    if variables is None and position != START:
        abstract = abstract_variables(system)
        opt_state = jax.eval_shape(optimizer.init, abstract["params"])
        return checkpoints.restore(
            with_sharding(TrainState(**abstract, opt_state=opt_state), sharding)
        )
    if variables is None:
        variables = initial_variables(system, config, sharding)
    # Each phase starts with fresh moments: it has another loss, another rate, other groups.
    opt_state = jax.jit(optimizer.init, out_shardings=sharding)(variables["params"])
    return TrainState(**variables, opt_state=opt_state)


def _evaluate(
    config: ConfigDict, detector: Detector, variables: Any, source: RecordSource, batch_size: int
) -> dict[str, float | None]:
    """The few numbers that are followed while training."""
    pairs = predict_records(
        detector(variables),
        source,
        size=config.input.size,
        batch_size=batch_size,
        threads=config.loader_threads,
        limit=config.eval_pictures,
    )
    result = evaluate(pairs)
    detection, pose = result["detection"], result["pose"]
    values = {name: detection[name] for name in ("ap50", "recall", "mean_iou_matched")}
    if pose["evaluated"]:
        values |= {name: pose[name] for name in ("mae", "geodesic_mean", "geodesic_median")}
    if result["heading"]["evaluated"]:
        values |= {f"heading_{name}": result["heading"][name] for name in ("mean", "beyond_90")}
    return values


def _evaluation_line(name: str, position: Position, values: dict[str, float | None]) -> str:
    shown = "  ".join(
        f"{key} {value:.3f}" if value is not None else f"{key} -" for key, value in values.items()
    )
    return f"step {position.total_step}  eval/{name}  {shown}"


def _claim_workdir(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Writes the configuration, or makes sure that the run found there is the same one."""
    found = read_config(workdir)
    if found is None:
        write_config(workdir, config)
        return
    differing = differing_fields(found, config)
    if differing:
        raise BadInput(
            f"{Path(workdir)} holds a run with another configuration; these options differ: "
            f"{', '.join(differing)}. Choose another --workdir, or start from its weights with "
            f"--config.init.weights={workdir}."
        )


def _check_devices(phases: tuple[Phase, ...]) -> None:
    devices = jax.device_count()
    for phase in phases:
        if phase.batch_size % devices:
            raise BadInput(
                f"config.phases.{phase.name}.batch_size is {phase.batch_size}: it must be a "
                f"multiple of the {devices} devices."
            )


def _describe(
    log: TrainingLog,
    shapes: dict[str, Any],
    phases: tuple[Phase, ...],
    steps: list[int],
    position: Position,
) -> None:
    """Prints what is about to happen."""
    for group, tree in shapes.items():
        count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
        log.say(f"group {group}: {count / 1e6:.2f} M parameters")
    for phase, count in zip(phases, steps, strict=True):
        log.say(
            f"{phase.name}: {phase.epochs:g} epochs, {count} steps of {phase.batch_size}, "
            f"learning rate {phase.learning_rate:g} ({phase.schedule}), "
            f"trains {', '.join(phase.trainable)}"
        )
    if position != START:
        log.say(f"resuming after step {position.total_step} ({phases[position.phase].name})")
