"""A profiler trace of some steps, on demand: `mtnet train --profile STEPS --profile-from STEP`."""

from pathlib import Path
from typing import Any

import jax

from mtnet_jax.training.log import TrainingLog

PROFILE = "profile"  # folder in the work directory; xprof and TensorBoard's plugin read it
FIRST = 3  # steps of a start before its trace: those that compile and warm up


class Profile:
    """Traces `steps` steps once, after the first so many of this start (`after`)."""

    def __init__(self, workdir: Path, steps: int, after: int = FIRST):
        self._folder, self._steps, self._seen = workdir / PROFILE, steps, 0
        self._after = after
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def shortfall(self) -> str:
        """Says, at the end of a run, that it was too short to be traced; empty where it was not."""
        needed = self._after + self._steps
        if not self._steps or self._seen >= needed:
            return ""
        return (
            f"WARNING: --profile {self._steps} needs {needed} steps, {self._after} of them before "
            f"the trace, and this start made {self._seen}: the trace is shorter, or missing"
        )

    def step(self, metrics: Any, log: TrainingLog) -> None:
        """Notes that a step was handed over.

        Args:
          metrics: of it; the trace ends when the device has them.
          log: is told where the trace lies when it is whole.
        """
        self._seen += 1
        if self._steps and self._seen == self._after:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and self._seen == self._after + self._steps:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._running = False
            log.say(f"profile of {self._steps} steps: {self._folder}")
