"""A work directory and its run: one process at a time, one thing that is learned."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import NOT_JSON, BadInput, Unavailable
from mtnet_jax.places import write_whole
from mtnet_jax.saved_config import read_config, write_config
from mtnet_jax.training.config_changes import differences, how_it_runs

LOCK = "lock"
RECORDS = "records.json"


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Keeps a work directory for this process; when it ends, killed too, the system frees it.

    Raises:
      Unavailable: another process trains there.
    """
    if not hosts.is_first():  # which speaks for all
        yield
        return
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "?"
            raise Unavailable(
                f"process {owner} trains in {workdir}: wait for it, or end it with kill {owner}"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_locked(workdir: str | os.PathLike) -> bool:
    """Whether a process trains in a work directory."""
    path = Path(workdir) / LOCK
    if not path.is_file():
        return False
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def claim(
    workdir: str | os.PathLike,
    config: ConfigDict,
    sources: Mapping[str, RecordSource],
    phase: int | None,
) -> list[str]:
    """Makes a work directory that of a run, or makes sure that it is that of this run.

    What is learned must be as it was. How it runs may change, and so may the length of phases that
    have not begun; before the first checkpoint everything may.

    Args:
      workdir: of the run.
      config: of this start.
      sources: what is trained on, by name.
      phase: index of the phase that its checkpoint stands in, None where there is none.

    Returns:
      A line for each option that has changed.

    Raises:
      BadInput: something else is learned there; the options are named with their values.
    """
    found, records = read_config(workdir), _identities(sources)
    said = []
    if found is not None and phase is not None:
        changed = differences(found, config)
        free = {name for name in changed if how_it_runs(name) or _later_length(name, config, phase)}
        _refuse(workdir, {n: values for n, values in changed.items() if n not in free})
        _check_records(Path(workdir), records, found)
        said = [f"{n} is {changed[n][1]!r} now, was {changed[n][0]!r}" for n in sorted(free)]
    elif found is not None and differences(found, config):
        said = [f"{workdir} holds no checkpoint yet: its run starts anew, with these options"]
    hosts.wait_for_all("claim")  # every process has looked at what was there
    if hosts.is_first():
        write_config(workdir, config)
        write_whole(Path(workdir) / RECORDS, (json.dumps(records, indent=1) + "\n").encode())
    return said


def _refuse(workdir: str | os.PathLike, changed: Mapping[str, tuple[Any, Any]]) -> None:
    if changed:
        named = ", ".join(f"{n} ({old!r} there, {new!r} here)" for n, (old, new) in changed.items())
        raise BadInput(
            f"{Path(workdir)} holds a run that learns something else; these options differ: "
            f"{named}. Choose another --workdir; --config.init.weights={workdir} starts from its "
            "weights."
        )


def _later_length(name: str, config: ConfigDict, phase: int) -> bool:
    """Whether an option is the length of a phase that has not begun."""
    later = sorted(config.phases)[phase + 1 :]
    return name in {f"phases.{each}.epochs" for each in later}


def _identities(sources: Mapping[str, RecordSource]) -> dict[str, str]:
    return {n: s.record_set.identity(s.split, whole=False) for n, s in sources.items()}


def _check_records(workdir: Path, records: Mapping[str, str], found: ConfigDict) -> None:
    """Raises BadInput where a set holds other records than the run was begun with."""
    path = workdir / RECORDS
    if not path.is_file():
        return  # begun before records were noted: it is taken at its word
    try:
        known = dict(json.loads(path.read_bytes()))
    except (*NOT_JSON, TypeError, ValueError) as error:
        raise BadInput(
            f"{path} is damaged ({error}): remove it, if the records are still those that the run "
            "was begun with"
        ) from error
    for name, identity in records.items():
        if known.get(name, identity) != identity:
            raise BadInput(
                f"config.data.{name} holds other records than those {workdir} was trained on "
                f"(then at {found.data[name].path}): give those, or choose another --workdir."
            )
