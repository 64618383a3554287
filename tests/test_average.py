"""The average of the weights through the phases of a run, beside a slow loop over its steps."""

import jax
import numpy as np

from mtnet_jax.checkpoints import Checkpoints
from mtnet_jax.training.loop import train
from tests.tiny import tiny_config

DECAY = 0.999


def expected(states, first):
    """The average that a phase leaves: e_t = d_t e_(t-1) + (1 - d_t) w_t, from what it began with.

    Args:
      states: variables after each step of the phase.
      first: those that it began with.
    """
    average = jax.tree.map(lambda x: x.astype(np.float64), first)
    for step, state in enumerate(states, start=1):
        decay = min(DECAY, step / (9 + step))
        average = jax.tree.map(lambda e, w, d=decay: d * e + (1 - d) * w, average, state)
    return average


def test_an_average_begins_anew_with_each_phase(monkeypatch, tmp_path):
    """The pose branch, frozen in the first, is noise there: the second forgets it at its start."""
    config = tiny_config()
    config.ema_decay, config.save_every_steps = DECAY, 1
    config.phases.a.epochs = 12 * 4 / 700
    saved, save = [], Checkpoints.save

    def keep(self, state, position):
        state_here = jax.device_get(state)
        saved.append((position.phase, state_here))
        save(self, state, position)

    monkeypatch.setattr(Checkpoints, "save", keep)
    returned = train(config, tmp_path)
    assert [phase for phase, _ in saved] == [0] * 12 + [1] * 3
    variables = [{"params": s.params, "batch_stats": s.batch_stats} for _, s in saved]
    average = saved[-1][1].ema
    assert int(average["count"]) == 3
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5),
        {name: average[name] for name in returned},
        expected(variables[12:], variables[11]),
    )
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(returned), {n: average[n] for n in returned}
    )
