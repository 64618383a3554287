"""The loop fetches data while the device computes; `wait_share` is how long that waits for them.

Time is a clock that the tests move, and the device's work an object that they finish: nothing here
depends on how fast the machine is.
"""

import jax
import numpy as np
import pytest

from mtnet_jax.cpu import choice
from mtnet_jax.run_metrics import read_metrics
from mtnet_jax.training import loop
from mtnet_jax.training import meter as meters
from mtnet_jax.training.loop import train
from tests.tiny import tiny_config


class Clock:
    """Stands in the place of `time`, and stands still but for `pass_by`."""

    def __init__(self):
        self._now = 100.0

    def perf_counter(self) -> float:
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += seconds


class Work:
    """A result that the device still works on, until somebody waits for it."""

    def __init__(self):
        self.done = False

    def is_ready(self) -> bool:
        return self.done

    def block_until_ready(self) -> "Work":
        self.done = True
        return self

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.zeros((), dtype)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    return clock


def one_phase(steps):
    config = tiny_config()
    config.phases = {"a": config.phases.b}
    config.phases.a.epochs = steps * 4 / 700
    config.save_every_steps = 100
    return config


def test_a_busy_device_does_not_wait(clock):
    meter, busy = meters.Meter(1), Work()
    with meter.waiting({"loss": busy}):
        clock.pass_by(0.25)
    assert meter._waited == 0
    busy.done = True
    with meter.waiting({"loss": busy}):
        clock.pass_by(0.25)
    assert meter._waited == 0.25


def test_slow_data_show_in_the_log(monkeypatch, tmp_path, clock):
    """A batch takes four seconds, a step one, so the device waits for four fifths of the time."""
    make, compile_step = loop.training_stream, loop.compile_step

    class Slow:
        def __init__(self, *arguments, **options):
            self._batches = make(*arguments, **options)

        def __next__(self):
            clock.pass_by(4.0)
            return next(self._batches)

        def __getattr__(self, name):
            return getattr(self._batches, name)

    def compile_timed_step(*arguments):
        step = compile_step(*arguments)

        def timed_step(state, batch):
            clock.pass_by(1.0)
            return jax.block_until_ready(step(state, batch))

        return timed_step

    monkeypatch.setattr(loop, "training_stream", Slow)
    monkeypatch.setattr(loop, "compile_step", compile_timed_step)
    config = one_phase(steps=12)
    config.log_every_steps = 4
    config.phases.a.warmup_steps = 8
    train(config, tmp_path)
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert len(lines) == 3
    np.testing.assert_allclose([line["wait_share"] for line in lines[1:]], 0.8)
    np.testing.assert_allclose([line["images_per_second"] for line in lines[1:]], 4 / 5)
    # Of the updates before, 3 and 7 of 8 were warm-up; the rate of the phase is 1e-3.
    rates = [line["learning_rate"] for line in lines]
    np.testing.assert_allclose(rates, [3 / 8 * 1e-3, 7 / 8 * 1e-3, 1e-3], rtol=1e-6)


@pytest.mark.parametrize("most", [1, 2])
def test_so_many_steps_are_in_flight_and_no_more(monkeypatch, tmp_path, most):
    """Each step that was started holds memory; the next batch is fetched while they compute."""
    monkeypatch.setattr(loop, "steps_in_flight", lambda: most)
    make, compile_step = loop.training_stream, loop.compile_step
    given, unfinished, fetching = [], [], []

    def still_computing():
        return sum(not work.is_ready() for work in given)

    class Watched:
        def __init__(self, *arguments, **options):
            self._batches = make(*arguments, **options)

        def __next__(self):
            fetching.append(still_computing())
            return next(self._batches)

        def __getattr__(self, name):
            return getattr(self._batches, name)

    def compile_unfinished_step(*arguments):
        step = compile_step(*arguments)

        def unfinished_step(state, batch):
            unfinished.append(still_computing())
            state, metrics = step(state, batch)
            given.append(Work())
            return state, {**metrics, "work": given[-1]}

        return unfinished_step

    monkeypatch.setattr(loop, "training_stream", Watched)
    monkeypatch.setattr(loop, "compile_step", compile_unfinished_step)
    config = one_phase(steps=8)
    config.log_every_steps = 100
    train(config, tmp_path)
    assert unfinished == [0] + [most - 1] * 7
    assert fetching == [min(step, most) for step in range(8)]


def test_a_cpu_has_one_step_in_flight():
    assert choice.steps_in_flight() == 1
