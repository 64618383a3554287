"""Checkpoints by orbax: model, optimizer, position. The only file that knows orbax.

A step's folder holds the checkpointables `model` ({"params", "batch_stats"}) and `opt`, and as
metadata the `Position`. They are separate so that predicting reads the model alone. The
configuration lies beside the checkpoints in `config.json` of the work directory.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from mtnet_jax.errors import MissingFile
from mtnet_jax.system import TrainState

CHECKPOINTS = "checkpoints"


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
        self._checkpointer = ocp.training.Checkpointer(
            Path(workdir).resolve() / CHECKPOINTS,
            preservation_policy=keep and ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=keep is not None,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._checkpointer.close()

    def position(self) -> Position | None:
        """Position of the latest checkpoint, None where there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        return Position(**self._checkpointer.checkpointables_metadata(latest.step).custom_metadata)

    def save(self, state: TrainState, position: Position) -> None:
        """Writes a checkpoint in the background (the state's arrays may be donated right after)."""
        latest = self._checkpointer.latest
        if latest is not None and latest.step == position.total_step:
            return
        self._checkpointer.save_checkpointables_async(
            position.total_step,
            {"model": _model_tree(state), "opt": state.opt_state},
            # Without it a checkpoint is skipped in silence while the one before is being written.
            force=True,
            custom_metadata=position._asdict(),
        )

    def restore(self, abstract: TrainState) -> TrainState:
        """Reads the latest checkpoint into the shapes and shardings of `abstract`."""
        loaded = self._checkpointer.load_checkpointables(
            None, {"model": _model_tree(abstract), "opt": abstract.opt_state}
        )
        return TrainState(opt_state=loaded["opt"], **loaded["model"])


def load_model(workdir: str | os.PathLike, abstract: dict[str, Any]) -> dict[str, Any]:
    """Reads {"params", "batch_stats"} of the latest checkpoint of a work directory.

    Args:
      workdir: of a training run.
      abstract: the shapes to read, with shardings (`with_sharding`).

    Raises:
      FileNotFoundError: no checkpoint there.
    """
    folder = Path(workdir) / CHECKPOINTS
    if not folder.is_dir():
        raise MissingFile(f"No checkpoints in {folder}: nothing was trained there yet.")
    with Checkpoints(workdir, keep=None) as checkpoints:
        if checkpoints.position() is None:
            raise MissingFile(f"No complete checkpoint in {folder} yet.")
        loaded = checkpoints._checkpointer.load_checkpointables(None, {"model": abstract})
    return loaded["model"]


def save_exported(folder: Path, variables: dict[str, Any], metadata: dict[str, str]) -> None:
    """Writes {"params", "batch_stats"} alone, for any program that reads orbax: as `model`."""
    ocp.save_checkpointables(
        folder.resolve(), {"model": variables}, overwrite=True, custom_metadata=metadata
    )


def exported_metadata(folder: Path) -> dict[str, str] | None:
    """What `save_exported` was told to say."""
    return ocp.checkpointables_metadata(folder.resolve()).custom_metadata


def load_exported(folder: Path, abstract: dict[str, Any]) -> dict[str, Any]:
    """What `save_exported` wrote, in the shapes and shardings of `abstract`."""
    return ocp.load_checkpointables(folder.resolve(), {"model": abstract})["model"]


def with_sharding(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes with a sharding, as restoring wants them."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
    )


def _model_tree(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}
