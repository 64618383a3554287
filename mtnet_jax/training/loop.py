"""Training: one linear loop over the phases."""

import os
import time
from collections import deque
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mtnet_jax.checkpoints import (
    START,
    Checkpoints,
    DamagedCheckpoint,
    NotFinite,
    Position,
    all_finite,
    with_sharding,
)
from mtnet_jax.config import check_ranges
from mtnet_jax.cpu.allocator import keep_large_buffers
from mtnet_jax.cpu.choice import fastest
from mtnet_jax.data.augment import AugmentOptions, check_options
from mtnet_jax.data.batches import training_batches
from mtnet_jax.data.mixture import Sources, describe, open_sources, stream_weights
from mtnet_jax.data.packing import PackOptions, check_pack_options
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.evaluation.metrics import evaluate
from mtnet_jax.evaluation.predicted import predict_records
from mtnet_jax.network.darknet_weights import load_darknet_weights
from mtnet_jax.predict.inference import EVAL_SCORE_THRESHOLD, Detector, make_detector
from mtnet_jax.system import System, TrainState, abstract_variables, build_system
from mtnet_jax.targets import check_assign_options
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.meter import Meter
from mtnet_jax.training.phases import Phase, check_devices, make_optimizer, read_phases
from mtnet_jax.training.step import compile_step, make_train_step
from mtnet_jax.training.stopping import Stopping
from mtnet_jax.training.threads import failing_in_one_line
from mtnet_jax.training.workdir import claim, locked
from mtnet_jax.weights import load_weights

# One that the device does and one that waits for it. On a CPU each has temporary memory of its own
# from the moment it is started, on other devices a batch.
STEPS_IN_FLIGHT = 2


class TrainingDiverged(Failed):
    """The loss, a parameter or a moment is no longer a number."""


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
    check_ranges(config)
    system, phases = build_system(config), read_phases(config)
    system = system._replace(model=fastest(system.model))
    train_sources, eval_sources = open_sources(config)
    check_devices(phases)
    # Whatever is wrong with an option is said here, before the work directory belongs to the run.
    check_options(AugmentOptions(**config.augment))
    check_pack_options(PackOptions(**config.pack))
    check_assign_options(system.assign)
    shapes = abstract_variables(system)["params"]
    for phase in phases:
        make_optimizer(phase, shapes, steps=1, clip_norm=config.clip_norm)
    with locked(workdir), failing_in_one_line():
        return _train(config, workdir, system, phases, train_sources, eval_sources)


def _train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    system: System,
    phases: tuple[Phase, ...],
    train_sources: Sources,
    eval_sources: Sources,
) -> dict[str, Any]:
    """Goes through the phases, from where the work directory stands."""
    shapes = abstract_variables(system)["params"]
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    by_image = NamedSharding(mesh, PartitionSpec("data"))
    images = sum(stream_weights(config, train_sources))
    steps = [phase.steps(images) for phase in phases]
    main = jax.process_index() == 0
    detector = make_detector(system, config, EVAL_SCORE_THRESHOLD)

    optimizers = [
        make_optimizer(phase, shapes, steps=count, clip_norm=config.clip_norm)
        for phase, count in zip(phases, steps, strict=True)
    ]
    with Stopping() as stopping, Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        # Claimed first: what another configuration cannot read is no damaged checkpoint.
        said = claim(workdir, config, train_sources, checkpoints.latest_phase())
        position, state, set_aside = _resume(checkpoints, system, optimizers, replicated)
        variables = None
        with TrainingLog(workdir, position.total_step, sum(steps), main) as log:
            for line in (*said, *set_aside):
                log.say(line)
            log.say(describe(config, train_sources, eval_sources))
            _describe(log, shapes, phases, steps, position)
            for number in range(position.phase, len(phases)):
                phase, optimizer = phases[number], optimizers[number]
                if not steps[number]:
                    log.say(f"{phase.name}: skipped, it has 0 epochs")
                    continue
                if state is None:
                    variables = variables or initial_variables(system, config, replicated)
                    state = _first_state(variables, optimizer, replicated)
                if position.phase != number:
                    position = Position(number, 0, position.total_step, None)
                try:
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
                        by_image=by_image,
                        checkpoints=checkpoints,
                        log=log,
                        stopping=stopping,
                    )
                except NotFinite as error:
                    done = [p.name for p, n in zip(phases[:number], steps, strict=False) if n]
                    cure = _cure(workdir, phase.name, done, saved=bool(checkpoints.steps()))
                    raise TrainingDiverged(f"{phase.name}: {error}. {cure}") from error
                variables = {"params": state.params, "batch_stats": state.batch_stats}
                state = None
    assert variables is not None, "check_ranges refuses a run of nothing"
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
    by_image: NamedSharding,
    checkpoints: Checkpoints,
    log: TrainingLog,
    stopping: Stopping,
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
    meter, metrics = Meter(phase.batch_size), None
    in_flight: deque[Any] = deque()

    def evaluate_where_owed() -> None:
        """Makes the evaluations of this position, but those that an earlier run has made."""
        if position.step and (
            position.step == steps or (eval_every and position.step % eval_every == 0)
        ):
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            for name, source in eval_sources.items():
                if not log.has(f"eval/{name}", position.total_step):
                    values = _evaluate(
                        config, detector, variables, source, phase.batch_size, stopping
                    )
                    log.metrics(f"eval/{name}", position.total_step, phase.name, values)
                    log.say(_evaluation_line(name, position, values))
            meter.restart()

    evaluate_where_owed()
    while position.step < steps:
        if len(in_flight) == STEPS_IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
        with meter.waiting(metrics):
            batch = next(batches)
        batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_image, x), batch)
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
        due = eval_every and position.step % eval_every == 0
        saving = position.total_step % config.save_every_steps == 0 or last or due
        if saving or stopping.asked:
            meter.flush(log, phase)  # what is checkpointed is logged: resuming starts after it
            position = position._replace(data=batches.get_state())
            checkpoints.save(state, position)
        stopping.check()
        evaluate_where_owed()
    return state, position


def initial_variables(system: System, config: ConfigDict, sharding: Any) -> dict[str, Any]:
    """Fresh variables from the seed, with what `config.init` names in their place."""
    images = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    init = jax.jit(system.model.init, out_shardings=sharding)
    # This generator compiles in a fifth of the default one's time; it may differ between backends.
    variables = init(jax.random.key(config.seed, impl="rbg"), images)
    if config.init.darknet_weights:
        variables, report = load_darknet_weights(config.init.darknet_weights, variables)
        if not all_finite(variables):
            raise BadInput(f"{config.init.darknet_weights} holds values that are no numbers.")
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


def _resume(
    checkpoints: Checkpoints, system: System, optimizers: list[Any], sharding: NamedSharding
) -> tuple[Position, TrainState | None, list[str]]:
    """Position and state of the latest checkpoint that is whole; `START` and None where none is.

    Returns:
      The two, and a line for each checkpoint that was set aside.

    Raises:
      DamagedCheckpoint: the only one there is.
    """
    abstract = abstract_variables(system)
    said: list[str] = []
    steps = checkpoints.steps()
    for step in steps:
        try:
            position = checkpoints.position(step)
            opt_state = jax.eval_shape(optimizers[position.phase].init, abstract["params"])
            state = with_sharding(TrainState(**abstract, opt_state=opt_state), sharding)
            return position, checkpoints.restore(step, state), said
        except DamagedCheckpoint as error:
            if step == steps[-1]:
                raise DamagedCheckpoint(
                    f"{error}, and no older one is kept: begin anew in another --workdir"
                ) from error
            place = checkpoints.set_aside(step)
            said.append(f"{error}: set aside as {place}, training goes on from the one before")
    return START, None, said


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


def _first_state(variables: dict[str, Any], optimizer: Any, sharding: NamedSharding) -> TrainState:
    """The state a phase begins with."""
    # Each phase starts with fresh moments: it has another loss, another rate, other groups.
    opt_state = jax.jit(optimizer.init, out_shardings=sharding)(variables["params"])
    return TrainState(**variables, opt_state=opt_state)


def _evaluate(
    config: ConfigDict,
    detector: Detector,
    variables: Any,
    source: RecordSource,
    batch_size: int,
    stopping: Stopping,
) -> dict[str, float | None]:
    """The few numbers that are followed while training; a signal ends it between two images."""
    pairs = predict_records(
        detector(variables),
        source,
        size=config.input.size,
        batch_size=batch_size,
        threads=config.loader_threads,
        limit=config.eval_images,
    )
    result = evaluate(stopping.watch(pairs))
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
