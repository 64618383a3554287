"""Gradient accumulation and the average of the weights, beside loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.training import ema
from mtnet_jax.training.accumulation import accumulated


def loss_of(params, batch_stats, batch):
    """Squared error of a linear model, over the sum of weights; a running mean of the inputs."""
    error = batch["x"] @ params["w"] - batch["y"]
    count = jnp.maximum(batch["weight"].sum(), 1.0)
    loss = (batch["weight"] * error**2).sum() / count
    mean = 0.9 * batch_stats["mean"] + 0.1 * batch["x"].mean(axis=0)
    return loss, ({"mean": mean}, {"count": count})


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(12, 3)).astype(np.float32),
        "y": rng.normal(size=12).astype(np.float32),
        "weight": rng.integers(0, 2, 12).astype(np.float32),
    }
    return {"w": np.ones(3, np.float32)}, {"mean": np.zeros(3, np.float32)}, batch


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_are_batches_whose_gradients_are_averaged(problem, parts):
    params, stats, batch = problem
    gradient_of = accumulated(jax.value_and_grad(loss_of, has_aux=True), parts)
    (loss, (found, counts)), gradients = jax.jit(gradient_of)(params, stats, batch)

    losses, expected, mean, numbers = [], [], stats["mean"].astype(np.float64), []
    for part in range(parts):
        x, y, weight = (
            batch[name][part::parts].astype(np.float64) for name in ("x", "y", "weight")
        )
        error = x @ params["w"] - y
        numbers.append(max(weight.sum(), 1))
        losses.append((weight * error**2).sum() / numbers[-1])
        expected.append(2 * (weight * error) @ x / numbers[-1])
        mean = 0.9 * mean + 0.1 * x.mean(axis=0)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(gradients["w"], np.mean(expected, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(counts["count"], np.mean(numbers), rtol=1e-6)


def test_the_average_follows_the_weights():
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(40, 5)).astype(np.float32)
    average = ema.start({"params": moves[0], "batch_stats": moves[0]})
    expected = moves[0].astype(np.float64)
    update = jax.jit(ema.update, static_argnums=2)
    for step, move in enumerate(moves[1:], start=1):
        average = update(average, {"params": move, "batch_stats": -move}, 0.75)
        decay = min(0.75, step / (9 + step))
        expected = decay * expected + (1 - decay) * move
        np.testing.assert_allclose(average["params"], expected, rtol=1e-4, atol=1e-5)
    assert int(average["count"]) == 39
    assert ema.weights_of(average).keys() == {"params", "batch_stats"}


def test_what_never_changes_stays_bit_for_bit():
    frozen = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    variables = {"params": frozen, "batch_stats": frozen}
    average = ema.start(variables)
    for _ in range(3):
        average = ema.update(average, variables, 0.999)
    np.testing.assert_array_equal(average["params"], frozen)
