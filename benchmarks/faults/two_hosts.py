"""One run of two processes, of which one is killed or stops to answer.

The other one must end by itself with a line for the user; started again, both must end as a run
that nobody disturbed: the same parameters and moments bit for bit, each step logged once.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import children, run_config
from benchmarks.faults.kills import stated_of_run
from mtnet_jax.hosts import OTHER_ENDED
from mtnet_jax.run_metrics import read_metrics

_LAST = 12  # step of the run
_PATIENCE = 600.0  # seconds, for what takes some
_SAID = (OTHER_ENDED, "another task died", "heartbeat")  # by us, or by JAX


def hosts(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Disturbs so many runs; yields lines of the report."""
    whole = folder / "hosts-whole"
    shutil.rmtree(whole, ignore_errors=True)
    _finish(_start(whole), whole)
    expected = children.in_child(stated_of_run, whole)
    waits: dict[str, list[float]] = {"killed": [], "stopped": []}
    faults = []
    for number in range(count):
        run = folder / f"hosts-{number}"
        shutil.rmtree(run, ignore_errors=True)
        how, victim = ("killed", "stopped")[number % 2], rng.randrange(2)
        step = rng.randint(1, _LAST - 3)
        about = f"process {victim} {how} after step {step}"
        seconds, said = _disturb(run, how, victim, step)
        waits[how].append(seconds)
        _finish(_start(run), run)
        found = children.in_child(stated_of_run, run)
        if found == expected and said:
            yield f"  {run.name}: {about}: the other ended after {seconds:.0f} s; then the same"
            shutil.rmtree(run)
            continue
        why = "ends differently" if found != expected else "the other ended without a word"
        faults.append(f"FAULT: hosts: {run.name}: {about}: {why}")
    spans = ", ".join(
        f"{how} {len(times)}: {min(times):.0f} to {max(times):.0f} s"
        for how, times in waits.items()
        if times
    )
    yield f"hosts: {count} runs disturbed; the other one ended after ({spans})"
    yield from faults


def _start(run: Path) -> list[subprocess.Popen]:
    """Both processes of a run; they write to RUN.said-I."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = ["train", "--config", run_config.__file__, "--workdir", str(run), "--distributed"]
    started = []
    for process in range(2):
        with open(f"{run}.said-{process}", "wb") as said:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "mtnet_jax.cli", *command]
                    + ["--coordinator", coordinator, "--processes", "2", "--process", str(process)],
                    stdout=said,
                    stderr=said,
                    env={**os.environ, "JAX_PLATFORMS": "cpu"},
                )
            )
    return started


def _disturb(run: Path, how: str, victim: int, step: int) -> tuple[float, bool]:
    """Seconds until the other process has ended, and whether it said why."""
    processes = _start(run)
    try:
        _wait_for(run, step, processes)
        processes[victim].send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        begin = time.monotonic()
        code = processes[1 - victim].wait(_PATIENCE)
        seconds = time.monotonic() - begin
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = Path(f"{run}.said-{1 - victim}").read_text(errors="replace")
    return seconds, code != 0 and any(text in said for text in _SAID)


def _wait_for(run: Path, step: int, processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        with contextlib.suppress(FileNotFoundError):
            if any(line["step"] >= step for line in read_metrics(run)):
                return
        time.sleep(0.1)
    raise RuntimeError(f"{run} never came to step {step}: {run}.said-0 has what it said")


def _finish(processes: list[subprocess.Popen], run: Path) -> None:
    for process in processes:
        if process.wait(_PATIENCE):
            raise RuntimeError(f"{run} ends with {process.returncode}: see {run}.said-0")
