"""The report of an ablation: text, CSV, JSON, LaTeX, plots, and a page with all of them."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from mtnet_jax.ablation.checks import check_records
from mtnet_jax.ablation.comparing import compare
from mtnet_jax.ablation.costs import cost_of_run, run_log
from mtnet_jax.ablation.measure import SETTINGS, Measured, measure, measured_path, read_measured
from mtnet_jax.ablation.page import as_page
from mtnet_jax.ablation.plots import plot_arms, plot_by_yaw, plot_curves, plot_differences
from mtnet_jax.ablation.running import finished_with
from mtnet_jax.ablation.spec import Ablation, Run, config_of
from mtnet_jax.ablation.tables import as_csv, as_latex, as_text
from mtnet_jax.errors import BadInput, Failed
from mtnet_jax.outputs import Outputs
from mtnet_jax.training.workdir import named_changes

TEXT, CSV, JSON, LATEX, PAGE = (f"report.{kind}" for kind in ("txt", "csv", "json", "tex", "html"))


def write_report(ablation: Ablation, name: str, workdir: Path, overrides: Sequence[str]) -> Path:
    """Writes everything about the runs that are finished; prints the text.

    Args:
      ablation: what is compared.
      name: of the comparison; the files go to a folder of that name in the work directory.
      workdir: of the ablation.
      overrides: `--config.KEY=VALUE` for all runs.

    Returns:
      The folder.

    Raises:
      Failed: no run is finished.
    """
    folder = workdir / f"report-{name}"
    write_files(gather(ablation, name, workdir, overrides), folder)
    return folder


def write_files(result: dict[str, Any], folder: Path) -> None:
    """Writes what `gather` gave in all forms, and prints the text."""
    name, outputs = result["name"], Outputs("ablate")
    text = as_text(result)
    outputs.write(folder / TEXT, text, name)
    outputs.write(folder / CSV, as_csv(result), name)
    outputs.write(folder / LATEX, as_latex(result), name)
    outputs.write(folder / JSON, json.dumps(result, indent=1, allow_nan=False) + "\n", name)
    plots = {}
    for caption, file_name, figure in _plots(result):
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
        plots[caption] = png.getvalue()
        with outputs.writing(folder / file_name, name) as file:
            file.write(png.getvalue())
    outputs.write(folder / PAGE, as_page(f"Ablation: {name}", text, plots), name)
    print(text)


def gather(
    ablation: Ablation, name: str, workdir: Path, overrides: Sequence[str]
) -> dict[str, Any]:
    """All numbers, ready for JSON.

    A finished run that some test set was not measured on, or not as it is now (other labels, other
    decoding), is measured first.

    Returns:
      "name", "arms", "seeds", "reference", "settings", "missing" (names of runs that are not
      finished), "others" (for those that are finished with other options: which), "costs" and
      "curves" by arm, and "sets" as `comparing.compare` gives them.

    Raises:
      Failed: no run is finished.
    """
    check_records(ablation, workdir, overrides)
    finished: dict[Run, ConfigDict] = {}
    missing: list[Run] = []
    others: dict[Run, dict[str, tuple[Any, Any]]] = {}
    for run in (Run(arm, seed) for arm in ablation.arms for seed in ablation.seeds):
        config = config_of(ablation, run, workdir, overrides)
        changed = finished_with(workdir / run.name, config)
        if changed == {}:
            finished[run] = config
        else:
            missing.append(run)
        if changed:
            others[run] = changed
    if not finished:
        if others:
            run, changed = next(iter(others.items()))
            raise Failed(
                f"no run is finished with these options; {run.name} is with others: "
                f"{named_changes(changed)}. Give the --config... options that it was trained with, "
                "or, where the specification was changed since, restore it."
            )
        raise Failed("no run is finished yet: `mtnet ablate` without --report trains them")
    runs: dict[str, dict[int, dict[str, Measured]]] = {}
    first: dict[str, tuple[Run, str]] = {}  # of each test set, whose records are there no more
    for run, config in finished.items():
        folder, measured = workdir / run.name, {}
        for set_name, test_set in ablation.test_sets.items():
            measure(folder, set_name, test_set, config)
            measured[set_name] = read_measured(measured_path(folder, set_name))
            _check_records(set_name, run, measured[set_name], first)
        runs.setdefault(run.arm, {})[run.seed] = measured
    groups = {name: test_set.group for name, test_set in ablation.test_sets.items()}
    return {
        "name": name,
        "arms": {arm: dict(options) for arm, options in ablation.arms.items()},
        "seeds": list(ablation.seeds),
        "reference": ablation.reference,
        "settings": SETTINGS._asdict(),
        "missing": [run.name for run in missing],
        "others": {run.name: named_changes(changed) for run, changed in others.items()},
        "costs": {arm: _cost(arm, sorted(seeds), workdir) for arm, seeds in runs.items()},
        "curves": {
            arm: {str(seed): _curves(workdir / Run(arm, seed).name) for seed in sorted(seeds)}
            for arm, seeds in runs.items()
        },
        "sets": compare(runs, ablation.reference, groups),
    }


def _check_records(
    name: str, run: Run, measured: Measured, first: dict[str, tuple[Run, str]]
) -> None:
    """Raises BadInput where a run was measured on other records than the first one, as it can be
    where they are there no more."""
    records = measured.identity.partition(" ")[0]
    of, expected = first.setdefault(name, (run, records))
    if records != expected:
        raise BadInput(
            f"{run.name} and {of.name} were measured on other records of the test set {name!r}: "
            "put those that count where the specification names them, and run the command again."
        )


def _cost(arm: str, seeds: Sequence[int], workdir: Path) -> dict[str, Any]:
    """Of the arm's first run, but the time, which is the least disturbed of all of them."""
    costs = [cost_of_run(workdir / Run(arm, seed).name) for seed in seeds]
    times = [t for cost in costs if (t := cost["seconds_of_1000_images"]) is not None]
    fastest = min(times, default=None)
    return {**costs[0], "seconds_of_1000_images": fastest, "runs": len(costs)}


def _curves(folder: Path) -> dict[str, list[dict[str, Any]]]:
    kept = ("step", "images", "pose", "obj", "ap50", "geodesic_mean", "mae")
    return {
        kind: [{key: line[key] for key in kept if key in line} for line in lines]
        for kind, lines in run_log(folder).items()
    }


def _plots(result: dict[str, Any]) -> Iterator[tuple[str, str, Figure]]:
    """Caption, name of the file, and figure of every plot."""
    for name, of_set in result["sets"].items():
        yield f"{name}: geodesic error by |yaw|", f"by_yaw_{name}.png", plot_by_yaw(of_set)
        yield f"{name}: error of each arm", f"arms_{name}.png", plot_arms(of_set)
        if of_set["differences"]:
            figure = plot_differences(of_set, result["reference"])
            yield f"{name}: differences of the geodesic error", f"differences_{name}.png", figure
    kinds = {k for runs in result["curves"].values() for run in runs.values() for k in run}
    for kind in sorted(kinds - {"train"}):
        file_name = f"curves_{kind.removeprefix('eval/')}.png"
        yield f"{kind} while training", file_name, plot_curves(result, kind)
