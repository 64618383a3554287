"""What a process of several does by itself: meet the others, agree with them, end without them.

The others are played; tests/test_hosts.py has real ones.
"""

import os
import socket
import subprocess
import sys
import threading

import jax
import pytest

from mtnet_jax import hosts
from mtnet_jax.checkpoints import Checkpoints, DamagedCheckpoint
from mtnet_jax.errors import BadInput, Failed, Preempted
from mtnet_jax.training import loop
from mtnet_jax.training.loop import train
from tests.conftest import REPOSITORY
from tests.tiny import tiny_config

# --- meeting -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def joined(monkeypatch) -> list:
    """What JAX was told, in its place."""
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *call, **_: told.append(call))
    return told


def test_without_process_0_the_others_say_so(monkeypatch, joined):
    """JAX aborts such a process."""
    monkeypatch.setattr(hosts, "COORDINATOR_SECONDS", 0)
    address = f"localhost:{free_port()}"
    with pytest.raises(Failed, match=f"no process 0 answers at {address}"):
        hosts.join(address, 2, 1)
    assert joined == []


def test_process_0_may_come_late(monkeypatch, joined):
    monkeypatch.setattr(hosts, "RETRY_SECONDS", 0.1)
    port = free_port()
    servers = []
    timer = threading.Timer(0.5, lambda: servers.append(socket.create_server(("localhost", port))))
    timer.start()
    hosts.join(f"localhost:{port}", 2, 1)
    servers[0].close()
    assert joined == [(f"localhost:{port}", 2, 1)]


def devices_of_a_process(given, before=""):
    """The GPUs that JAX itself takes by what SLURM says, in a process of its own."""
    environment = {
        **os.environ,
        **{"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1"},
        **{"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        **{"JAX_COORDINATOR_PORT": str(free_port()), "JAX_PLATFORMS": "cpu", **given},
    }
    code = (
        "from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES; from mtnet_jax import hosts;"
        f"{before}hosts.join(); print(CUDA_VISIBLE_DEVICES.value)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.parametrize("given", [{}, {"JAX_LOCAL_DEVICE_IDS": "0"}])
def test_alone_on_its_host_a_process_has_all_devices(given):
    assert devices_of_a_process(given) == ("0" if given else "all")


@pytest.mark.parametrize(
    ("seen", "taken"),
    [
        ({"CUDA_VISIBLE_DEVICES": "5"}, "0"),  # as --gpus-per-task=1 says it: the first it sees
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "5", "JAX_LOCAL_DEVICE_IDS": "2"}, "2"),
    ],
)
def test_of_several_on_a_host_each_has_a_gpu(seen, taken):
    several_here = "hosts._only_one_here = lambda: False;"
    assert devices_of_a_process({**seen, "SLURM_LOCALID": "3"}, several_here) == taken


@pytest.mark.parametrize(
    ("said", "alone"),
    [
        ({"SLURM_STEP_NUM_NODES": "4", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_STEP_NUM_NODES": "4", "SLURM_NTASKS": "32"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
        # mpirun inside of a job of SLURM
        (
            {
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_NTASKS": "2",
            },
            False,
        ),
        ({}, False),
    ],
)
def test_who_is_alone_on_its_host(monkeypatch, said, alone):
    for name in ("SLURM_STEP_NUM_NODES", "SLURM_NTASKS", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert hosts._only_one_here() == alone


# --- agreeing ------------------------------------------------------------------------------------


def beside(monkeypatch, answer) -> None:
    """Another process answers to what this one says, as `answer` has it."""
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "gather", lambda content: [content, answer(content)])


def test_processes_that_see_other_checkpoints_say_so(monkeypatch, tmp_path):
    beside(monkeypatch, lambda content: content[::-1])
    with (
        Checkpoints(tmp_path, keep=1) as checkpoints,
        pytest.raises(BadInput, match=r"The list of checkpoints in .* of process 1 is another"),
    ):
        checkpoints.latest_position()


def test_what_is_damaged_for_one_process_is_for_all(monkeypatch, tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        monkeypatch.setattr(checkpoints, "_metadata", lambda _: loop.START._asdict())
        assert checkpoints.position(4) == loop.START
        beside(monkeypatch, lambda _: b"4 cannot be read there")
        with pytest.raises(DamagedCheckpoint, match="4 cannot be read there"):
            checkpoints.position(4)


@pytest.mark.parametrize(("sets", "named"), [(1, "training set"), (2, "evaluation set")])
def test_processes_with_other_records_say_so(monkeypatch, tmp_path, sets, named):
    said = []

    def answer(content: bytes) -> bytes:
        said.append(content)  # the configuration comes first
        return content[::-1] if len(said) == 1 + sets else content

    beside(monkeypatch, answer)
    with pytest.raises(BadInput, match=rf"The {named} \(config\.data\) of process 1 is another"):
        train(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- ending --------------------------------------------------------------------------------------


class Ended(BaseException):
    """In the place of os._exit."""


def test_an_interrupted_process_waits_for_nobody(monkeypatch, capsys):
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(KeyboardInterrupt), hosts.ending_at_once("mtnet train"):
        raise KeyboardInterrupt  # alone it ends as any command does
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "LAST_WORDS_SECONDS", 0)
    with pytest.raises(Ended, match="130"), hosts.ending_at_once("mtnet train"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "mtnet train, process 0: interrupted\n"
    with pytest.raises(Preempted), hosts.ending_at_once("mtnet train"):
        raise Preempted  # with all others
