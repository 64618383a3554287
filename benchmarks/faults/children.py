"""Processes to do harm to: forked from this one, which has imported what they need.

Importing takes longer than what is tried, so it is done once. This process starts no thread and no
device of JAX, neither of which survives a fork: whatever needs them runs in a child.
"""

import contextlib
import functools
import mmap
import os
import pickle
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mtnet_jax.cli import main
from mtnet_jax.data.example import example_message

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")


class Limits(NamedTuple):
    """What a child is denied."""

    touch: int = 0  # killed when it is about to touch a file of `folders` for this time
    seconds: float = 0.0  # killed after so many
    file_size: int = 0  # bytes that a file may have
    memory: int = 0  # bytes of address space beyond those it begins with


NONE = Limits()


class Ended(NamedTuple):
    """How a child ended."""

    code: int  # as of a shell: 128 + N for signal N
    output: str  # of both streams
    touched: int  # how often it touched files of the folders
    last: str  # the last of them: event and path
    seconds: float


def prepare() -> None:
    """Imports what the commands that are tried need."""
    import mtnet_jax.cli.train
    import mtnet_jax.evaluation.run
    import mtnet_jax.export.folder
    import mtnet_jax.export.orbax_folder
    import mtnet_jax.export.safetensors_file
    import mtnet_jax.inspection.check
    import mtnet_jax.training.loop  # noqa: F401

    example_message()


def mtnet(
    arguments: list[str], folder: Path, limits: Limits = NONE, said: Path | None = None
) -> Ended:
    """Runs `mtnet` in a child that suffers from limits; waits for its end.

    Args:
      arguments: of the command.
      folder: whose files are watched.
      limits: see `Limits`.
      said: gets what the command says; FOLDER.said by default.
    """
    said = said or folder.with_suffix(".said")
    touched = mmap.mmap(-1, 4096)  # shared with the child
    begin = time.monotonic()
    child = os.fork()
    if not child:
        _be_victim(arguments, folder, limits, said, touched)
    with open(os.pidfd_open(child)) as ending:
        if not select.select([ending], [], [], limits.seconds or None)[0]:
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # it was about to begin
                os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count, _, last = touched[:].rstrip(b"\0").split(b"\n")[0].decode().partition(" ")
    seconds = time.monotonic() - begin
    output = said.read_text(errors="replace") if said.exists() else ""
    return Ended(code if code >= 0 else 128 - code, output, int(count or 0), last, seconds)


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, called in a child; its exception, as text, is raised here."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            try:
                answer = (True, function(*arguments))
            except BaseException:
                answer = (False, traceback.format_exc())
            with open(writing, "wb") as file:
                pickle.dump(answer, file)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    worked, answer = pickle.loads(content) if content else (False, "the child died")
    if not worked:
        raise RuntimeError(answer)
    return answer


def a_moment(rng: random.Random, whole: Ended) -> Limits:
    """A random moment of a run: half of them when it touches a file, half of them at any time.

    It lies in the first half of the whole run: one that goes on has less to do.
    """
    if rng.random() < 0.5 and whole.touched > 1:
        return Limits(touch=rng.randint(1, whole.touched // 2))
    return Limits(seconds=rng.uniform(0.1, whole.seconds / 2))


def _be_victim(
    arguments: list[str], folder: Path, limits: Limits, said: Path, touched: mmap.mmap
) -> NoReturn:
    """What the child does."""
    os.setsid()  # killed together with the processes that it starts
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        sys.addaudithook(functools.partial(_touch, folder, limits.touch, touched, [0]))
        if limits.file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))
        if limits.memory:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + limits.memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        code = main(arguments)
    except SystemExit as asked:
        code = int(asked.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _touch(
    folder: Path, number: int, touched: mmap.mmap, count: list[int], event: str, about: tuple
) -> None:
    """Notes that a file of the folder is about to be touched; SIGKILL at the n-th time."""
    if event not in _EVENTS or not about or not isinstance(about[0], str | bytes):
        return
    path = os.path.abspath(os.fsdecode(about[0]))
    if not path.startswith(f"{folder}/"):
        return
    count[0] += 1
    note = f"{count[0]} {event} {path.removeprefix(f'{folder}/')}\n".encode()
    touched[: len(note)] = note
    if count[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
