"""Runs the grid: what is finished is left alone, what was stopped goes on, in turn or side by side.

A run is a process of its own, so that one that ends badly ends alone. Several commands may work on
one grid at the same time, also from several hosts on a common file system: a run belongs to whoever
holds the lock of its work directory, and the others take the next one.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtnet_jax.ablation.devices import environment
from mtnet_jax.ablation.measure import measure, measured_path
from mtnet_jax.ablation.spec import FINISHED, Ablation, Run, config_of, runs_of
from mtnet_jax.errors import BadInput, Unavailable
from mtnet_jax.places import write_whole
from mtnet_jax.saved_config import read_config
from mtnet_jax.training.config_changes import differences, how_it_runs
from mtnet_jax.training.workdir import LOCK, has_checkpoint, is_locked, named_changes, refuse

OUTPUT = "output.txt"  # what a run says, where several run at once
# Exit code of a run that another process trains: sysexits' "unavailable". Its "try again later" is
# that of a run that was stopped and saved (`cli.PREEMPTED`): nobody trains that one.
BUSY = 69
_WAIT = 2.0  # seconds between two looks at what is running


def train_run(ablation: Ablation, run: Run, workdir: Path, overrides: Sequence[str]) -> None:
    """Trains a run, or goes on with it, and measures it on all test sets.

    Args:
      ablation: what is compared.
      run: one of its runs.
      workdir: of the ablation.
      overrides: `--config.KEY=VALUE` for all runs.

    Raises:
      Unavailable: another process trains it.
    """
    from mtnet_jax.training.loop import train

    if run.arm and ablation.detector_phases:
        _await_detector(ablation, Run("", run.seed), workdir, overrides)
    folder = workdir / run.name
    config = config_of(ablation, run, workdir, overrides)
    if not is_finished(folder, config):
        if has_checkpoint(folder):
            # Lengths too, which a run by itself may change: one that went on is none of this grid.
            refuse(folder, _learned_otherwise(read_config(folder) or config, config))
        _write_finished(folder, train(config, folder))
    if run.arm:
        for name, test_set in ablation.test_sets.items():
            measure(folder, name, test_set, config)


def is_finished(folder: Path, config: Any) -> bool:
    """Whether a run is trained with this configuration; one of another raises when it is begun."""
    return finished_with(folder, config) == {}


def finished_with(folder: Path, config: Any) -> dict[str, tuple[Any, Any]] | None:
    """Of a run that is trained: option -> value there and here, where these differ.

    Returns:
      None of a run that is not trained; empty where it is, with this configuration.
    """
    found = read_config(folder) if (folder / FINISHED).is_file() else None
    return None if found is None else _learned_otherwise(found, config)


def _learned_otherwise(found: Any, config: Any) -> dict[str, tuple[Any, Any]]:
    """The options of what is learned in which two configurations differ, see `differences`."""
    changed = differences(found, config)
    return {name: values for name, values in changed.items() if not how_it_runs(name)}


def _await_detector(
    ablation: Ablation, detector: Run, workdir: Path, overrides: Sequence[str]
) -> None:
    """Trains the detector of a seed unless that is done, or waits for whoever does."""
    config = config_of(ablation, detector, workdir, overrides)
    folder = workdir / detector.name
    while not is_finished(folder, config):
        if is_locked(folder):  # seen here: what comes before training itself is work
            time.sleep(_WAIT)
            continue
        try:
            return train_run(ablation, detector, workdir, overrides)
        except Unavailable:
            if not is_locked(folder):
                raise


def _write_finished(folder: Path, variables: Any) -> None:
    import jax

    sizes = {
        group: sum(int(leaf.size) for leaf in jax.tree.leaves(tree))
        for group, tree in variables["params"].items()
    }
    content = json.dumps({"parameters": sizes}, indent=1) + "\n"
    write_whole(folder / FINISHED, content.encode())


# --- Many runs ------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of a grid.

    Attributes:
      failed: name of a run -> how it ended.
      elsewhere: names of runs that other processes were training, and have not finished.
    """

    failed: dict[str, str]
    elsewhere: list[str]


def train_all(
    ablation: Ablation,
    command: Sequence[str],
    workdir: Path,
    overrides: Sequence[str],
    at_once: int,
) -> Outcome:
    """Trains every run that is not done, each in a process of its own.

    Args:
      ablation: what is compared.
      command: of `mtnet ablate` for this grid; `--run N` is added to it.
      workdir: of the ablation.
      overrides: `--config.KEY=VALUE` for all runs; they are in `command` too.
      at_once: so many runs side by side. Where there are more than one, the k-th of them sees the
        k-th accelerator alone.
    """
    every = list(enumerate(runs_of(ablation), start=1))
    waiting = [(n, run) for n, run in every if not _is_done(ablation, run, workdir, overrides)]
    running: dict[int, tuple[Run, subprocess.Popen]] = {}  # by place
    outcome = Outcome({}, [])
    with _ending_all(running):
        while waiting or running:
            for place in [p for p in range(at_once) if p not in running]:
                if waiting and _may_start(waiting[0][1], running):
                    number, run = waiting.pop(0)
                    print(f"run {number} of {len(every)}: {run.name}", flush=True)
                    running[place] = run, _start(command, number, run, workdir, place, at_once)
            time.sleep(_WAIT if running else 0)
            for place, (run, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[place]
                if process.returncode == BUSY:
                    outcome.elsewhere.append(run.name)
                elif process.returncode:
                    outcome.failed[run.name] = f"ended with code {process.returncode}"
    busy = [run for _, run in every if run.name in outcome.elsewhere]
    still = [run.name for run in busy if not _is_done(ablation, run, workdir, overrides)]
    return outcome._replace(elsewhere=still)


def _is_done(ablation: Ablation, run: Run, workdir: Path, overrides: Sequence[str]) -> bool:
    """Whether a run is trained, and measured on every test set."""
    folder = workdir / run.name
    if not is_finished(folder, config_of(ablation, run, workdir, overrides)):
        return False
    return not run.arm or all(measured_path(folder, n).is_file() for n in ablation.test_sets)


def _may_start(run: Run, running: dict[int, tuple[Run, subprocess.Popen]]) -> bool:
    """Arms wait for the detectors that are still being trained here."""
    return not run.arm or all(other.arm for other, _ in running.values())


def _start(
    command: Sequence[str], number: int, run: Run, workdir: Path, place: int, at_once: int
) -> subprocess.Popen:
    line = [sys.executable, "-m", "mtnet_jax.cli", *command, "--run", str(number)]
    # In a session of its own a run gets no Ctrl-C of the terminal, but one signal of this process:
    # a second one would end it without a checkpoint.
    if at_once == 1:
        return subprocess.Popen(line, start_new_session=True)
    folder = workdir / run.name
    folder.mkdir(parents=True, exist_ok=True)
    seen = environment(place, at_once)
    with (folder / OUTPUT).open("ab") as file:
        return subprocess.Popen(
            line,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=seen,
            start_new_session=True,
        )


@contextlib.contextmanager
def _ending_all(running: dict[int, tuple[Run, subprocess.Popen]]) -> Iterator[None]:
    """Ends what runs when the block is left early: each with a checkpoint."""
    try:
        yield
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def run_of_number(ablation: Ablation, number: int) -> Run:
    """The run that a job of an array trains, counted from 1.

    Raises:
      BadInput: there is none of that number.
    """
    runs = runs_of(ablation)
    if not 1 <= number <= len(runs):
        raise BadInput(f"--run {number}: the runs are numbered from 1 to {len(runs)}.")
    return runs[number - 1]


def status(
    ablation: Ablation, workdir: Path, overrides: Sequence[str]
) -> list[tuple[int, Run, str]]:
    """Number, run and state of all runs.

    The state is finished, finished with other options, running, stopped, or not begun.
    """
    lines = []
    for number, run in enumerate(runs_of(ablation), start=1):
        folder = workdir / run.name
        config = config_of(ablation, run, workdir, overrides)
        changed = finished_with(folder, config)
        if changed is not None:
            other = f" with other options: {named_changes(changed)}" if changed else ""
            state = f"finished{other}"
        elif is_locked(folder):
            state = "running"
        else:
            state = "stopped" if (folder / LOCK).is_file() else "not begun"
        lines.append((number, run, state))
    return lines
