"""What training says: JSON lines, TensorBoard, a progress line."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS = "metrics.jsonl"


class TrainingLog:
    """Writes metrics to `metrics.jsonl` and TensorBoard, and shows a progress line.

    After an interruption the file is first cut back to the step training resumes from, so a curve
    has each step once.
    """

    def __init__(self, workdir: str | os.PathLike, resume_step: int, total_steps: int, main: bool):
        self._main = main  # one host of many writes
        if not main:
            return
        path = Path(workdir) / METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(workdir) if line["step"] <= resume_step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._board = SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=resume_step + 1, flush_secs=30
        )
        self._bar = tqdm(
            total=total_steps, initial=resume_step, unit="step", dynamic_ncols=True, smoothing=0.1
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._main:
            self._file.close()
            self._board.close()
            self._bar.close()

    def advance(self, phase: str) -> None:
        """One step is done."""
        if self._main:
            self._bar.set_description(phase, refresh=False)
            self._bar.update()

    def metrics(self, kind: str, step: int, phase: str, values: Mapping[str, float | None]) -> None:
        """Records named numbers (`kind` "train" or the name of an evaluation)."""
        if not self._main:
            return
        numbers = {name: _json_number(value) for name, value in values.items()}
        line = {"kind": kind, "step": step, "phase": phase, "time": time.time(), **numbers}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            shown = {"loss": values["loss"], "img/s": values["pictures_per_second"]}
            texts = {k: "nan" if v is None else f"{v:.3g}" for k, v in shown.items()}
            self._bar.set_postfix(texts, refresh=False)

    def say(self, text: str) -> None:
        """Prints without tearing the progress line."""
        if self._main:
            tqdm.write(text)


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line cut short by a crash is left out."""
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _json_number(value: Any) -> float | None:
    number = float(value) if value is not None else math.nan
    return number if math.isfinite(number) else None
