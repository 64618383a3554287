"""An ablation: what runs there are, what their configurations are, and what their numbers say."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from mtnet_jax.ablation import costs, running
from mtnet_jax.ablation.comparing import compare
from mtnet_jax.ablation.measure import SETTINGS
from mtnet_jax.ablation.plots import plot_arms, plot_by_yaw, plot_curves, plot_differences
from mtnet_jax.ablation.running import Outcome, run_of_number
from mtnet_jax.ablation.spec import (
    Run,
    config_of,
    grid,
    load_ablation,
    runs_of,
)
from mtnet_jax.ablation.tables import as_csv, as_latex, as_text, verdict
from mtnet_jax.cli import PREEMPTED, main
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.metrics import summarise
from mtnet_jax.rotations import geodesic_degrees
from mtnet_jax.saved_config import write_config
from tests.ablations import TWO_ARMS, ablation, measured, written
from tests.tiny import tiny_config


def test_a_grid_has_all_combinations():
    arms = grid({"model.representation": ("euler", "sixd"), "model.version": ("v1", "v2")})
    assert list(arms) == ["euler v1", "euler v2", "sixd v1", "sixd v2"]
    assert arms["sixd v1"] == {"model.representation": "sixd", "model.version": "v1"}


def test_runs_come_seed_by_seed_and_detectors_first():
    shared = ablation(detector_phases=("phase1", "phase2"))
    assert [run.name for run in runs_of(shared)][:5] == [
        *("detector-seed0", "detector-seed1", "detector-seed2"),
        *("euler-seed0", "vectors-seed0"),
    ]
    assert len(runs_of(shared)) == 9
    assert run_of_number(shared, 4) == Run("euler", 0)
    with pytest.raises(BadInput, match="numbered from 1 to 9"):
        run_of_number(shared, 10)


def test_arms_differ_in_their_options_alone(tmp_path):
    one, other = (
        config_of(ablation(), Run(arm, 1), tmp_path, ["--config.model.width=0.5"])
        for arm in TWO_ARMS
    )
    assert (one.model.representation, other.model.representation) == ("euler", "vectors")
    assert one.seed == other.seed == 1
    assert one.model.width == 0.5
    one.model.representation = "vectors"
    assert one.to_dict() == other.to_dict()


def test_a_shared_detector_is_trained_in_its_phases_alone(tmp_path):
    shared = ablation(detector_phases=("phase1", "phase2"))
    detector = config_of(shared, Run("", 2), tmp_path)
    arm = config_of(shared, Run("euler", 2), tmp_path)
    assert [phase.epochs > 0 for phase in detector.phases.values()] == [True, True, False]
    assert [phase.epochs > 0 for phase in arm.phases.values()] == [False, False, True]
    assert arm.init.weights == str(tmp_path / "detector-seed2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "sixd"}, "reference 'sixd' is none of the arms"),
        ({"seeds": (0, 0)}, "seeds must differ"),
        ({"arms": {"a b": {}, "a_b": {}}, "reference": "a b"}, "names of arms must differ"),
        ({"test_sets": {}}, "nothing to measure on"),
        ({"arms": {"detector": {}, "vectors": {}}}, "an arm cannot be called 'detector'"),
        ({"arms": {"": {}, "vectors": {}}}, "an arm cannot be called ''"),
        (
            {
                "arms": {"v1": {"model.version": "v1"}, "vectors": {}},
                "detector_phases": ("phase1",),
            },
            "arm 'v1' changes model.version, which a shared detector depends on",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, changes, said):
    with pytest.raises(BadInput, match=said):
        load_ablation(written(tmp_path, **changes))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "other.py").write_text("def get_config(): pass\n")
    with pytest.raises(BadInput, match=r"no function get_ablation"):
        load_ablation(tmp_path / "other.py")
    with pytest.raises(BadInput, match=r"neither a file nor one of .*representations"):
        load_ablation("nothing")


def test_an_unknown_option_of_an_arm_is_named(tmp_path):
    wrong = ablation(arms={"vectors": {"model.wdth": 1.0}})
    with pytest.raises(BadInput, match=r"Arm 'vectors'.*wdth"):
        config_of(wrong, Run("vectors", 0), tmp_path)


# --- Processes ------------------------------------------------------------------------------------


def train_all_with(monkeypatch, workdir, program, at_once=1) -> Outcome:
    """`train_all`, each run a process of this Python program; NAME, WORKDIR are its arguments."""

    def start(command, number, run, workdir, place, at_once):
        line = [sys.executable, "-c", program, run.name, str(workdir)]
        return subprocess.Popen(line, start_new_session=True)

    monkeypatch.setattr(running, "_start", start)
    monkeypatch.setattr(running, "_WAIT", 0.02)
    return running.train_all(ablation(), [], workdir, [], at_once)


def test_a_run_that_fails_ends_alone(monkeypatch, tmp_path):
    program = "import sys; open(sys.argv[2] + '/' + sys.argv[1], 'w'); sys.exit("
    codes = {"euler-seed1": 3, "euler-seed2": PREEMPTED, "vectors-seed2": running.BUSY}
    program += f"{codes}.get(sys.argv[1], 0))"
    outcome = train_all_with(monkeypatch, tmp_path, program)
    failed = {name: f"ended with code {codes[name]}" for name in ("euler-seed1", "euler-seed2")}
    assert outcome == Outcome(failed, ["vectors-seed2"])
    assert len(list(tmp_path.iterdir())) == 6


def test_as_many_run_at_once_as_were_asked_for(monkeypatch, tmp_path):
    program = (
        "import os, sys, time; mine = sys.argv[2] + '/' + sys.argv[1]; open(mine, 'w').close(); "
        "time.sleep(.3); n = len([f for f in os.listdir(sys.argv[2]) if 'seed' in f]); "
        "open(sys.argv[2] + '/most' + str(n), 'w').close(); os.remove(mine)"
    )
    train_all_with(monkeypatch, tmp_path, program, at_once=3)
    seen = {int(path.name.removeprefix("most")) for path in tmp_path.glob("most*")}
    assert 2 <= max(seen) <= 3


def test_a_stopped_grid_leaves_no_process(monkeypatch, tmp_path):
    began = []

    def interrupted(_):
        began.append(len(list(tmp_path.iterdir())))
        if began[-1]:
            raise KeyboardInterrupt

    program = (
        "import signal, sys, time; mine = sys.argv[2] + '/' + sys.argv[1]; "
        "signal.signal(signal.SIGTERM, lambda *_: (open(mine + '-saved', 'w'), sys.exit(143))); "
        "open(mine, 'w').close(); time.sleep(60)"
    )
    monkeypatch.setattr(running.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_all_with(monkeypatch, tmp_path, program)
    assert {path.name for path in tmp_path.iterdir()} == {"euler-seed0", "euler-seed0-saved"}


# --- Numbers --------------------------------------------------------------------------------------


def result_of(seeds=(0, 1, 2)) -> dict:
    """What `report.gather` gives, of an arm that is 5 degrees worse than the reference."""
    runs = {
        "vectors": {s: {"demo": measured(10 + s, seed=s)} for s in seeds},
        "euler": {s: {"demo": measured(15 + s, seed=s + 10, missed=20)} for s in seeds},
    }
    sets = compare(runs, "vectors", {"demo": r"person\d\d"})
    cost = {"parameters": 7, "flop_of_image": 1e6, "images": 640, "seconds_of_1000_images": 1.0}
    line = {"step": 2, "images": 32, "geodesic_mean": 40.0}
    return {
        "name": "demo",
        "arms": TWO_ARMS,
        "seeds": list(seeds),
        "reference": "vectors",
        "settings": SETTINGS._asdict(),
        "missing": [],
        "others": {},
        "costs": {arm: {**cost, "runs": len(seeds)} for arm in runs},
        "curves": {arm: {str(s): {"eval/demo": [line]} for s in seeds} for arm in runs},
        "sets": sets,
    }


RESULT = result_of()


def test_figures_of_an_arm_are_those_of_its_runs():
    run = measured(10, seed=0)
    alone = compare({"a": {0: {"demo": run}}}, "a", {"demo": ""})["demo"]["arms"]["a"]
    summary = summarise(run.state, SETTINGS)
    assert alone["overall"]["geodesic_mean"]["value"] == summary["pose"]["geodesic_mean"]
    assert alone["overall"]["ap50"]["by_seed"] == {"0": summary["detection"]["ap50"]}
    assert alone["yaw_bins"][2]["roll"]["value"] == summary["yaw_bins"][2]["roll"]


def test_a_difference_is_that_of_the_means_with_both_intervals():
    difference = RESULT["sets"]["demo"]["differences"]["euler"]["overall"]["geodesic_mean"]
    assert difference["over_seeds"]["value"] == pytest.approx(5, abs=0.2)
    assert difference["over_groups"]["value"] == pytest.approx(5, abs=0.2)
    assert difference["over_groups"]["support"] == 12  # persons, not images
    assert verdict(difference) == "higher"
    ap = RESULT["sets"]["demo"]["differences"]["euler"]["overall"]["ap50"]
    assert ap["over_groups"]["value"] == pytest.approx(ap["over_seeds"]["value"], abs=1e-9)
    assert verdict(ap) == "lower"


def test_an_arm_that_misses_the_hard_heads_is_no_better_for_it():
    def hard_and_easy(easy, hard, *, seed, missed=0):
        """40 heads, the first 20 of them hard; the first `missed` are not found."""
        runs = [measured(hard, seed=seed, missed=missed), measured(easy, seed=seed)]
        rows = np.where(np.arange(40) < 20, *(run.state.rows for run in runs))
        return runs[0]._replace(state=runs[0].state._replace(rows=rows))

    seeds = range(3)
    runs = {
        "finds all": {s: {"demo": hard_and_easy(10, 50, seed=s)} for s in seeds},
        "finds easy": {s: {"demo": hard_and_easy(12, 50, seed=s, missed=20)} for s in seeds},
    }
    found = compare(runs, "finds all", {"demo": ""})["demo"]
    means = [arm["overall"]["geodesic_mean"]["value"] for arm in found["arms"].values()]
    assert means == pytest.approx([30, 12], abs=0.2)
    apart = found["differences"]["finds easy"]["overall"]
    for interval in ("over_seeds", "over_groups"):
        assert apart["geodesic_mean"][interval]["value"] == pytest.approx(2, abs=0.2)
    assert verdict(apart["geodesic_mean"]) == "higher"
    assert apart["geodesic_mean"]["heads"] == 20
    assert apart["recall"]["over_groups"]["value"] == pytest.approx(-0.5)
    assert apart["recall"]["heads"] == 40


def test_seeds_without_a_number_are_counted():
    seeds = {s: {"demo": measured(10, seed=s, missed=40 if s < 2 else 0)} for s in range(5)}
    result = {**RESULT, "sets": compare({"vectors": seeds}, "vectors", {"demo": ""})}
    assert "(3 of 5)" in as_text(result)
    assert "(3 of 5 seeds)" in as_latex(result)


def test_two_seeds_are_said_to_be_too_few():
    result = result_of(seeds=(0, 1))
    text = as_text(result)
    assert "none: 2 seeds" in text
    assert "too few" in text
    assert "(2)" in text.split("geodesic")[1]
    assert "(2 seeds)" in as_latex(result)


def test_csv_has_what_the_result_has():
    rows = list(csv.DictReader(io.StringIO(as_csv(RESULT))))
    (row,) = (
        r for r in rows if (r["arm"], r["figure"], r["abs_yaw"]) == ("euler", "geodesic_mean", "")
    )
    euler = RESULT["sets"]["demo"]["arms"]["euler"]["overall"]["geodesic_mean"]
    assert float(row["mean"]) == euler["value"]
    assert float(row["seed_1"]) == euler["by_seed"]["1"]
    assert float(row["t_low"]) < float(row["difference"]) < float(row["t_high"])
    assert float(row["bootstrap_low"]) < float(row["bootstrap_high"])
    assert row["heads"] == "20"  # of 40, which one arm missed half of
    assert len(rows) == 2 * (12 + 6 * 10)  # arms; figures, and those by bins of yaw


def test_what_is_written_is_whole():
    text = as_text(RESULT)
    assert "euler: geodesic" in text
    assert "higher" in text
    json.dumps(RESULT, allow_nan=False)
    result = json.loads(json.dumps(RESULT).replace("euler", "a_b 50% & {x}"))
    latex = as_latex(result)
    assert latex.count(r"a\_b 50\% \& \{x\} & ") == 2
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2


def test_costs_that_are_not_known_are_dashes(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "flops_of", lambda *_: None)  # as where JAX has no CPU
    write_config(tmp_path, tiny_config())
    (tmp_path / "finished.json").write_text('{"parameters": {"face": 3, "neck": 4}}')
    line = {"kind": "train", "step": 6, "phase": "a", "images_per_second": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    cost = costs.cost_of_run(tmp_path)
    json.dumps(cost, allow_nan=False)
    assert (cost["parameters"], cost["images"]) == (7, 24)
    result = {**RESULT, "costs": {"vectors": {**cost, "runs": 1}}}
    assert "vectors     1           7            -           24              -" in as_text(result)


def test_plots_show_every_arm():
    of_set = RESULT["sets"]["demo"]
    for figure in (plot_by_yaw(of_set), plot_curves(RESULT, "eval/demo", "geodesic_mean")):
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert labels == ["vectors", "euler"]
    for figure in (plot_arms(of_set), plot_differences(of_set, "vectors")):
        names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert any("euler" in name for name in names)
        figure.canvas.draw()


def test_the_geodesic_error_of_the_fixture():
    run = measured(10, seed=0)
    assert geodesic_degrees(np.eye(3), np.eye(3)) == 0
    assert np.nanmean(run.state.rows["geodesic"]) == pytest.approx(10, abs=0.1)


# --- From end to end ------------------------------------------------------------------------------

TINY = """
from mtnet_jax.ablation.spec import Ablation, HeldOut
from tests.tiny import DEMO_RECORDS


def get_ablation():
    return Ablation(
        config="{config}",
        arms={{"euler": {{"model.representation": "euler"}}, "vectors": {{}}}},
        seeds=(0,),
        reference="vectors",
        test_sets={{"demo": HeldOut(str(DEMO_RECORDS), "test", limit=4)}},
        detector_phases=("a",),
    )
"""


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was_stopped_and_repeats_nothing(tmp_path, capsys):
    config = tmp_path / "tiny.py"
    config.write_text("from tests.tiny import tiny_config as get_config\n")
    spec = tmp_path / "grid.py"
    spec.write_text(TINY.format(config=config))
    workdir = tmp_path / "runs"
    command = ["ablate", str(spec), "--workdir", str(workdir)]
    # Run 2 of 3 is an arm: it trains the detector that it starts from, and then itself.
    assert main([*command, "--run", "2"]) == 0
    trained = {path.parent: path.stat().st_mtime_ns for path in workdir.glob("*/finished.json")}
    assert {path.name for path in trained} == {"detector-seed0", "euler-seed0"}
    assert "backbone, neck, face as they are; pose fresh" in capsys.readouterr().out

    assert main([*command, "--list"]) == 0
    states = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["finished", "finished", "begun"]  # not begun

    assert main(command) == 0
    for folder, time in trained.items():
        assert (folder / "finished.json").stat().st_mtime_ns == time
    report = workdir / "report-grid"
    result = json.loads((report / "report.json").read_text())
    assert list(result["sets"]["demo"]["arms"]) == ["euler", "vectors"]
    assert result["missing"] == []
    assert result["costs"]["euler"]["images"] == 3 * 4
    assert (report / "by_yaw_demo.png").read_bytes().startswith(b"\x89PNG")
    assert (report / "report.html").read_text().count("data:image/png") == 4


@pytest.mark.slow
def test_a_run_that_mtnet_train_has_trained_in_its_folder_is_one_of_the_grid(tmp_path, capsys):
    """Over several hosts there is no other way."""
    config, spec, workdir = tmp_path / "tiny.py", tmp_path / "grid.py", tmp_path / "runs"
    config.write_text("from tests.tiny import tiny_config as get_config\n")
    spec.write_text(TINY.format(config=config))
    train = ["train", "--config", str(config), "--config.seed=0", "--config.phases.b.epochs=0"]
    assert main([*train, "--workdir", str(workdir / "detector-seed0")]) == 0
    capsys.readouterr()
    log = (workdir / "detector-seed0" / "metrics.jsonl").read_text()
    command = ["ablate", str(spec), "--workdir", str(workdir), "--run", "1"]
    assert main([*command, "--config.clip_norm=7"]) == 1  # as it is not that of the grid
    assert "clip_norm" in capsys.readouterr().err
    assert main(command) == 0
    assert (workdir / "detector-seed0" / "finished.json").is_file()
    assert (workdir / "detector-seed0" / "metrics.jsonl").read_text() == log
