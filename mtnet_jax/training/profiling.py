"""A profiler trace of some steps, on demand: `mtnet train --profile STEPS`."""

from pathlib import Path
from typing import Any

import jax

from mtnet_jax.training.log import TrainingLog

PROFILE = "profile"  # folder in the work directory; xprof and TensorBoard's plugin read it
FIRST = 3  # steps of this start before the trace: those that compile and warm up


class Profile:
    """Traces `steps` steps once, beginning a few steps after the start."""

    def __init__(self, workdir: Path, steps: int):
        self._folder, self._steps, self._seen = workdir / PROFILE, steps, 0
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def shortfall(self) -> str:
        """Says, at the end of a run, that it was too short to be traced; empty where it was not."""
        needed = FIRST + self._steps
        if not self._steps or self._seen >= needed:
            return ""
        return (
            f"WARNING: --profile {self._steps} needs {needed} steps, and this start made "
            f"{self._seen}: the trace is shorter, or missing"
        )

    def step(self, metrics: Any, log: TrainingLog) -> None:
        """Notes that a step was handed over.

        Args:
          metrics: of it; the trace ends when the device has them.
          log: is told where the trace lies when it is whole.
        """
        self._seen += 1
        if self._steps and self._seen == FIRST:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and self._seen == FIRST + self._steps:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._running = False
            log.say(f"profile of {self._steps} steps: {self._folder}")
