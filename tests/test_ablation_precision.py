"""The average precision of an ablation's bootstrap is that of the figures beside it."""

import numpy as np
import pytest

from mtnet_jax.ablation.comparing import average_precision
from mtnet_jax.ablation.measure import SETTINGS
from mtnet_jax.evaluation.figures import interpolated_precision
from mtnet_jax.evaluation.metrics import summarise
from tests.ablations import measured


def test_average_precision_of_resampled_images_is_that_of_a_set_made_of_them():
    run = measured(5, seed=3, images=30, missed=12)
    counts = np.random.default_rng(0).integers(0, 3, (5, 30)).astype(float)
    found = average_precision(run, counts, np.arange(30))
    for drawn, value in zip(counts.astype(int), found, strict=True):
        times = drawn[run.image_of_prediction]
        scores = np.repeat(run.state.scores, times)
        outcomes = np.repeat(run.state.outcomes[:, 0], times)
        precision = interpolated_precision(scores, outcomes, int(drawn[run.image_of_row].sum()))
        assert value == pytest.approx(np.mean(precision), abs=1e-9)


def test_average_precision_is_the_figure_at_every_recall():
    # 7 of 20 is below 0.35, the 36th point of recall, by the last bit of it.
    for missed in range(20):
        run = measured(5, seed=3, images=20, missed=missed)
        (value,) = average_precision(run, np.ones((1, 20)), np.arange(20))
        assert value == pytest.approx(summarise(run.state, SETTINGS)["detection"]["ap50"], abs=1e-9)


def test_average_precision_has_ties_and_classes_as_the_figure_beside_it():
    rng = np.random.default_rng(0)
    run = measured(5, seed=3, images=30, missed=12)
    state = run.state
    labels = rng.integers(0, 2, 30)
    rows = state.rows.copy()
    rows["label"] = labels[run.image_of_row]
    state = state._replace(
        rows=rows,
        labels=labels[run.image_of_prediction],
        scores=np.round(state.scores, 1),  # many are equal
        outcomes=state.outcomes[rng.permutation(len(state.scores))],
    )
    (value,) = average_precision(run._replace(state=state), np.ones((1, 30)), np.arange(30))
    assert value == pytest.approx(summarise(state, SETTINGS)["detection"]["ap50"], abs=1e-9)
