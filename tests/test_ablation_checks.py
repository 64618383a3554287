"""Faults of a specification are said before anything is trained."""

import json

import pytest

from mtnet_jax.ablation import devices
from mtnet_jax.ablation.checks import check_runs, check_shares
from mtnet_jax.ablation.spec import HeldOut, grid, load_ablation
from mtnet_jax.cli import main
from mtnet_jax.config import load_config
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import BadInput
from tests.ablations import ablation, written
from tests.tiny import DEMO_RECORDS

DEMO = str(DEMO_RECORDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [("nothing.of_that_name", "line 2: NameError"), ("def f(:", "line 2: SyntaxError")],
)
def test_an_error_in_a_specification_is_said_with_its_line(tmp_path, line, said):
    path = tmp_path / "spec.py"
    path.write_text(f"def get_ablation():\n    {line}\n")
    with pytest.raises(BadInput, match=rf"spec\.py, {said}"):
        load_ablation(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 3}, "seeds must be a tuple of whole numbers from 0, not 3"),
        ({"seeds": (0, -1)}, "seeds must be a tuple"),
        ({"arms": ["euler", "vectors"]}, "arms must be a dict"),
        ({"arms": {"euler": None, "vectors": {}}}, "arms must be a dict"),
        ({"test_sets": {"demo": DEMO}}, "test_sets must be a dict"),
        ({"test_sets": {"a/b": HeldOut(DEMO)}}, "cannot be called 'a/b'"),
        ({"test_sets": {"demo": HeldOut(DEMO, group="(")}}, "group of 'demo' is '\\(', no reg"),
        ({"test_sets": {"demo": HeldOut(DEMO, limit=-1)}}, "limit of 'demo' is -1"),
        ({"detector_phases": "phase1"}, "detector_phases must be a tuple"),
        ({"arms": {"vectors": {}, "other": {"seed": 7}}}, "arm 'other' changes seed"),
    ],
)
def test_what_a_specification_holds_is_checked(tmp_path, changes, said):
    with pytest.raises(BadInput, match=said):
        load_ablation(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"test_sets": {"a": HeldOut("nowhere")}}, (), "test set 'a': No record set at nowhere"),
        ({"test_sets": {"a": HeldOut(DEMO, "valid")}}, (), "test set 'a': .* no split 'valid'"),
        (
            {"test_sets": {"a": HeldOut(DEMO, group="person")}},
            (),
            "test set 'a': The group 'person' finds nothing",
        ),
        ({"arms": {"vectors": {"ema_decay": 2.0}}}, (), r"vectors-seed0: config\.ema_decay is 2"),
        ({"arms": {"vectors": {"model.representation": "six"}}}, (), "Unknown representation"),
        *(
            ({"arms": {"vectors": {}, "other": {option: value}}}, (), f"other-seed0: {said}")
            for option, value, said in (
                ("assign.positives", 12, r"config\.assign\.positives is 12"),
                ("pack.share", 2.0, r"config\.pack\.share is 2"),
                ("pack.tiles", (0,), r"config\.pack\.tiles is \(0,\)"),
                ("augment.flip", 2.0, r"config\.augment\.flip is 2"),
                ("best_metric", "nope/x", r"config\.best_metric is 'nope/x'"),
                ("class_names", ("a", "b"), r"config\.data\..* has the label"),
            )
        ),
        (
            {
                "arms": grid(
                    {
                        "model.representation": ("vectors", "sixd"),
                        "pose_loss.vectors": ("squared", "geodesic"),
                    }
                ),
                "reference": "vectors squared",
            },
            (),
            r"sixd_squared-seed0: pose_loss\.vectors means nothing .* 'sixd'",
        ),
        (
            {"detector_phases": ("phase1", "phase2", "phase3")},
            (),
            "detector_phases names 'phase3', which learns poses",
        ),
        (
            {"detector_phases": ("phase1", "phase2")},
            ("--config.phases.phase3.epochs=0",),
            "euler-seed0: Nothing to train",
        ),
        ({}, ("--config.seed=3",), "the seeds are those of the specification"),
        (
            {},
            ("--config.model.representation=sixd",),
            r"--config\.model\.representation would change nothing in 'euler'",
        ),
    ],
)
def test_what_would_end_a_grid_late_is_said_first(tmp_path, changes, overrides, said):
    usual = {"test_sets": {"demo": HeldOut(DEMO)}}
    with pytest.raises(BadInput, match=said):
        check_runs(ablation(**{**usual, **changes}), tmp_path, overrides)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("mesh.fsdp", 3, r"other-seed0: config\.mesh\.fsdp is 3: .* number of devices, 2"),
        ("phases.phase3.batch_size", 5, r"other-seed0: config\.phases\.phase3\.batch_size is 5"),
    ],
)
def test_what_the_devices_of_a_run_cannot_share_is_said_first(tmp_path, option, value, said):
    arms = {"vectors": {}, "other": {option: value}}
    with pytest.raises(BadInput, match=said):
        check_shares(ablation(arms=arms), tmp_path, (), 2)
    with pytest.raises(BadInput, match="euler-seed0"):  # an option of all runs
        check_shares(ablation(), tmp_path, ("--config.phases.phase3.batch_size=9",), 2)
    check_shares(ablation(), tmp_path, (), 2)


def test_the_devices_are_looked_at_by_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert devices.devices_of_a_run(1) == devices.Devices(3, 1)
    monkeypatch.setenv("JAX_PLATFORMS", "nothing")
    assert devices.devices_of_a_run(2) is None


def test_a_grid_on_a_slice_of_hosts_is_refused(monkeypatch, tmp_path, capsys):
    """JAX sees the chips of all hosts there, and a run of a single process cannot have them."""
    slice_of_hosts = devices.Devices(16, 4)
    monkeypatch.setattr(devices, "devices_of_a_run", lambda _: slice_of_hosts)
    monkeypatch.setattr(devices, "devices_here", lambda: slice_of_hosts)
    spec = written(tmp_path, test_sets={"demo": HeldOut(DEMO)})
    command = ["ablate", str(spec), "--workdir", str(tmp_path / "runs")]
    for more in ([], ["--run", "1"]):
        assert main([*command, *more]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "of 4 processes" in line
        assert "mtnet train --distributed" in line
    assert not (tmp_path / "runs").exists()


def test_a_good_grid_passes(tmp_path):
    good = ablation(
        test_sets={"demo": HeldOut(DEMO, group=r"\d")}, detector_phases=("phase1", "phase2")
    )
    check_runs(good, tmp_path, ["--config.model.width=0.5", "--config.phases.phase3.epochs=1"])


def test_the_command_says_it_before_it_begins(tmp_path, capsys):
    spec = written(tmp_path, test_sets={"demo": HeldOut("nowhere")})
    command = ["ablate", str(spec), "--workdir", str(tmp_path / "runs")]
    for more in ([], ["--run", "1"]):
        assert main([*command, *more]) == 1
        assert "test set 'demo': No record set at nowhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([*command, "--list"]) == 0


def test_runs_on_records_that_were_made_anew_are_not_compared(tmp_path):
    """A finished run is not begun again, so it does not look for itself."""
    grid = ablation(test_sets={"demo": HeldOut(DEMO)})
    run = tmp_path / "vectors-seed0"
    run.mkdir()
    name = next(iter(load_config("quickstart", ()).data))
    (run / "records.json").write_text(json.dumps({name: "of others"}))
    with pytest.raises(BadInput, match=rf"vectors-seed0 was trained on other .*data\.{name}"):
        check_runs(grid, tmp_path, ())
    chosen = load_config("quickstart", ()).data[name]
    same = RecordSet.open(chosen.path).identity(chosen.train_split, whole=False)
    (run / "records.json").write_text(json.dumps({name: same}))
    check_runs(grid, tmp_path, ())
