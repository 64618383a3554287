"""An exponential moving average of the weights, which is what is evaluated and exported.

After step t of a phase it is e_t = e_(t-1) + (1 - d_t) (w_t - e_(t-1)),
d_t = min(decay, t / (9 + t)): at first it follows the weights closely, so what the phase began with
is soon forgotten (as `num_updates` of TensorFlow's ExponentialMovingAverage does): of a group that
first learns in this phase it is noise. BatchNorm's statistics are averaged in the same way: they
belong to the weights.
"""

from typing import Any

import jax
import jax.numpy as jnp

Average = dict[str, Any]  # {"count", "params", "batch_stats"}


def start(variables: dict[str, Any]) -> Average:
    """The average before the first step."""
    # Copies: the state's memory is given to the next one, and one array cannot be given twice.
    return {"count": jnp.zeros((), jnp.int32), **jax.tree.map(jnp.copy, variables)}


def update(average: Average, variables: dict[str, Any], decay: float) -> Average:
    """The average after a step that left these variables; what never changes stays bit for bit."""
    count = average["count"] + 1
    rate = 1 - jnp.minimum(decay, count / (9 + count))
    moved = jax.tree.map(
        lambda old, new: old + rate * (new - old), weights_of(average), dict(variables)
    )
    return {"count": count, **moved}


def weights_of(average: Average) -> dict[str, Any]:
    """The averaged {"params", "batch_stats"}."""
    return {name: average[name] for name in ("params", "batch_stats")}
