"""The processes of one run: how they find each other, agree, and put together what each knows.

A run on several hosts is one program in several processes. Whatever a process decides by itself (a
file is there, a signal has come) another may decide otherwise, and then both wait for each other
for ever: such decisions pass through here. With a single process all of it costs nothing.
"""

import contextlib
import hashlib
import os
import sys
import time
import traceback
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from mtnet_jax.errors import BadInput, Failed, MtnetError

# A process that is silent for so long (dead, or hanging) ends the others.
HEARTBEAT_SECONDS = 60
LAST_WORDS_SECONDS = 3
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
      Failed: no cluster manager that JAX knows, or the others cannot be reached.
    """
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (ValueError, RuntimeError) as error:
        raise Failed(
            f"--distributed finds no cluster: {error} (without a cluster manager say --coordinator "
            "HOST:PORT --processes N --process I)"
        ) from error
    # CPUs connect to each other at their first common computation, and give up after 30 seconds: so
    # that is here, where all of them come together.
    wait_for_all("joined")


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

    At the usual end each process waits for all. After a failure they may never come, and those that
    wait for this one in a computation see that it is gone only when its connections close.

    Args:
      command: that failed, for the message.
    """
    try:
        yield
    except Exception as error:
        if not several():
            raise
        if not isinstance(error, OSError | MtnetError):
            traceback.print_exc()
        said = OTHER_ENDED if isinstance(error, jax.errors.JaxRuntimeError) else str(error)
        print(f"{command}, process {jax.process_index()}: {said}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        if is_first():  # it keeps the others together: they may have to say a word
            time.sleep(LAST_WORDS_SECONDS)
        os._exit(1)


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
