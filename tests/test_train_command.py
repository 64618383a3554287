"""`mtnet train`: the options it names, the configuration it finds, and how it ends."""

import argparse
import importlib
import os
import signal

import numpy as np
import pytest

import mtnet_jax.training.loop
import mtnet_jax.training.meter
from mtnet_jax.cli import PREEMPTED, TERMINATED
from mtnet_jax.config import load_config
from mtnet_jax.errors import Preempted
from mtnet_jax.shipped import shipped_names
from tests.conftest import REPOSITORY

QUICKSTART = str(REPOSITORY / "configs" / "quickstart.py")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.model.widht=1", ("'widht'", '"width"', QUICKSTART)),
        ("--config.model.width.x=1", ("model.width.x",)),
        ("--config.model.width=abc", ("config.model.width", "abc")),
        ("--config.seed=1.5", ("config.seed", "1.5")),
        ("--config.seed", ("config.seed",)),
        ("--confg.seed=1", ("confg.seed",)),
        ("stray", ("stray",)),
        ("--config.data.demo.path=/nowhere", ("/nowhere", "mtnet data convert")),
    ],
)
def test_train_errors_name_the_option(fails, tmp_path, override, named):
    line = fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run", override)
    for word in named:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_train_without_its_configuration_file(fails, tmp_path):
    line = fails("train", "--config", tmp_path / "no.py", "--workdir", tmp_path / "run")
    assert str(tmp_path / "no.py") in line


def test_overrides_reach_training_with_their_types(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *call, **_: calls.append(call))
    overrides = [
        "--config.model.width=0.5",
        "--config.seed",
        "7",
        "--config.class_names=('head', 'hard hat')",
        "--config.phases.phase3.epochs=0.5",
    ]
    code, _, _ = run(
        "train", overrides[0], "--workdir", tmp_path, "--config", QUICKSTART, *overrides
    )
    assert code == 0
    ((config, workdir),) = calls
    assert workdir == tmp_path
    assert config.model.width == 0.5
    assert config.seed == 7
    assert config.class_names == ("head", "hard hat")
    assert config.phases.phase3.epochs == 0.5


def test_a_shipped_configuration_is_trained_by_name(run, fails, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *call, **_: calls.append(call))
    monkeypatch.chdir(tmp_path)
    code, _, _ = run("train", "--config", "small", "--workdir", tmp_path / "run")
    assert code == 0
    ((config, _),) = calls
    assert config.model.width == 0.25
    line = fails("train", "--config", "smal", "--workdir", tmp_path / "run")
    assert "smal" in line
    assert "small" in line


@pytest.mark.parametrize("name", shipped_names("configs"))
def test_the_configurations_load(name):
    config = load_config(name)
    assert config.phases


def test_diverged_training_is_one_line(fails, monkeypatch, tmp_path):
    """The error of the loop is for the user, though no ValueError."""
    meter = mtnet_jax.training.meter.Meter(8)
    phase = argparse.Namespace(name="phase1")
    position = mtnet_jax.training.loop.START
    log = argparse.Namespace(metrics=lambda *_: None)

    def diverge(*_, **__):
        meter.report(log, position, phase, {"loss": np.float32(np.nan)})
        meter.flush(log, phase)

    monkeypatch.setattr(mtnet_jax.training.loop, "train", diverge)
    line = fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    assert "loss is nan" in line


def test_a_preempted_run_ends_with_a_code_of_its_own(run, monkeypatch, tmp_path):
    def preempt(*_, **__):
        raise Preempted

    monkeypatch.setattr(mtnet_jax.training.loop, "train", preempt)
    code, _, err = run("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    assert code == PREEMPTED == 75
    assert err == ["mtnet train: saved and ended; the same command goes on"]


# --- several processes ---------------------------------------------------------------------------


def test_no_cluster_is_one_line(fails, monkeypatch, tmp_path):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    words = ("--config", QUICKSTART, "--workdir", tmp_path / "run", "--distributed")
    line = fails("train", *words)
    assert "coordinator_address" in line
    assert "--coordinator HOST:PORT --processes N --process I" in line


def test_processes_are_told_of_each_other_without_a_cluster_manager(run, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *call, **_: told.append(call))
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *_, **__: None)
    words = ("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    together = ("--coordinator", "host:1234", "--processes", "2", "--process", "0")
    assert run(*words, *together)[0] == 0
    assert told == [("host:1234", 2, 0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--coordinator", "host:1234"), "give all three"),
        (("--process", "0"), "give all three"),
        (("--coordinator", "h:1", "--processes", "2", "--process", "2"), "from 0 to 1"),
        (("--coordinator", "h", "--processes", "2", "--process", "1"), "HOST:PORT"),
    ],
)
def test_processes_that_cannot_be_are_named(fails, tmp_path, given, said):
    assert said in fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run", *given)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("train", "--config", QUICKSTART), PREEMPTED, "terminated; the same command goes on"),
        (("ablate", "representations"), PREEMPTED, "terminated; the same command goes on"),
        (("export", "--out", "out"), TERMINATED, "terminated"),
    ],
)
def test_sigterm_at_any_time_says_whether_the_same_command_goes_on(
    run, monkeypatch, tmp_path, words, code, said
):
    """As it comes to a command that is still starting, or waits for the runs of a grid."""
    module = importlib.import_module(f"mtnet_jax.cli.{words[0]}")
    with_parser = module.add_parser

    def add_parser(commands):
        with_parser(commands)
        ended = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        commands.choices[words[0]].set_defaults(run=ended)

    monkeypatch.setattr(module, "add_parser", add_parser)
    ended, _, err = run(*words, "--workdir", tmp_path / "run")
    assert (ended, err) == (code, [f"mtnet {words[0]}: {said}"])
