"""Products of float32 in evaluations are those of float32, whatever the device makes of others."""

import re
from functools import partial

import jax
import numpy as np
import pytest

from mtnet_jax.cpu import choice
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.network.folding import PLAIN, fold
from mtnet_jax.predict import inference
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.saved_config import read_config
from mtnet_jax.system import abstract_variables, build_system
from mtnet_jax.training.distribution import distribute
from mtnet_jax.training.evaluating import Evaluator
from tests.tiny import DEMO_RECORDS, tiny_config, write_random_weights

PRODUCTS = ("stablehlo.convolution", "stablehlo.dot_general")
HIGHEST = ["HIGHEST", "HIGHEST"]  # of both factors


class Stopped(Exception):
    pass


@pytest.fixture
def programs(monkeypatch):
    """What is compiled to predict, as other platforms than CPUs have it; none is run."""
    found = []

    def keep(function):
        found.append(function)

        def stop(*_):
            raise Stopped

        return stop

    monkeypatch.setattr(inference, "compile_for_prediction", keep)
    monkeypatch.setattr(choice, "folded_convolution", lambda _: PLAIN)
    return found


def precisions(program, config) -> list[list[str]]:
    """Of every product in the lowered program."""
    system = build_system(config)
    prepare = partial(fold, system.model, convolution=PLAIN)
    folded = jax.eval_shape(prepare, abstract_variables(system))
    size = config.input.size
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.uint8)
    text = jax.jit(program).lower(folded, images).as_text()
    lines = [line for line in text.splitlines() if any(f" {p}" in line for p in PRODUCTS)]
    assert len(lines) > 10
    return [re.findall(r"\b(?:DEFAULT|HIGH|HIGHEST)\b", line) for line in lines]


def test_evaluations_while_training(programs):
    config = tiny_config()
    Evaluator(build_system(config), config, distribute(config))
    assert all(found == HIGHEST for found in precisions(programs[-1], config))


def test_evaluations_of_weights_and_no_predictions(programs, tmp_path):
    write_random_weights(tmp_path)
    with pytest.raises(Stopped):
        predict_split(tmp_path, DEMO_RECORDS, "test", limit=1)
    config = read_config(tmp_path)
    assert all(found == HIGHEST for found in precisions(programs[-1], config))
    with pytest.raises(Stopped):
        Predictor(tmp_path, runtime="jax")(np.zeros((64, 64, 3), np.uint8))
    assert precisions(programs[-1], config).count(["DEFAULT", "DEFAULT"]) > 10
