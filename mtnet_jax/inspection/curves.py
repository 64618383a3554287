"""Curves of a training run: losses, and evaluation on held-out images."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtnet_jax.outputs import Outputs
from mtnet_jax.run_metrics import read_metrics


def plot_curves(outputs: Outputs, workdir: Path, path: Path) -> None:
    """Losses of training and the errors of each evaluation, over the steps of a work directory."""
    lines = read_metrics(workdir)
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    training = [line for line in lines if line["kind"] == "train"]
    for name in ("xy", "wh", "obj", "cls", "pose"):
        left.plot([t["step"] for t in training], [t[name] for t in training], label=name)
    left.set(title="training losses, before weighting", xlabel="step", yscale="log")
    left.set_ylim(bottom=1e-4)  # the class loss of a single class runs to nothing
    for kind in sorted({line["kind"] for line in lines} - {"train"}):
        points = [line for line in lines if line["kind"] == kind]
        steps = [p["step"] for p in points]
        name = kind.removeprefix("eval/")
        right.plot(steps, [100 * (p["ap50"] or 0) for p in points], "o-", label=f"{name}: AP50, %")
        if any(p.get("geodesic_mean") for p in points):
            errors = [p.get("geodesic_mean") for p in points]
            right.plot(
                steps,
                [np.nan if e is None else e for e in errors],
                "s--",
                label=f"{name}: geodesic error, °",
            )
    right.set(title="held-out images", xlabel="step", ylim=(0, None))
    for axes in (left, right):
        for before, after in pairwise(training):
            if before["phase"] != after["phase"]:
                axes.axvline(before["step"], color="0.7", linewidth=1)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with outputs.writing(path) as file:
        figure.savefig(file, format="png", dpi=120)
