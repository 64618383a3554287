"""How fast training goes, and the numbers of its steps, one logging interval late."""

import time
from typing import Any

import jax
import numpy as np

from mtnet_jax.checkpoints import NotFinite, Position
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.phases import Phase
from mtnet_jax.training.utilisation import memory_gb


class Meter:
    """Times steps and waiting, and hands over the metrics of the previous interval."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.least_seconds: float | None = None  # of a step at the chips' peak, where it is known
        self._pending: tuple[Position, Any, dict[str, float]] | None = None
        self.restart()

    def restart(self) -> None:
        """Leaves what came before (an evaluation) out of the rates."""
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def leave_out(self, seconds: float) -> None:
        """Leaves time that was spent on something else out of the rates."""
        self._start += seconds

    def waiting(self, last_metrics: Any) -> "Meter":
        """Times the device's wait for a batch, given what the step before returned (or None)."""
        self._steps += 1
        self._last_metrics = last_metrics
        return self

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        # Steps are handed over ahead: the device waits only once it has done all of them.
        if all(leaf.is_ready() for leaf in jax.tree.leaves(self._last_metrics)):
            self._waited += time.perf_counter() - self._wait_start

    def report(self, log: TrainingLog, position: Position, phase: Phase, metrics: Any) -> None:
        elapsed = time.perf_counter() - self._start
        rates = {
            "images_per_second": self._batch_size * self._steps / elapsed,
            "wait_share": self._waited / elapsed,
            "step_seconds": elapsed / max(self._steps, 1),
            "memory_gb": memory_gb(),
        }
        if self.least_seconds is not None:
            rates["mfu"] = self.least_seconds * self._steps / elapsed
        self.restart()
        self.flush(log, phase)
        self._pending = (position, metrics, rates)

    def flush(self, log: TrainingLog, phase: Phase) -> None:
        if self._pending is None:
            return
        position, metrics, rates = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        log.metrics("train", position.total_step, phase.name, {**values, **rates})
        if not np.isfinite(values["loss"]):
            raise NotFinite(f"the loss is {values['loss']} at step {position.total_step}")
