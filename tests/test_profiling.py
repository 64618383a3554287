"""A trace of some steps, read as what it is."""

import gzip
import json

import jax
import jax.numpy as jnp

from mtnet_jax.training.profiling import FIRST, Profile


class Said:
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def run(folder, steps, profiled, **options):
    @jax.jit
    def train_step(x):
        return jnp.tanh(x @ x)

    x, log = jnp.eye(8), Said()
    with Profile(folder, profiled, **options) as profile:
        for _ in range(steps):
            x = train_step(x)
            profile.step(x, log)
    log.say(profile.shortfall())
    return [line for line in log.lines if line]


def traced(folder) -> int:
    """Calls of the step in the one trace that lies there."""
    (file,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    calls = [event for event in events if event.get("name") == "PjitFunction(train_step)"]
    ends = [event["ts"] + event["dur"] for event in calls]
    # JAX notes a call twice, one within the other.
    return sum(all(end <= event["ts"] for end in ends[:i]) for i, event in enumerate(calls))


def test_so_many_steps_are_traced(tmp_path):
    (line,) = run(tmp_path, FIRST + 5, 2)
    assert line == f"profile of 2 steps: {tmp_path / 'profile'}"
    assert traced(tmp_path) == 2


def test_a_run_that_ends_before_leaves_a_whole_trace(tmp_path):
    (line,) = run(tmp_path, FIRST + 1, 50)
    assert line.startswith("WARNING: --profile 50 needs 53 steps, 3 of them before the trace, and ")
    assert "this start made 4" in line
    assert traced(tmp_path) == 1


def test_a_later_part_of_a_run_is_traced(tmp_path):
    said = run(tmp_path, 9, 2, after=8)
    assert said[-1].startswith("WARNING: --profile 2 needs 10 steps, 8 of them before the trace")
    assert traced(tmp_path) == 1
    (line,) = run(tmp_path / "whole", 11, 2, after=8)
    assert line.startswith("profile of 2 steps")
    assert traced(tmp_path / "whole") == 2


def test_none_is_asked_for(tmp_path):
    assert run(tmp_path, FIRST + 5, 0) == []
    assert not list(tmp_path.iterdir())
