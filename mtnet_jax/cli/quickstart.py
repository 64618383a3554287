"""`mtnet quickstart`: the whole project on the demo data, in minutes on two CPU cores."""

import argparse
import os
import time
from pathlib import Path

from mtnet_jax.cli import arguments


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command `mtnet quickstart`."""
    parser = commands.add_parser(
        "quickstart", help="train, evaluate and predict on the demo data, in minutes"
    )
    parser.add_argument(
        "--workdir", type=arguments.path_here, default=Path("runs/quickstart"), metavar="DIR"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what was parsed; returns the exit code."""
    return quickstart(args.workdir)


def quickstart(workdir: Path) -> int:
    """Trains through all phases on the demo records, evaluates, predicts, and says what lies where.

    Args:
      workdir: everything goes there; run again, it goes on where it was stopped.

    Returns:
      The exit code: 0.
    """
    from mtnet_jax.config import load_config
    from mtnet_jax.data.records import RecordSource
    from mtnet_jax.evaluation.run import evaluate_records
    from mtnet_jax.inspection.curves import plot_curves
    from mtnet_jax.inspection.predictions import write_predictions
    from mtnet_jax.outputs import Outputs
    from mtnet_jax.predict.files import find_images, predict_files
    from mtnet_jax.predict.predictor import Predictor
    from mtnet_jax.shipped import shipped
    from mtnet_jax.training.loop import train

    started = time.perf_counter()
    workdir = workdir.resolve()
    config = load_config("quickstart")
    records = Path(config.data.demo.path)
    _step("1 of 4", "training a narrow net through the three phases")
    train(config, workdir)

    _step("2 of 4", "evaluating on people it has never seen, beside the constant predictor")
    results = evaluate_records(workdir, records, "test", out=workdir / "eval")

    _step("3 of 4", "predicting on photographs, which it was not trained on")
    predictor = Predictor.load(workdir)
    images = find_images([shipped("demo/images")]).images
    predict_files(
        predictor,
        images,
        out=workdir / "predictions",
        json_file=workdir / "predictions.json",
    )
    outputs = Outputs("quickstart")
    _step("4 of 4", "curves and a sheet of held-out images")
    plot_curves(outputs, workdir, workdir / "curves.png")
    write_predictions(outputs, predictor, RecordSource(records, "test"), workdir / "held_out.png")

    minutes = (time.perf_counter() - started) / 60
    print(
        f"\nDone in {minutes:.1f} minutes. On people it has never seen, turned all the way round:\n"
    )
    print(_summary(results))
    shown = os.path.relpath(workdir)
    print(
        f"""
In {shown}:
  predictions/        overlays of demo/images: red x, green y, blue out of the face
  predictions.json    the same as numbers
  held_out.png        a sheet of held-out images, prediction and truth
  eval/               table, JSON and plots
  curves.png          losses and evaluation over the steps
  checkpoints/        of the trained network; metrics.jsonl and tensorboard/ beside it

Your own images:  mtnet predict IMAGE_OR_FOLDER --weights {shown} --out overlays
This net saw 700 small rendered images for some minutes: the weights that ship are of more
use (predict without --weights), and README.md says how to train your own."""
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
            "  (constant: mean box and mean pose of the training images; its pose errors are",
            "  those of the mean pose on the true boxes)",
        ]
    )


def _step(number: str, text: str) -> None:
    print(f"\n== {number}: {text}", flush=True)
