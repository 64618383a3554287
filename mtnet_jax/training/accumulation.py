"""Gradient accumulation: a large batch as several small ones, one after another, one update.

Each part is a batch of its own to BatchNorm and to the divisors of the loss, as it is wherever
gradients are accumulated: the numbers are those of parts trained at the same parameters, not quite
those of the whole batch at once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# (params, batch_stats, batch) -> ((loss, (batch_stats, parts of the loss)), gradients)
GradientOf = Callable[[Any, Any, Mapping[str, jax.Array]], tuple[tuple[Any, tuple[Any, Any]], Any]]


def accumulated(gradient_of: GradientOf, parts: int) -> GradientOf:
    """The same function, of a batch in so many parts.

    Loss, parts of the loss and gradients are means over the parts, counts among them too; the
    statistics of BatchNorm go from one part to the next.
    """
    if parts == 1:
        return gradient_of

    def of_parts(params: Any, batch_stats: Any, batch: Mapping[str, jax.Array]) -> Any:
        def split(x: jax.Array) -> jax.Array:
            # Every part takes its share of each device's images: none has to move.
            return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

        def add(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
            batch_stats, sums = carry
            (loss, (batch_stats, losses)), gradients = gradient_of(params, batch_stats, part)
            return (batch_stats, jax.tree.map(jnp.add, sums, (loss, losses, gradients))), None

        split_batch = jax.tree.map(split, dict(batch))
        first = jax.tree.map(lambda x: x[0], split_batch)
        (loss, (_, losses)), gradients = jax.eval_shape(gradient_of, params, batch_stats, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, losses, gradients))
        (batch_stats, sums), _ = jax.lax.scan(add, (batch_stats, zeros), split_batch)
        loss, losses, gradients = jax.tree.map(lambda x: x / parts, sums)
        return (loss, (batch_stats, losses)), gradients

    return of_parts
