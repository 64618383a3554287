"""A work directory and its run: one process at a time, one thing that is learned."""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import NOT_JSON, BadInput, Unavailable
from mtnet_jax.mirror import CHECKPOINTS
from mtnet_jax.places import write_whole
from mtnet_jax.saved_config import read_config, write_config
from mtnet_jax.training.config_changes import differences, how_it_runs

LOCK = "lock"
RECORDS = "records.json"
_A_LOOK_SECONDS = 1.0  # longer than `is_locked` holds a lock
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class Reached(NamedTuple):
    """Where a run stands: `step` steps of phase number `phase` are done."""

    phase: int
    step: int
    lengths: Sequence[int]  # steps of every phase, by the configuration of this start


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Keeps a work directory for this process; when it ends, killed too, the system frees it.

    Raises:
      Unavailable: another process trains there, or the file system has no locks.
    """
    if not hosts.is_first():  # which speaks for all
        yield
        return
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        deadline = time.monotonic() + _A_LOOK_SECONDS
        while not _taken(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                lock.seek(0)
                owner = lock.read().strip() or "?"
                raise Unavailable(
                    f"process {owner} trains in {workdir}: wait for it, or end it with kill {owner}"
                )
            time.sleep(_A_LOOK_SECONDS / 20)  # somebody may only be looking
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_locked(workdir: str | os.PathLike) -> bool:
    """Whether a process trains in a work directory.

    Raises:
      Unavailable: the file system has no locks.
    """
    path = Path(workdir) / LOCK
    if not path.is_file():
        return False
    with path.open() as lock:
        return not _taken(lock, fcntl.LOCK_SH)  # which those who look share


def _taken(lock: IO[str], kind: int) -> bool:
    """Takes a lock of a kind, until the file is closed, unless another process has it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise Unavailable(
            f"{lock.name} cannot be locked ({error.strerror}): have its file system mounted with "
            "locks (Lustre: the mount option flock), or choose a --workdir on another one"
        ) from error
    return True


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether a run has saved a state there, whatever became of it."""
    folder = Path(workdir) / CHECKPOINTS
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def claim(
    workdir: str | os.PathLike,
    config: ConfigDict,
    records: Mapping[str, str],
    reached: Reached | None,
) -> list[str]:
    """Makes a work directory that of a run, or makes sure that it is that of this run.

    What is learned must be as it was. How it runs may change, and so may the length of the phase
    that the run stands in, not below what is done of it, and of those after it; before the first
    checkpoint everything may.

    Args:
      workdir: of the run.
      config: of this start.
      records: the `identities` of what is trained on.
      reached: where its checkpoint stands, None where there is none.

    Returns:
      A line for each option that has changed.

    Raises:
      BadInput: something else is learned there; the options are named with their values.
    """
    found, said = read_config(workdir), []
    if found is not None and reached is not None:
        changed = differences(found, config)
        lengths = _lengths(config)[reached.phase :]
        free = {name for name in changed if how_it_runs(name) or name in lengths}
        refuse(workdir, {n: values for n, values in changed.items() if n not in free})
        _check_records(Path(workdir), records, found)
        said = [f"{n} is {changed[n][1]!r} now, was {changed[n][0]!r}" for n in sorted(free)]
        if lengths[0] in changed:
            said.append(_new_length(lengths[0], config, reached))
    elif found is not None and differences(found, config):
        said = [f"{workdir} holds no checkpoint yet: its run starts anew, with these options"]
    hosts.wait_for_all("claim")  # every process has looked at what was there
    if hosts.is_first():
        write_config(workdir, config)
        write_whole(Path(workdir) / RECORDS, (json.dumps(dict(records), indent=1) + "\n").encode())
    return said


def refuse(workdir: str | os.PathLike, changed: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises BadInput for options (name -> value there, value here) in which a run differs."""
    if changed:
        raise BadInput(
            f"{Path(workdir)} holds a run that learns something else; these options differ: "
            f"{named_changes(changed)}. Choose another --workdir; --config.init.weights={workdir} "
            "starts from its weights."
        )


def named_changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Options (name -> value there, value here) in words."""
    return ", ".join(f"{n} ({old!r} there, {new!r} here)" for n, (old, new) in changed.items())


def _lengths(config: ConfigDict) -> list[str]:
    """Names of the options that say how long each phase is, in the order of the phases."""
    return [f"phases.{name}.epochs" for name in sorted(config.phases)]


def _new_length(option: str, config: ConfigDict, reached: Reached) -> str:
    """What another length of the phase that a run stands in means; BadInput where it is over."""
    done, length = reached.step, reached.lengths[reached.phase]
    if length < done:
        raise BadInput(f"config.{option} makes {length} steps of the phase, but {done} are done.")
    name = sorted(config.phases)[reached.phase]
    said, schedule = f"{name} has {length} steps now, {done} are done", config.phases[name].schedule
    if schedule == "constant":
        return said
    return (
        f"{said}: from here on the learning rate is that of a {schedule} of the new length; a run "
        "of this length from the start would have had it from the start"
    )


def identities(sources: Mapping[str, RecordSource]) -> dict[str, str]:
    """Name in `config.data` -> digest that says which records its split holds."""
    return {n: s.record_set.identity(s.split, whole=False) for n, s in sources.items()}


def records_of(workdir: Path) -> dict[str, str]:
    """Name in `config.data` -> digest of the records that a run was begun with; empty where none
    are noted."""
    try:
        return dict(json.loads((workdir / RECORDS).read_bytes()))
    except FileNotFoundError:
        return {}  # begun before records were noted: it is taken at its word
    except (*NOT_JSON, TypeError, ValueError) as error:
        raise BadInput(
            f"{workdir / RECORDS} is damaged ({error}): remove it, if the records are still those "
            "that the run was begun with"
        ) from error


def _check_records(workdir: Path, records: Mapping[str, str], found: ConfigDict) -> None:
    """Raises BadInput where a set holds other records than the run was begun with."""
    known = records_of(workdir)
    for name, identity in records.items():
        if known.get(name, identity) != identity:
            raise BadInput(
                f"config.data.{name} holds other records than those {workdir} was trained on "
                f"(then at {found.data[name].path}): give those, or choose another --workdir."
            )
