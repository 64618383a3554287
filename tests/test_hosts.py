"""Several processes, one run: started, evaluated, preempted, killed, gone on with by another number
of them.

The processes are real (gloo between CPUs). Each has a device, so numbers are sums over two devices.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mtnet_jax.evaluation.metrics import EMPTY
from mtnet_jax.hosts import OTHER_ENDED
from mtnet_jax.run_metrics import read_metrics
from mtnet_jax.training.evaluating import from_bytes, to_bytes
from mtnet_jax.weights import load_weights
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

# Sums over two devices are rounded elsewhere than sums over one. Adam divides a gradient by its own
# size: out of a rounding error around zero it makes a part of a step of the learning rate.
LOSSES_AGREE, TYPICAL, LEARNING_RATE = 1e-5, 1e-4, 1e-3


def start(folder: Path, processes: int, *steps: str, devices: int = 1) -> list[subprocess.Popen]:
    """Starts the processes of one run, see tests/hosts_scenario.py; they write to FOLDER/log-I."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    started = []
    for process in range(processes):
        arguments = [str(folder), coordinator, str(processes), str(process), *steps]
        with (folder / f"log-{process}").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.hosts_scenario", *arguments],
                    cwd=REPOSITORY,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    return started


def finish(folder: Path, processes: list[subprocess.Popen], seconds: float = 900) -> list[int]:
    """Waits for the processes; their exit codes."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(deadline - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def run(folder: Path, processes: int, *steps: str, devices: int = 1) -> None:
    """Does all steps with so many processes."""
    codes = finish(folder, start(folder, processes, *steps, devices=devices))
    logs = [(folder / f"log-{i}").read_text(errors="replace")[-3000:] for i in range(processes)]
    assert codes == [0] * processes, "\n".join(logs)


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


def assert_same(a: Path, b: Path) -> None:
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    assert [name for name in a if not np.array_equal(a[name], b[name])] == []


def assert_near(a: Path, b: Path) -> None:
    """All parameters within two steps, and most of them as near as the rounding of sums allows."""
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    apart = [np.abs(a[name] - b[name]).max() for name in a]
    sizes = [max(np.abs(b[name]).max(), LEARNING_RATE) for name in a]
    assert max(apart) < 2 * LEARNING_RATE
    assert np.median(np.divide(apart, sizes)) < TYPICAL


def losses(workdir: Path) -> list[float]:
    """The loss of every step, each once."""
    lines = [line for line in read_metrics(workdir) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 9))
    return [line["loss"] for line in lines]


def evaluations(workdir: Path) -> list[dict]:
    kept = []
    for line in read_metrics(workdir):
        if line["kind"].startswith("eval/"):
            kept.append({name: value for name, value in line.items() if name != "time"})
    return kept


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes have done."""
    folder = tmp_path_factory.mktemp("two")
    run(folder, 2, "whole", "started", "preempted", "evaluated", "disagreeing", "listings")
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The same run by one process with one device."""
    folder = tmp_path_factory.mktemp("one")
    run(folder, 1, "whole", "evaluated")
    return folder


def test_two_processes_end_as_one_with_two_devices_does(two, tmp_path):
    run(tmp_path, 1, "whole", devices=2)
    assert_same(two / "whole.npz", tmp_path / "whole.npz")
    assert evaluations(two / "whole") == evaluations(tmp_path / "whole")


def test_two_processes_end_near_one_with_one_device(two, one):
    assert_near(two / "whole.npz", one / "whole.npz")
    assert losses(two / "whole") == pytest.approx(losses(one / "whole"), rel=LOSSES_AGREE)
    for ours, theirs in zip(evaluations(two / "whole"), evaluations(one / "whole"), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            expected = theirs[name]
            number = isinstance(value, float) and isinstance(expected, float)
            near = pytest.approx(expected, rel=1e-3) if number else expected
            assert value == near, name


def test_every_process_has_the_metrics_of_all_records(two, one):
    found = [json.loads((two / f"evaluated-{process}.json").read_text()) for process in range(2)]
    alone = json.loads((one / "evaluated-0.json").read_text())
    assert found[0] == found[1] == alone
    assert alone["counts"]["images"] == 7
    assert alone["counts"]["predictions"] > 7


def test_only_the_first_writes_what_all_share(two):
    assert len(losses(two / "whole")) == 8
    assert len(list((two / "whole" / "tensorboard").iterdir())) == 1
    assert not list((two / "whole").glob("*.partial"))


def test_a_run_starts_from_weights(two):
    started = arrays(two / "started.npz")
    _, stored = load_weights(two / "whole")
    kernel = stored["params"]["backbone"]["stem"]["kernel"]
    np.testing.assert_array_equal(started["params/backbone/stem/kernel"], kernel)


def test_a_signal_to_one_ends_both_after_the_same_step(two, tmp_path):
    steps = {(two / f"preempted-{process}").read_text() for process in range(2)}
    assert len(steps) == 1
    saved = [int(path.name) for path in (two / "preempted" / "checkpoints").iterdir()]
    assert max(saved) == int(steps.pop()) < 8


FOUR = pytest.param(
    4, marks=pytest.mark.skipif((os.cpu_count() or 1) < 4, reason="takes minutes on few processors")
)


@pytest.mark.parametrize("processes", [1, 2, FOUR])
def test_another_number_of_processes_goes_on(two, tmp_path, processes):
    shutil.copytree(two / "preempted", tmp_path / "preempted")
    run(tmp_path, processes, "resumed")
    if processes == 2:
        assert_same(tmp_path / "resumed.npz", two / "whole.npz")
    assert_near(tmp_path / "resumed.npz", two / "whole.npz")
    # The losses say that the images of each step were the same ones.
    ours, theirs = losses(tmp_path / "preempted"), losses(two / "whole")
    assert ours == pytest.approx(theirs, rel=LOSSES_AGREE)


def test_processes_that_disagree_all_say_so(two):
    for process in range(2):
        said = (two / f"disagreeing-{process}").read_text()
        assert said.startswith("The configuration of process 1 is another than that of process 0")
        assert "The list of checkpoints" in (two / f"listings-{process}").read_text()
    assert not (two / "disagreeing").exists()


def test_one_that_is_killed_ends_the_other_and_both_go_on(tmp_path):
    processes = start(tmp_path, 2, "endless")
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 600
    while not (checkpoints.is_dir() and any(p.name == "4" for p in checkpoints.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(random.uniform(0, 2))
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    # Found out in a computation, or by JAX, which hears no heartbeat and ends the process itself.
    assert finish(tmp_path, processes) in ([1, -signal.SIGKILL], [-signal.SIGABRT, -signal.SIGKILL])
    assert time.monotonic() - killed < 120
    log = (tmp_path / "log-0").read_text(errors="replace")
    assert OTHER_ENDED in log or "another task died" in log
    reached = max(line["step"] for line in read_metrics(tmp_path / "killed"))
    processes = start(tmp_path, 2, "endless")
    deadline = time.monotonic() + 600
    while max(line["step"] for line in read_metrics(tmp_path / "killed")) < reached + 3:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    for process in processes:
        process.kill()
    finish(tmp_path, processes)


def test_states_go_from_host_to_host_as_they_are():
    state = EMPTY._replace(images=3, scores=np.array([0.5, 0.25]))
    again = from_bytes(to_bytes(state))
    assert again.images == 3
    assert again.rows.dtype == state.rows.dtype
    for ours, theirs in zip(again, state, strict=True):
        np.testing.assert_array_equal(ours, theirs)
