"""`mtnet quickstart`: the whole project on the demo data, in minutes on two CPU cores."""

import os
import time
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtnet_jax.config import load_config
from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation.run import evaluate_records
from mtnet_jax.predict.draw import contact_sheet, draw_heads
from mtnet_jax.predict.predictor import (
    Predictor,
    as_arrays,
    find_pictures,
    predict_files,
    write_picture,
)
from mtnet_jax.training.log import read_metrics
from mtnet_jax.training.loop import train

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "demo"


def quickstart(workdir: Path) -> int:
    """Trains through all phases on the demo records, evaluates, predicts, and says what lies where.

    Args:
      workdir: everything goes there; run again, it goes on where it was stopped.

    Returns:
      The exit code: 0.

    Raises:
      FileNotFoundError: the demo data are not there (they ship with the repository).
    """
    started = time.perf_counter()
    workdir = workdir.resolve()
    if not DEMO.is_dir():
        raise FileNotFoundError(
            f"No demo data at {DEMO}: run the quickstart from a clone of the repository, installed "
            "with pip install -e ."
        )
    with chdir(REPOSITORY):  # the configuration names the demo records from there
        config = load_config(Path("configs/quickstart.py"))
        records = Path(config.data.demo.path).resolve()
        _step("1 of 4", "training a narrow net through the three phases")
        train(config, workdir)

    _step("2 of 4", "evaluating on people it has never seen, beside the constant predictor")
    results = evaluate_records(workdir, records, "test", out=workdir / "eval")

    _step("3 of 4", "predicting on photographs, which it was not trained on")
    predictor = Predictor.load(workdir)
    pictures = find_pictures([DEMO / "pictures"])
    predict_files(
        predictor,
        pictures,
        out=workdir / "predictions",
        json_file=workdir / "predictions.json",
    )
    _step("4 of 4", "curves and a sheet of held-out pictures")
    plot_curves(workdir, workdir / "curves.png")
    write_sheet(predictor, RecordSource(records, "test"), workdir / "held_out.png")

    minutes = (time.perf_counter() - started) / 60
    print(
        f"\nDone in {minutes:.1f} minutes. On people it has never seen, turned all the way round:\n"
    )
    print(_summary(results))
    shown = os.path.relpath(workdir)
    print(
        f"""
In {shown}:
  predictions/        overlays of demo/pictures: red x, green y, blue out of the face
  predictions.json    the same as numbers
  held_out.png        a sheet of held-out pictures, prediction and truth
  eval/               table, JSON and plots
  curves.png          losses and evaluation over the steps
  checkpoints/        of the trained network; metrics.jsonl and tensorboard/ beside it

Your own pictures:  mtnet predict PICTURE_OR_FOLDER --weights {shown} --out overlays
This net saw 700 small rendered pictures for some minutes: weights/small are of more use, and
README.md says how to train your own."""
    )
    return 0


def _summary(results: dict[str, dict]) -> str:
    """The quickstart's table: the network beside the constant predictors."""
    network, constant, pose = (results[k] for k in ("network", "constant", "constant pose"))

    def row(name: str, section: str, key: str, other: dict, factor: float, unit: str) -> str:
        values = (result[section][key] for result in (network, other))
        cells = ("-" if v is None else f"{factor * v:.1f}{unit}" for v in values)
        return f"  {name:<28}" + "".join(f"{cell:>12}" for cell in cells)

    return "\n".join(
        [
            f"  {'':<28}{'network':>12}{'constant':>12}",
            row("AP50", "detection", "ap50", constant, 100, "%"),
            row("mean IoU, missed = 0", "detection", "mean_iou_all", constant, 100, "%"),
            row("geodesic error, mean", "pose", "geodesic_mean", pose, 1, "°"),
            row("MAE of yaw, pitch, roll", "pose", "mae", pose, 1, "°"),
            "  (constant: mean box and mean pose of the training pictures; its pose errors are",
            "  those of the mean pose on the true boxes)",
        ]
    )


def write_sheet(predictor: Predictor, source: RecordSource, path: Path, count: int = 24) -> None:
    """A contact sheet of evenly spread records with prediction and truth drawn."""
    sheet = []
    for i in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        record = source[int(i)]
        heads = as_arrays(predictor(record["image"]))
        sheet.append(draw_heads(record["image"], heads, truth=record, label=False))
    write_picture(path, contact_sheet(sheet, columns=6, size=(320, 240)))


def plot_curves(workdir: Path, path: Path) -> None:
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
    right.set(title="held-out pictures", xlabel="step", ylim=(0, None))
    for axes in (left, right):
        for before, after in pairwise(training):
            if before["phase"] != after["phase"]:
                axes.axvline(before["step"], color="0.7", linewidth=1)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _step(number: str, text: str) -> None:
    print(f"\n== {number}: {text}", flush=True)
