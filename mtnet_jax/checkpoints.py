"""Checkpoints by orbax: model, optimizer, position. The only file that knows orbax.

A step's folder holds the checkpointables `model` ({"params", "batch_stats"}), `opt` and, where the
weights are averaged, `ema`, and as metadata the `Position`. They are separate so that predicting
reads one of them alone. The configuration lies beside the checkpoints in `config.json` of the work
directory.

All processes of a run call the same methods at the same steps: each writes what lies on its
devices, and what was written is read by any number of processes and devices.
"""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from mtnet_jax import hosts
from mtnet_jax.errors import BadInput, Failed, MissingFile, Unavailable
from mtnet_jax.fingerprints import fingerprint, sealed, unsealed
from mtnet_jax.run_metrics import BEST, LAST, Step, best_step, read_metrics
from mtnet_jax.saved_config import read_config
from mtnet_jax.system import TrainState

CHECKPOINTS = "checkpoints"
DAMAGED = "checkpoints-damaged"  # beside it: what could not be read
_FINGERPRINTS = "fingerprints"  # of the metadata: name of a checkpointable -> its `fingerprint`
_LONGEST = 200  # characters of a library's message that are passed on
_DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # what is there is not whole
# What tensorstore's messages begin with where the system did not read, whatever the file holds.
_NOT_READ = re.compile("DEADLINE_EXCEEDED|PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAVAILABLE|UNKNOWN")


class DamagedCheckpoint(BadInput):
    """A checkpoint that cannot be used; the message names it."""


class NotFinite(Failed):
    """A state with values that are no numbers: it is never kept."""


class Position(NamedTuple):
    """Where training stands: `step` steps of phase number `phase` are done."""

    phase: int  # index into the phases
    step: int  # within the phase
    total_step: int  # over all phases
    data: dict[str, Any] | None  # state of the phase's data iterator; None at its start


START = Position(phase=0, step=0, total_step=0, data=None)


class Checkpoints:
    """The checkpoints of a work directory; a context manager that waits for the writes."""

    def __init__(self, workdir: str | os.PathLike, *, keep: int | None):
        """Opens the checkpoints of a work directory.

        Args:
          workdir: of a training run.
          keep: so many of the latest are kept when one is saved; what an interrupted write left
            behind is removed. None only reads, also beside a run that is writing.
        """
        self._folder = Path(workdir).resolve() / CHECKPOINTS
        self._protected = _Protected()
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=keep
            and policies.AnyPreservationPolicy([policies.LatestN(keep), self._protected]),
            cleanup_tmp_directories=keep is not None,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None and issubclass(kind, Exception):
            # What ended the run is said; that a write failed too says nothing more.
            with contextlib.suppress(Exception):
                self._checkpointer.close()
            return
        with self._writing():
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the latest first."""
        return [checkpoint.step for checkpoint in reversed(self._checkpointer.checkpoints)]

    def protect(self, step: int | None) -> None:
        """Keeps this one beside the latest, and no longer the one before it."""
        self._protected.step = step

    def position(self, step: int) -> Position:
        """Position of a checkpoint.

        Raises:
          DamagedCheckpoint: it cannot be read, by this process or another one.
          Unavailable: it was not read, whatever it holds.
        """
        with _together(), self._reading(step):
            metadata = self._metadata(step)
            metadata.pop(_FINGERPRINTS, None)
            return Position(**metadata)

    def latest_position(self) -> Position | None:
        """The position of the latest checkpoint that says it, None where none does.

        Raises BadInput where processes see other ones: file systems may show an old listing.
        """
        steps = self.steps()
        hosts.check_same(f"The list of checkpoints in {self._folder}", json.dumps(steps).encode())
        for step in steps:
            with contextlib.suppress(DamagedCheckpoint):
                return self.position(step)
        return None

    def set_aside(self, step: int) -> Path:
        """Moves a checkpoint that cannot be read out of the way; returns where it lies now."""
        folder = self._folder.with_name(DAMAGED)
        place = folder / f"{step}-{time.time_ns()}"
        if hosts.is_first():
            folder.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(place)
        hosts.wait_for_all("set aside")
        self._checkpointer.reload()
        return place

    def save(self, state: TrainState, position: Position) -> None:
        """Writes a checkpoint in the background (the state's arrays may be donated right after).

        Raises:
          NotFinite: the state holds what is no number; nothing is written then.
          Unavailable: this checkpoint, or the one before in the background, cannot be written.
        """
        if not all_finite(state):
            raise NotFinite("parameters or moments are no longer finite numbers")
        latest = self._checkpointer.latest
        if latest is not None and latest.step == position.total_step:
            return
        tree = _parts(state)
        fingerprints = {name: fingerprint(part) for name, part in tree.items()}
        with self._writing():
            self._checkpointer.save_checkpointables_async(
                position.total_step,
                tree,
                # Without it a checkpoint is skipped in silence while the one before is written.
                force=True,
                custom_metadata=sealed({**position._asdict(), _FINGERPRINTS: fingerprints}),
            )

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Reads a checkpoint into the shapes and shardings of `abstract`.

        Raises:
          DamagedCheckpoint: it cannot be read, or holds what is no number, in any process.
          Unavailable: it was not read, whatever it holds.
        """
        with _together(), self._reading(step):
            loaded = self._checkpointer.load_checkpointables(step, _parts(abstract))
        with _together():  # computed by all: one that could not read would not come to it
            self._check(step, loaded)
        return TrainState(opt_state=loaded["opt"], ema=loaded.get("ema"), **loaded["model"])

    def model(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Reads {"params", "batch_stats"} for use: their average, where there is one."""
        part, wanted = "model", dict(abstract)
        if (self._folder / str(step) / "ema").is_dir():
            place = jax.tree.leaves(abstract)[0].sharding
            count = jax.ShapeDtypeStruct((), jnp.int32, sharding=place)
            part, wanted = "ema", {**abstract, "count": count}
        with self._reading(step):
            loaded = self._checkpointer.load_checkpointables(step, {part: wanted})
        self._check(step, loaded)
        return {name: loaded[part][name] for name in abstract}

    def _check(self, step: int, loaded: dict[str, Any]) -> None:
        """Raises DamagedCheckpoint where values are not those that were saved, or no numbers."""
        with self._reading(step):
            saved = self._metadata(step).get(_FINGERPRINTS, {})  # older ones have none
        for name, tree in loaded.items():
            found = fingerprint(tree)
            if saved.get(name, found) != found:
                raise DamagedCheckpoint(
                    f"{self._folder / str(step)} holds other values of {name!r} than were saved"
                )
        if not all_finite(loaded):
            raise DamagedCheckpoint(f"{self._folder / str(step)} holds values that are no numbers")

    def _metadata(self, step: int) -> dict[str, Any]:
        return unsealed(self._checkpointer.checkpointables_metadata(step).custom_metadata)

    def _reading(self, step: int) -> contextlib.AbstractContextManager[None]:
        return _reading(self._folder / str(step))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise Unavailable(
                f"the checkpoint cannot be written to {self._folder} ({_first_line(error)}): make "
                "room, or whatever lacks, and run the same command again: it goes on from the "
                "last whole checkpoint"
            ) from error


class _Protected:
    """A preservation policy of orbax: keeps one step."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def load_model(
    workdir: str | os.PathLike, abstract: dict[str, Any], step: Step = LAST
) -> tuple[dict[str, Any], int]:
    """Reads {"params", "batch_stats"} of a checkpoint of a work directory, averaged where it is.

    Args:
      workdir: of a training run.
      abstract: the shapes to read, with shardings (`with_sharding`).
      step: which one; `LAST` is the latest that is whole.

    Returns:
      The variables, and the number of the step that they are of.

    Raises:
      FileNotFoundError: no checkpoint there, or not this one.
      DamagedCheckpoint: none that is whole.
      BadInput: no best one is known.
    """
    folder = Path(workdir) / CHECKPOINTS
    if not folder.is_dir():
        raise MissingFile(f"No checkpoints in {folder}: nothing was trained there yet.")
    with Checkpoints(workdir, keep=None) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise MissingFile(f"No complete checkpoint in {folder} yet.")
        if step != LAST:
            number = _chosen(Path(workdir), step, steps)
            return checkpoints.model(number, abstract), number
        for latest in steps:
            try:
                return checkpoints.model(latest, abstract), latest
            except DamagedCheckpoint as error:
                if latest == steps[-1]:
                    raise
                print(f"{error}: the one before it is taken", file=sys.stderr)
    raise AssertionError("the last checkpoint was read or raised")


def _chosen(workdir: Path, step: Step, steps: list[int]) -> int:
    """The number of the best or of a numbered step, of these, the latest first."""
    there = ", ".join(map(str, reversed(steps)))
    if step == BEST:
        name = (read_config(workdir) or {}).get("best_metric")
        if not name:
            raise BadInput(
                f"{workdir} was trained without config.best_metric, so none of its checkpoints is "
                f"the best: choose one of the steps {there}."
            )
        best = best_step(read_metrics(workdir), name, steps)
        if best is None:
            raise BadInput(f"{workdir}: no checkpoint has a {name} yet; there are steps {there}.")
        return best
    if step not in steps:
        raise MissingFile(f"No checkpoint of step {step} in {workdir}: there are {there}.")
    return int(step)


def save_exported(folder: Path, variables: dict[str, Any], metadata: dict[str, str]) -> None:
    """Writes {"params", "batch_stats"} alone, for any program that reads orbax: as `model`."""
    stated = sealed({**metadata, _FINGERPRINTS: fingerprint(variables)})
    ocp.save_checkpointables(
        folder.resolve(), {"model": variables}, overwrite=True, custom_metadata=stated
    )


def exported_metadata(folder: Path) -> dict[str, Any]:
    """What `save_exported` was told to say.

    Raises:
      DamagedCheckpoint: it cannot be read.
    """
    with _reading(folder):
        return unsealed(ocp.checkpointables_metadata(folder.resolve()).custom_metadata or {})


def load_exported(folder: Path, abstract: dict[str, Any]) -> dict[str, Any]:
    """What `save_exported` wrote, in the shapes and shardings of `abstract`."""
    metadata = exported_metadata(folder)
    with _reading(folder):
        model = ocp.load_checkpointables(folder.resolve(), {"model": abstract})["model"]
    found = fingerprint(model)
    if metadata.get(_FINGERPRINTS, found) != found:
        raise DamagedCheckpoint(f"{folder} holds other values than were exported: export it again")
    if not all_finite(model):
        raise DamagedCheckpoint(f"{folder} holds values that are no numbers: export it again")
    return model


def with_sharding(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes with a sharding, as restoring wants them."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
    )


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """As `with_sharding`, each leaf with its own."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        shardings,
    )


def all_finite(tree: Any) -> bool:
    """Whether every floating-point value of a tree of arrays is a finite number."""
    return bool(_all_finite(tree))


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raises DamagedCheckpoint for whatever the block trips over; Unavailable: it may be whole."""
    try:
        yield
    # Files that are cut short, changed or gone show as whatever orbax trips over.
    except Exception as error:
        causes = list(_causes(error))
        for cause in filter(_of_the_machine, causes):
            raise Unavailable(
                f"{folder} was not read ({_first_line(cause)}), which says nothing about what it "
                "holds: run the same command again, when that is mended"
            ) from error
        raise DamagedCheckpoint(f"{folder} cannot be read ({_first_line(causes[-1])})") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from: orbax's own often says no more than that it failed."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_the_machine(error: BaseException) -> bool:
    """Whether memory, a device or the file system failed, and not the content of a file."""
    if isinstance(error, OSError):
        return not isinstance(error, _DAMAGE)
    machine = isinstance(error, MemoryError | jax.errors.JaxRuntimeError)
    return machine or _NOT_READ.match(str(error)) is not None


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Raises DamagedCheckpoint in every process where the block does in one of them."""
    damage = None
    try:
        yield
    except DamagedCheckpoint as error:
        damage = error
    for line in filter(None, hosts.gather(str(damage or "").encode())):
        raise DamagedCheckpoint(line.decode()) from damage


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in floats]))


def _first_line(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text if len(text) < _LONGEST else text[:_LONGEST] + "..."


def _parts(state: TrainState) -> dict[str, Any]:
    """A state as the parts of its checkpoint."""
    model = {"params": state.params, "batch_stats": state.batch_stats}
    average = {} if state.ema is None else {"ema": state.ema}
    return {"model": model, "opt": state.opt_state, **average}
