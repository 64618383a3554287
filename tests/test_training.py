"""The training loop: resuming, work directories, logs, and what it refuses."""

import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtnet_jax.checkpoints import Checkpoints
from mtnet_jax.config import record_set
from mtnet_jax.run_metrics import read_metrics
from mtnet_jax.saved_config import read_config
from mtnet_jax.system import build_system
from mtnet_jax.training import loop
from mtnet_jax.training.config_changes import differences
from mtnet_jax.training.distribution import distribute
from mtnet_jax.training.loop import TrainingDiverged, train
from mtnet_jax.training.starting import initial_variables, start_from
from mtnet_jax.weights import export_weights, load_weights
from tests.conftest import REPOSITORY
from tests.tiny import tiny_config


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def compilations():
    """Names of the compiled programs of `whole_run`, in their order."""
    return []


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, compilations):
    """An uninterrupted run: its work directory and variables."""
    workdir = tmp_path_factory.mktemp("whole")

    def note(name, _, **details):
        if name == "/jax/core/compile/backend_compile_duration":
            compilations.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    variables = train(tiny_config(), workdir)
    jax.monitoring.unregister_event_duration_listener(note)
    return workdir, variables


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def interrupt_after_save(monkeypatch, step):
    """Stops training right after the checkpoint of a step was written."""
    save = Checkpoints.save

    def save_then_stop(self, state, position):
        save(self, state, position)
        if position.total_step == step:
            raise Interrupted

    monkeypatch.setattr(Checkpoints, "save", save_then_stop)


def test_a_phase_compiles_its_step_once(whole_run, compilations):
    phases = {line["phase"] for line in read_metrics(whole_run[0])}
    assert compilations.count("jit(train_step)") == len(phases) == 2


@pytest.mark.parametrize("step", [2, 3, 4], ids=["in phase a", "at the border", "in phase b"])
def test_an_interrupted_run_ends_with_the_same_parameters(monkeypatch, tmp_path, whole_run, step):
    with monkeypatch.context() as patch:
        interrupt_after_save(patch, step)
        with pytest.raises(Interrupted):
            train(tiny_config(), tmp_path)
    resumed = train(tiny_config(), tmp_path)
    assert_same(resumed, whole_run[1])
    steps = [line["step"] for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("steps", [1, 9], ids=["longer", "shorter"])
def test_a_phase_of_another_length_ends_as_one_that_began_with_it(
    monkeypatch, tmp_path, whole_run, steps
):
    config = tiny_config()
    config.phases.b.epochs = steps * 4 / 700
    with monkeypatch.context() as patch:
        interrupt_after_save(patch, 4)  # after the first step of phase b
        with pytest.raises(Interrupted):
            train(config, tmp_path)
    assert_same(train(tiny_config(), tmp_path), whole_run[1])
    assert read_metrics(tmp_path)[-1]["step"] == 6


def test_a_finished_run_is_read_and_not_trained_again(monkeypatch, whole_run):
    workdir, variables = whole_run

    def no_step(*_):
        raise AssertionError("a finished run took another step")

    monkeypatch.setattr(loop, "make_train_step", lambda *_, **__: no_step)
    assert_same(train(tiny_config(), workdir), variables)


def test_logs_and_configuration_of_a_run(whole_run):
    workdir, _ = whole_run
    assert differences(read_config(workdir), tiny_config()) == {}
    lines = read_metrics(workdir)
    train_lines = [line for line in lines if line["kind"] == "train"]
    assert [line["phase"] for line in train_lines] == ["a"] * 3 + ["b"] * 3
    for name in ("loss", "xy", "wh", "obj", "cls", "pose", "gradient_norm", "wait_share"):
        assert all(np.isfinite(line[name]) for line in train_lines)
    assert {line["kind"] for line in lines} == {"train", "eval/demo"}
    assert list((workdir / "tensorboard").iterdir())


def test_another_configuration_in_the_same_directory_is_refused(whole_run):
    config = tiny_config()
    config.phases.b.learning_rate = 5e-4
    with pytest.raises(
        ValueError, match=r"differ: phases\.b\.learning_rate \(0\.001 there, 0\.0005 here\)\."
    ):
        train(config, whole_run[0])


def test_weights_are_exported_and_read_back(whole_run, tmp_path):
    workdir, variables = whole_run
    export_weights(workdir, tmp_path / "full", half=False)
    export_weights(workdir, tmp_path / "half", half=True)
    assert_same(load_weights(tmp_path / "full")[1], dict(variables))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        load_weights(tmp_path / "half")[1],
        dict(variables),
    )


def test_a_run_starts_from_the_weights_of_another(whole_run, tmp_path):
    workdir, variables = whole_run
    config = tiny_config()
    config.init.weights = str(workdir)
    config.phases = ConfigDict({"only": config.phases.a.copy_and_resolve_references()})
    started = train(config, tmp_path)
    assert_same(started["params"]["backbone"], variables["params"]["backbone"])  # frozen in phase a


def test_a_group_of_another_shape_starts_fresh(whole_run, tmp_path, capsys):
    workdir, variables = whole_run
    config = tiny_config()
    config.model.representation = "sixd"
    config.init.weights = str(workdir)
    config.phases = ConfigDict({"only": config.phases.a.copy_and_resolve_references()})
    started = train(config, tmp_path / "sixd")
    assert_same(started["params"]["neck"], variables["params"]["neck"])  # frozen in phase a
    assert "pose fresh" in capsys.readouterr().out


def test_a_larger_pose_branch_begins_as_the_smaller_one_was(whole_run, capsys):
    """How networks grow: test_growing.py."""
    workdir, variables = whole_run
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    config = tiny_config()
    before = jax.jit(build_system(config).model.apply)(dict(variables), images)
    config.init.weights = str(workdir)
    config.model.update(pose_width=0.5, pose_blocks=1)
    system = build_system(config)
    started = initial_variables(system, config, distribute(config))
    said = f"from {workdir}: backbone, neck, face as they are; pose in a larger network\n"
    assert said in capsys.readouterr().out
    for a, b in zip(before, jax.jit(system.model.apply)(started, images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_reads_a_fresh_backbone_does_not_grow(whole_run, capsys):
    config = tiny_config()
    config.init.weights = str(whole_run[0])
    config.model.update(width=0.1)
    wide = build_system(config)
    variables = initial_variables(wide, config, distribute(config))
    assert "backbone, neck, face, pose in a larger network" in capsys.readouterr().out
    fresh = jax.tree.map(np.asarray, dict(variables))
    smaller = {kind: dict(tree) for kind, tree in load_weights(whole_run[0])[1].items()}
    smaller["params"]["backbone"] = {"another": np.zeros(3)}
    _, said = start_from(smaller, fresh)
    assert said == {"fresh": ["backbone", "neck", "face", "pose"]}


def test_a_diverging_loss_stops_with_the_cure(tmp_path):
    config = tiny_config()
    config.phases.a.learning_rate = 1e30
    with pytest.raises(TrainingDiverged, match=r"phases\.a\.learning_rate"):
        train(config, tmp_path)


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    config = tiny_config()
    config.data = ConfigDict()
    with pytest.raises(ValueError, match="Nothing to train on"):
        train(config, tmp_path / "run")
    config.data.lost = record_set("no/such/records")
    with pytest.raises(FileNotFoundError, match="no/such/records"):
        train(config, tmp_path / "run")
    for section, option, value in (
        ("model", "version", "v9"),
        ("model", "dtype", "float16"),
        ("model", "representation", "axis_angle"),
        ("augment", "flip", 2.0),
        ("input", "size", 100),
    ):
        config = tiny_config()
        config[section][option] = value
        with pytest.raises(ValueError, match=str(value)):
            train(config, tmp_path / "run")
    config = tiny_config()
    config.data.demo.train_split = "validation"
    with pytest.raises(ValueError, match="has no split 'validation': it has"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_parameters(tmp_path, whole_run):
    program = (
        "from mtnet_jax.training.loop import train; from tests.tiny import tiny_config; "
        f"train(tiny_config(), {str(tmp_path)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while len(read_metrics(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_same(train(tiny_config(), tmp_path), whole_run[1])


def test_reading_weights_leaves_a_checkpoint_that_is_being_written_alone(whole_run):
    workdir, variables = whole_run
    writing = workdir / "checkpoints" / "99.orbax-checkpoint-tmp"
    writing.mkdir()
    assert_same(load_weights(workdir)[1], dict(variables))
    assert writing.is_dir()
    writing.rmdir()


def test_a_work_directory_without_checkpoints_is_named(whole_run, tmp_path):
    (tmp_path / "config.json").write_text((whole_run[0] / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="nothing was trained there yet"):
        load_weights(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
