"""The best checkpoint by a named metric: kept beside the last ones, and what --step means."""

from unittest import mock

import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.errors import BadInput
from mtnet_jax.training.evaluating import Evaluator
from mtnet_jax.training.loop import train
from mtnet_jax.weights import load_step, load_weights
from tests.tiny import tiny_config

ERRORS = [70.0, 50.0, 20.0, 60.0, 20.0, 30.0]  # after each step, as if the evaluation had said so
BEST, LAST = 3, 6


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Six steps, each of which is evaluated and saved; one checkpoint is kept."""
    folder = tmp_path_factory.mktemp("best") / "run"
    config = tiny_config()
    del config.phases.a
    config.phases.b.epochs = len(ERRORS) * 4 / 700
    config.save_every_steps, config.keep_checkpoints = 1, 1
    config.eval_every_epochs = 4 / 700
    config.data.demo.eval_split = "test"
    config.best_metric = "demo/geodesic_mean"
    values = [{"geodesic_mean": error} for error in ERRORS]
    with mock.patch.object(Evaluator, "__call__", side_effect=values):
        train(config, folder)
    return folder


def same(a, b) -> bool:
    a, b = (variables["params"]["face"] for variables in (a, b))
    return all(np.array_equal(a[name]["bias"], b[name]["bias"]) for name in a)


def test_the_best_is_kept_beside_the_last(workdir):
    there = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    assert there == {BEST, LAST}
    _, of_best = load_weights(workdir, "best")
    assert same(of_best, load_weights(workdir, BEST)[1])
    assert not same(of_best, load_weights(workdir)[1])
    assert same(load_weights(workdir, LAST)[1], load_weights(workdir, "last")[1])
    numbers = [load_step(workdir, step)[2] for step in ("best", "last", BEST)]
    assert numbers == [BEST, LAST, BEST]


def test_export_takes_the_step_that_is_asked_for(workdir, tmp_path):
    for step in ("best", "last"):
        out = tmp_path / step
        command = ["export", "--workdir", str(workdir), "--step", step, "--out", str(out)]
        assert main(command) == 0
        assert same(load_weights(out)[1], load_weights(workdir, step)[1])


def test_steps_that_are_not_there_are_said(workdir, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=f"there are {BEST}, {LAST}"):
        load_weights(workdir, 999)
    exported = tmp_path / "out"
    assert main(["export", "--workdir", str(workdir), "--out", str(exported)]) == 0
    with pytest.raises(BadInput, match="one state"):
        load_weights(exported, "best")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["eval", "--weights", str(workdir), "--data", "x", "--step", "first"])
    assert "not the number of a step, last or best" in capsys.readouterr().err
