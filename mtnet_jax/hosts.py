"""The processes of one run: how they find each other, agree, and put together what each knows.

A run on several hosts is one program in several processes. Whatever a process decides by itself (a
file is there, a signal has come) another may decide otherwise, and then both wait for each other
for ever: such decisions pass through here. With a single process all of it costs nothing.
"""

import contextlib
import hashlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from mtnet_jax.errors import BadInput, Failed, MtnetError, Terminated

# A process that is silent for so long (dead, or hanging) ends the others.
HEARTBEAT_SECONDS = 60
LAST_WORDS_SECONDS = 3
COORDINATOR_SECONDS = 300  # as long as JAX waits for process 0
RETRY_SECONDS = 1
INTERRUPTED = 130  # exit code of shells for SIGINT
OTHER_ENDED = (
    "another process has ended, or a device failed: start all again with the same command, they go "
    "on from the last whole checkpoint"
)


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Makes this process one of a run; to be called before JAX computes anything.

    Args:
      coordinator: address and port at which process 0 can be reached; None: the cluster manager
        (SLURM, Open MPI, Kubernetes, Cloud TPU) says it.
      processes: how many there are; None as above.
      process: number of this one, from 0; None as above.

    Raises:
      BadInput: a coordinator without a port.
      Failed: no cluster manager that JAX knows, or nothing answers at the coordinator's address.
    """
    if coordinator is not None:
        address = _host_and_port(coordinator)
        if process:
            _wait_for_coordinator(*address)
    try:
        jax.distributed.initialize(
            *(coordinator, processes, process),
            local_device_ids=_the_only_gpu() if coordinator is None else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if coordinator is not None:
            raise Failed(f"the processes do not meet at {coordinator}: {error}") from error
        raise Failed(
            f"--distributed finds no cluster: {error} (without a cluster manager say --coordinator "
            "HOST:PORT --processes N --process I)"
        ) from error
    # Under SLURM and Open MPI JAX gives every process one GPU, that of its number on the host: the
    # only one there is to have them all.
    if _only_one_here() and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        jax.config.update("jax_cuda_visible_devices", "all")
        jax.config.update("jax_rocm_visible_devices", "all")
    # CPUs connect to each other at their first common computation, and give up after 30 seconds: so
    # that is here, where all of them come together.
    wait_for_all("joined")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise BadInput(f"--coordinator {address}: it is HOST:PORT, such as host0:1234.")
    return host.strip("[]"), int(port)


def _wait_for_coordinator(host: str, port: int) -> None:
    """Returns when something answers there. JAX would abort the process where nothing ever does."""
    deadline = time.monotonic() + COORDINATOR_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=RETRY_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failed(
                    f"no process 0 answers at {host}:{port} ({error}): start it with the same "
                    "--coordinator, on that host, and let the others reach that port"
                ) from error
            time.sleep(RETRY_SECONDS)


def _only_one_here() -> bool:
    """Whether SLURM or Open MPI say that they have started a single process on each host."""
    # Open MPI first, as JAX asks: inside of a job of SLURM its processes see what SLURM says of the
    # one that starts them on each host.
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        return os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
    nodes = os.environ.get("SLURM_STEP_NUM_NODES")
    return nodes is not None and nodes == os.environ.get("SLURM_NTASKS")


def _the_only_gpu() -> list[int] | None:
    """[0] where this process sees one GPU of its host (SLURM's --gpus-per-task=1), else None.

    JAX would ask for the GPU of its number on the host, but those it sees are counted from 0.
    """
    if os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    named = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return [0] if len(named) == 1 else None


def is_first() -> bool:
    """Whether this process writes what all share."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def from_first(value: int) -> int:
    """The number that process 0 has; all processes must ask."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if several() else value


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if several():
        multihost_utils.sync_global_devices(name)


def gather(content: bytes) -> list[bytes]:
    """What each process gave, in the order of their numbers."""
    if not several():
        return [content]
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.frombuffer(content.ljust(max(int(sizes.max()), 1), b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def told_to_stop(step: int) -> bool:
    """Whether SIGTERM came to any process, and this is the step after which all end.

    Every process must ask after every step: so they agree on a step that none of them has passed.
    It costs no communication between devices.
    """
    return several() and multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def ending_at_once(command: str) -> Iterator[None]:
    """What fails within the block in one process of several is said, and ends it at once.

    At the usual end each process waits for all. After a failure, or a second Ctrl-C, they may never
    come, and those that wait for this one in a computation see that it is gone only when its
    connections close.

    Args:
      command: that failed, for the message.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # SIGTERM ends all of them after a step that they agree on.
        if not several() or isinstance(error, Terminated):
            raise
        if isinstance(error, KeyboardInterrupt):
            _end(f"{command}, process {jax.process_index()}: interrupted", INTERRUPTED)
        if not isinstance(error, OSError | MtnetError):
            traceback.print_exc()
        said = OTHER_ENDED if isinstance(error, jax.errors.JaxRuntimeError) else str(error)
        _end(f"{command}, process {jax.process_index()}: {said}", 1)


def _end(said: str, code: int) -> NoReturn:
    """Says something and ends this process, whatever the others do."""
    print(said, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():  # it keeps the others together: they may have to say a word
        time.sleep(LAST_WORDS_SECONDS)
    os._exit(code)


def check_same(what: str, content: bytes) -> None:
    """Raises BadInput in every process where they do not all have the same content.

    Args:
      what: its name, for the message.
      content: of this process.
    """
    digests = gather(hashlib.sha256(content).digest())
    others = [number for number, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise BadInput(
            f"{what} of process {', '.join(map(str, others))} is another than that of process 0: "
            "start all with the same command, and give all hosts the same files."
        )
