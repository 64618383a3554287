"""What two processes of one run do in tests/test_hosts.py, one thing after another.

    python -m tests.hosts_scenario FOLDER COORDINATOR PROCESSES PROCESS STEP...

A process of several is slow to start, so one start does all of STEP in turn.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.checkpoints import Checkpoints
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import Preempted
from mtnet_jax.system import build_system
from mtnet_jax.training.distribution import distribute, put_same
from mtnet_jax.training.evaluating import Evaluator
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.loop import train
from mtnet_jax.training.stopping import Stopping
from tests.tiny import DEMO_RECORDS, tiny_config, trained_variables


def several_config() -> ConfigDict:
    """The tiny configuration: three steps of phase a, five of phase b, five images evaluated."""
    config = tiny_config()
    config.phases.b.epochs = 5 * 4 / 700
    config.eval_images = 5  # not a multiple of the processes
    config.eval_batch_size = 2
    config.ema_decay = 0.5
    config.best_metric = "demo/recall"
    return config


def whole(folder: Path) -> None:
    """A run from its beginning to its end, or from where it stands."""
    keep(train(several_config(), folder / "whole"), folder / "whole.npz")


def started(folder: Path) -> None:
    """A run from the weights of another, in which the backbone is frozen."""
    config = several_config()
    config.init.weights = str(folder / "whole")
    config.phases = ConfigDict({"only": config.phases.a.copy_and_resolve_references()})
    config.ema_decay = 0.0
    keep(train(config, folder / "started"), folder / "started.npz")


def preempted(folder: Path) -> None:
    """A run whose last process gets SIGTERM after its second step."""
    advance, steps = TrainingLog.advance, []

    def advance_then_signal(self: TrainingLog, phase: str) -> None:
        advance(self, phase)
        steps.append(phase)
        if len(steps) == 2 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(steps) >= 2:
            time.sleep(1.5)  # JAX looks once a second

    TrainingLog.advance = advance_then_signal  # type: ignore[method-assign]
    try:
        train(several_config(), folder / "preempted")
        raise AssertionError("the run went to its end")
    except Preempted:
        (folder / f"preempted-{jax.process_index()}").write_text(str(len(steps)))
    finally:
        TrainingLog.advance = advance  # type: ignore[method-assign]


def resumed(folder: Path) -> None:
    """The run that was preempted, to its end."""
    keep(train(several_config(), folder / "preempted"), folder / "resumed.npz")


def endless(folder: Path) -> None:
    """A run to be killed."""
    config = several_config()
    config.phases.b.epochs = 100.0
    config.save_every_steps = 1
    with hosts.ending_at_once("endless"):
        train(config, folder / "killed")


def evaluated(folder: Path) -> None:
    """An evaluation with weights that find something everywhere."""
    config = several_config()
    config.eval_images = 7
    system, distribution = build_system(config), distribute(config)
    variables = trained_variables(system.model, config.input.size)
    placed = put_same(variables, distribution.of_state(variables))
    source = RecordSource(DEMO_RECORDS, "test", label_ids=[0], frame=config.frame)
    with Stopping() as stopping:
        result = Evaluator(system, config, distribution).result(placed, source, stopping)
    (folder / f"evaluated-{jax.process_index()}.json").write_text(json.dumps(result))


def disagreeing(folder: Path) -> None:
    """Every process has another configuration."""
    config = several_config()
    config.seed = jax.process_index()
    try:
        train(config, folder / "disagreeing")
    except ValueError as error:
        (folder / f"disagreeing-{jax.process_index()}").write_text(str(error))


def listings(folder: Path) -> None:
    """The last process does not see the latest checkpoint of the run that was preempted."""
    steps = Checkpoints.steps
    if jax.process_index() == jax.process_count() - 1:
        Checkpoints.steps = lambda self: steps(self)[1:]  # type: ignore[method-assign]
    try:
        train(several_config(), folder / "preempted")
    except ValueError as error:
        (folder / f"listings-{jax.process_index()}").write_text(str(error))
    finally:
        Checkpoints.steps = steps  # type: ignore[method-assign]


def keep(variables: dict, path: Path) -> None:
    """Writes the variables that every process has, by the first."""
    arrays = {k: np.asarray(v) for k, v in flatten_dict(variables, sep="/").items()}
    if hosts.is_first():
        np.savez(path, **arrays)


def main() -> None:
    folder, coordinator, processes, process, *steps = sys.argv[1:]
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if int(processes) > 1:
        hosts.join(coordinator, int(processes), int(process))
    for step in steps:
        globals()[step](Path(folder))
        print(step, "done", flush=True)


if __name__ == "__main__":
    main()
