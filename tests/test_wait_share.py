"""The loop runs one step ahead of the device; `wait_share` is how long that waits for data."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.training import loop
from mtnet_jax.training import meter as meters
from mtnet_jax.training.log import read_metrics
from mtnet_jax.training.loop import train
from tests.tiny import tiny_config


def work(x):
    """Keeps the device busy for some time."""
    return jax.lax.fori_loop(0, 20, lambda _, y: y @ x, x)


def one_phase(steps):
    config = tiny_config()
    config.phases = {"a": config.phases.b}
    config.phases.a.epochs = steps * 4 / 700
    config.save_every_steps = 100
    return config


def test_a_busy_device_does_not_wait():
    """The loop waits a second time while the device still works, and once when it is done."""

    x = jnp.eye(1200)
    compiled = jax.jit(work).lower(x).compile()
    meter = meters.Meter(1)
    busy = compiled(x)
    with meter.waiting({"loss": busy}):
        time.sleep(0.01)
    assert not busy.is_ready()  # else the machine is too fast for this test
    assert meter._waited == 0
    jax.block_until_ready(busy)
    with meter.waiting({"loss": busy}):
        time.sleep(0.05)
    assert meter._waited == pytest.approx(0.05, abs=0.04)


def test_slow_data_show_in_the_log(monkeypatch, tmp_path):
    make = loop.training_batches

    class Slow:
        def __init__(self, *arguments, **options):
            self._batches = make(*arguments, **options)

        def __next__(self):
            time.sleep(0.5)
            return next(self._batches)

        def __getattr__(self, name):
            return getattr(self._batches, name)

    monkeypatch.setattr(loop, "training_batches", Slow)
    config = one_phase(steps=12)
    config.log_every_steps = 4
    train(config, tmp_path)
    shares = [line["wait_share"] for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert len(shares) == 3
    assert 0.6 < np.median(shares[1:]) <= 1


def test_the_loop_is_one_step_ahead(monkeypatch, tmp_path):
    """Not more: each step that was started holds memory."""
    x = jnp.eye(1200)
    slow = jax.jit(lambda x: work(x).sum())
    slow(x).block_until_ready()
    compile_step, given, unfinished = loop.compile_step, [], []

    def compile_slow_step(*arguments):
        step = compile_step(*arguments)

        def slow_step(state, batch):
            unfinished.append(sum(not done.is_ready() for done in given))
            state, metrics = step(state, batch)
            given.append(slow(x))
            return state, {**metrics, "work": given[-1]}

        return slow_step

    monkeypatch.setattr(loop, "compile_step", compile_slow_step)
    config = one_phase(steps=8)
    config.log_every_steps = 100
    train(config, tmp_path)
    assert len(unfinished) == 8
    assert max(unfinished) == loop.STEPS_IN_FLIGHT - 1
