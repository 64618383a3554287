"""A work directory behind an address: a run works in a folder here, which is copied there.

Checkpoints are written by code that wants files, logs grow line by line, and object stores know
neither. So the folder here is the work directory, and a thread copies what is new: first logs and
configuration, then checkpoints that are complete, at last `mirror.json`, which names them. Whatever
ends the machine, the address holds a state to go on from: its checkpoints are whole, and its log
reaches at least as far. What is lost is what came after the last copy.

One process writes. Many hosts need a folder of a file system that all of them mount.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtnet_jax.errors import NOT_JSON, BadInput, MissingFile, MtnetError, Unavailable
from mtnet_jax.places import (
    Address,
    addresses_below,
    copy_here,
    copy_there,
    fetched,
    files_below,
    place,
)

MANIFEST = "mirror.json"
OWNER = "owner.json"  # who writes there; written anew at each interval
CHECKPOINTS = "checkpoints"
_EVERY = 20.0  # seconds between two copies
_SILENT = 3  # so many intervals without a word, and an owner counts as gone
_LOCAL = ("lock", MANIFEST, OWNER)  # of the work directory, and not copied


@contextlib.contextmanager
def mirrored(workdir: Any, every: float = _EVERY) -> Iterator[Path]:
    """A work directory to train in: itself, or for an address a folder here that is copied there.

    What the block raises for the user names the address.

    Args:
      workdir: a folder, or an address.
      every: seconds between two copies.

    Raises:
      Unavailable: another run writes to the address, or the last state cannot be copied there; the
        message says where it lies.
    """
    target = place(workdir)
    if isinstance(target, Path):
        yield target
        return
    local = Path(tempfile.mkdtemp(prefix="mtnet-")) / (target.name or "run")
    try:
        with _owning(target, every) as owner:
            pull(target, local)
            with _copying(_Mirror(local, target, owner), every):
                yield local
    except _NotCopied:
        raise
    except MtnetError as error:
        shutil.rmtree(local.parent)
        error.args = tuple(_renamed(argument, local, target) for argument in error.args)
        raise
    except BaseException:
        shutil.rmtree(local.parent)
        raise
    shutil.rmtree(local.parent)


@contextlib.contextmanager
def weights_here(path: Any, *, latest: bool = True) -> Iterator[Path]:
    """Weights to read: themselves, or for an address a copy of what using them needs.

    Of a work directory that is its configuration and its latest checkpoint, or all of them.

    Raises:
      MissingFile: nothing at the address.
    """
    source = place(path)
    if isinstance(source, Path) or source.is_file():
        with fetched(source) as local:
            yield local
        return
    with tempfile.TemporaryDirectory(prefix="mtnet-") as temporary:
        local = Path(temporary) / (source.name or "weights")
        pull(source, local, latest=latest)
        if not any(local.iterdir()):
            raise MissingFile(f"There is nothing at {source}.")
        yield local


def pull(target: Address, local: Path, *, latest: bool = False) -> None:
    """Copies a work directory here: its checkpoints that are complete, or the latest of them alone.

    One that was copied there by other means has no `mirror.json`: all it has counts as complete.
    """
    names = addresses_below(target)
    if MANIFEST in names:
        steps = _complete_steps(target)
    else:
        steps = {step for name in names if (step := _step_of(name))}
    if latest:
        steps = {max(steps, key=int)} if steps else steps
        names = [name for name in names if not name.startswith("tensorboard/")]
    wanted = [n for n in names if not n.startswith(f"{CHECKPOINTS}/") or _step_of(n) in steps]
    local.mkdir(parents=True, exist_ok=True)
    copy_here(target, local, [name for name in wanted if name not in _LOCAL])


class _NotCopied(Unavailable):
    """The last state lies in the folder here alone."""


class _Taken(Unavailable):
    """Another run writes to the address."""


class _Mirror:
    """What lies in a folder and was copied to an address."""

    def __init__(self, local: Path, target: Address, owner: str):
        self._local, self._target, self._owner = local, target, owner
        self._copied = {name: _state(local / name) for name in files_below(local)}
        self._named: list[str] | None = None

    def copy(self) -> None:
        """Copies what is new; raises _Taken where another run has taken the address."""
        if _owner_of(self._target)[0] != self._owner:
            raise _Taken(f"another run has begun to write to {self._target}: this one ends")
        # Looked up before the log is read: what is checkpointed has been logged.
        steps = self._steps()
        self._send([n for n in files_below(self._local) if _is_copied(n)])
        for step in steps:
            folder = self._local / CHECKPOINTS / step
            self._send([f"{CHECKPOINTS}/{step}/{name}" for name in files_below(folder)])
        steps = [step for step in steps if (self._local / CHECKPOINTS / step).is_dir()]
        if steps != self._named:
            manifest = json.dumps({"checkpoints": steps}) + "\n"
            (self._target / MANIFEST).write_bytes(manifest.encode())
            self._named = steps
            self._remove_but(steps)

    def _steps(self) -> list[str]:
        folder = self._local / CHECKPOINTS
        names = [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        return sorted(names, key=int)

    def _send(self, names: list[str]) -> None:
        states = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # an old checkpoint was just removed
                states[name] = _state(self._local / name)
        new = [name for name, state in states.items() if self._copied.get(name) != state]
        with contextlib.suppress(FileNotFoundError):
            copy_there(self._local, self._target, new)
            self._copied |= {name: states[name] for name in new}

    def _remove_but(self, steps: list[str]) -> None:
        names = [n for n in addresses_below(self._target) if n.startswith(f"{CHECKPOINTS}/")]
        for step in {_step_of(name) for name in names} - {*steps, ""}:
            folder = self._target / CHECKPOINTS / step
            folder.fs.rm(folder.path, recursive=True)


@contextlib.contextmanager
def _copying(mirror: _Mirror, every: float) -> Iterator[None]:
    """Copies in a thread while the block runs, and once more at its end, whatever ended it."""
    ended, failed = threading.Event(), False

    def keep_copying() -> None:
        nonlocal failed
        while not ended.wait(every):
            try:
                mirror.copy()
                failed = False
            except _Taken as error:
                print(error, file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)  # training saves its state and ends
                return
            except Exception as error:  # the network may come back; the last copy says if not
                if not failed:
                    print(f"not copied, tried again soon: {error}", file=sys.stderr)
                failed = True

    thread = threading.Thread(target=keep_copying, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        try:
            thread.join()
            mirror.copy()
        except _Taken as error:
            raise _NotCopied(f"{error}; its last state lies in {mirror._local}") from error
        except BaseException as error:  # also a second Ctrl-C: the folder here is all there is
            why = str(error) or type(error).__name__
            raise _NotCopied(
                f"the run cannot be copied to {mirror._target} ({why}): it lies in "
                f"{mirror._local}; copy that folder there, without its file lock, and remove "
                f"{MANIFEST} there: then all checkpoints that are there count as complete"
            ) from error


@contextlib.contextmanager
def _owning(target: Address, every: float) -> Iterator[str]:
    """Owns an address while the block runs, and says so in a thread: a copy may take minutes."""
    owner, ended = _take(target, every), threading.Event()

    def keep_saying() -> None:
        while not ended.wait(every):
            with contextlib.suppress(Exception):  # the network may come back
                if _owner_of(target)[0] == owner:
                    _say_owner(target, owner)

    thread = threading.Thread(target=keep_saying, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            if _owner_of(target)[0] == owner:
                (target / OWNER).unlink(missing_ok=True)


def _take(target: Address, every: float) -> str:
    """Becomes the owner of an address, once any other one is silent."""
    other, said = _owner_of(target)
    if other:
        deadline = time.monotonic() + _SILENT * every
        print(f"{other} wrote to {target}: waiting to see whether it still does", file=sys.stderr)
        while time.monotonic() < deadline:
            time.sleep(every / 10)
            now = _owner_of(target)
            if not now[0]:
                break
            if now != (other, said):
                raise Unavailable(f"{now[0]} writes to {target}: wait for it, or end it")
    owner = f"process {os.getpid()} of {socket.gethostname()} ({uuid.uuid4().hex[:8]})"
    _say_owner(target, owner)
    return owner


def _complete_steps(target: Address) -> set[str]:
    """Steps of the checkpoints that are whole in a copy, as its manifest has them."""
    try:
        return set(json.loads((target / MANIFEST).read_text())["checkpoints"])
    except (*NOT_JSON, KeyError, TypeError) as error:
        raise BadInput(
            f"{target / MANIFEST} does not say which checkpoints are complete ({error}): remove "
            "it, and all that are there count as complete"
        ) from error


def _owner_of(target: Address) -> tuple[str, float]:
    try:
        said = json.loads((target / OWNER).read_text())
        return said["owner"], said["time"]
    except (FileNotFoundError, ValueError, KeyError):
        return "", 0.0


def _say_owner(target: Address, owner: str) -> None:
    said = json.dumps({"owner": owner, "time": time.time()})
    (target / OWNER).parent.mkdir(parents=True, exist_ok=True)
    (target / OWNER).write_bytes(said.encode())


def _is_copied(name: str) -> bool:
    """Whether a file outside the checkpoints belongs to the run."""
    return not (name.startswith(f"{CHECKPOINTS}/") or name in _LOCAL or name.endswith(".partial"))


def _step_of(name: str) -> str:
    """The step of the checkpoint that a file belongs to; empty if it belongs to none."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == CHECKPOINTS and parts[1].isdigit() else ""


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _renamed(argument: Any, local: Path, target: Address) -> Any:
    kept = isinstance(argument, str) and "it lies in" not in argument
    return argument.replace(str(local), str(target)) if kept else argument
