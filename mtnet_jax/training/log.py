"""What training says: JSON lines, TensorBoard, a progress line."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from mtnet_jax.errors import Unavailable
from mtnet_jax.run_metrics import METRICS, ON, RESUME, read_metrics

_SECONDS_BETWEEN = 60.0  # two progress lines, where they go to a file and not to a terminal
_PACE = ("mininterval", "maxinterval")  # of tqdm


class TrainingLog:
    """Writes metrics to `metrics.jsonl` and TensorBoard, and shows a progress line.

    The file only grows. After an interruption a line says from which step training resumes: what
    came after that step before is done again, and `read_metrics` leaves it out.
    """

    def __init__(self, workdir: str | os.PathLike, resume_step: int, total_steps: int, main: bool):
        self._main = main  # one host of many writes
        before = read_metrics(workdir)
        self.lines = [line for line in before if line["step"] <= resume_step]
        if not main:
            return
        path = Path(workdir) / METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b")
        if len(self.lines) < len(before):
            self._write({"kind": RESUME, "step": resume_step, "time": time.time()})
        # Its thread ends on a full disk. A queue of a fixed length, which nobody empties any more,
        # would stop the training for ever; what ends it properly is the next line or checkpoint.
        self._board = SummaryWriter(
            str(Path(workdir) / "tensorboard"),
            purge_step=resume_step + 1,
            flush_secs=30,
            max_queue=0,
        )
        # Ten lines a second would fill a file with 80 MB a day.
        pace = {} if sys.stderr.isatty() else dict.fromkeys(_PACE, _SECONDS_BETWEEN)
        self._bar = tqdm(
            total=total_steps,
            initial=resume_step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.1,
            **pace,
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._main:
            self._bar.close()
            with contextlib.suppress(OSError):  # what could not be written was said already
                self._file.close()
            with contextlib.suppress(OSError):
                self._board.close()

    def advance(self, phase: str) -> None:
        """One step is done."""
        if self._main:
            self._bar.set_description(phase, refresh=False)
            self._bar.update()

    def metrics(
        self,
        kind: str,
        step: int,
        phase: str,
        values: Mapping[str, float | None],
        on: Mapping[str, Any] | None = None,
    ) -> None:
        """Records named numbers (`kind` "train" or the name of an evaluation, which is `on`
        something)."""
        numbers = {name: _json_number(value) for name, value in values.items()}
        line: dict[str, Any] = {"kind": kind, "step": step, "phase": phase, "time": time.time()}
        line |= numbers
        if on is not None:
            line[ON] = dict(on)
        self.lines.append(line)
        if not self._main:
            return
        self._write(line)
        for name, value in numbers.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            shown = {"loss": values["loss"], "img/s": values["images_per_second"]}
            texts = {k: "nan" if v is None else f"{v:.3g}" for k, v in shown.items()}
            self._bar.set_postfix(texts, refresh=False)

    def has(self, kind: str, step: int, on: Mapping[str, Any] | None = None) -> bool:
        """Whether numbers of a kind were recorded at a step, in an earlier run too: on the same,
        where that is asked for and known."""
        return any(
            line["kind"] == kind
            and line["step"] == step
            and (on is None or line.get(ON, on) == dict(on))
            for line in self.lines
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            if self._file.tell() and not self._ends_a_line():
                self._file.write(b"\n")  # a kill or a full disk cut the last line short
            self._file.write((json.dumps(line) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}") from error

    def _ends_a_line(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"

    def say(self, text: str) -> None:
        """Prints without tearing the progress line."""
        if self._main:
            tqdm.write(text)


def _json_number(value: Any) -> float | None:
    number = float(value) if value is not None else math.nan
    return number if math.isfinite(number) else None
