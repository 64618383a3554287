"""Is it the pose branch that cannot say where heads look, or what lies before it?

    python -m benchmarks.pose_features --config release_416 --weights weights/release

Keeps what the pyramid of a trained network holds round the cell that answers for each head of the
training stream, and trains small networks on it: on that cell alone, as the pose branch reads it;
with what the face branch reads there; on the 3x3 cells round it; with two hidden layers in place of
one. Heads of the last eighth of the stream test them; it draws from the same records, augmented
anew, which favours whatever can remember more. Where even so none is better than the first, a
larger branch has little to find in the features as they are. Options of the configuration:
--config.KEY=VALUE.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax.anchors import ANCHORS_PER_CELL, STRIDES
from mtnet_jax.config import load_config
from mtnet_jax.cpu.choice import fastest
from mtnet_jax.data.batches import truths_of
from mtnet_jax.data.mixture import open_sources
from mtnet_jax.data.stream import packer_of, training_stream
from mtnet_jax.network import normalise_images
from mtnet_jax.network.layers import LEAKY_SLOPE
from mtnet_jax.rotations import geodesic_degrees, nearest_rotation
from mtnet_jax.system import at_size, build_system
from mtnet_jax.targets import assign_anchors
from mtnet_jax.weights import load_weights

BATCH = 8  # images
HEADS = 256  # a step
CENTRE = 4  # of the nine cells
HELD_OUT = 1 / 8
DROPOUT, WEIGHT_DECAY, RATE = 0.1, 1e-2, 1.5e-3


class Kept(NamedTuple):
    """What was seen of n heads that one scale answers for.

    Attributes:
      cells: (n, 9, C) the cells round the head's centre, row by row: first the channels that the
        pose branch reads, then those that the face branch reads.
      anchors: (n,) which of the cell's three anchors answers.
      rotations: (n, 3, 3) of the truth.
    """

    cells: np.ndarray
    anchors: np.ndarray
    rotations: np.ndarray


def look(config: Any, weights: Path, images: int) -> tuple[list[Kept], list[int]]:
    """What a network sees of the heads of a training stream.

    Returns:
      For strides 32, 16, 8 what was kept, and the number of channels that the pose branch reads.
    """
    trained, variables = load_weights(weights)
    # Anchors are written for an input of 416 and keep their pixels: those of the weights count.
    config.input.anchors = at_size(trained, config.input.size).input.anchors
    config.model.update(trained.model)
    system = build_system(config)
    model = fastest(system.model)
    variables = {kind: dict(trees) for kind, trees in variables.items()}
    read: list[int] = []

    @jax.jit
    def cells_of(batch: Any) -> tuple[list[jax.Array], Any]:
        truths = truths_of(batch)
        assignment = assign_anchors(truths, system.grid)
        index = assignment.flat_index[..., 0]
        first = jnp.asarray(system.grid.level_offset)
        level = jnp.searchsorted(first[1:], index, side="right")
        cell, anchor = jnp.divmod(index - first[level], ANCHORS_PER_CELL)
        scales = model.apply(variables, normalise_images(batch["image"]), method=_pyramid)
        read[:] = [scale.pose_BxKxKxC.shape[-1] for scale in scales]
        image = jnp.arange(len(index))[:, None]
        found = []
        for scale, stride in zip(scales, STRIDES, strict=True):
            row, column = jnp.divmod(cell, system.grid.size // stride)
            both = jnp.concatenate([scale.pose_BxKxKxC, scale.face_BxKxKxC], axis=-1)
            padded = jnp.pad(both, ((0, 0), (1, 1), (1, 1), (0, 0)))
            nine = [padded[image, row + i, column + j] for i in range(3) for j in range(3)]
            found.append(jnp.stack(nine, axis=2))
        posed = assignment.positive[..., 0] & truths.has_pose
        return found, (level, anchor, posed, truths.rotations)

    sources, _ = open_sources(config)
    packer = packer_of(config, sources)
    batches = training_stream(config, sources, batch_size=BATCH, seed=config.seed, packer=packer)
    parts: list[list[Kept]] = [[] for _ in STRIDES]
    for _ in range(images // BATCH):
        found, (level, anchor, posed, rotations) = jax.device_get(cells_of(next(batches)))
        for number, cells in enumerate(found):
            mine = posed & (level == number)
            half = cells[mine].astype(np.float16)
            parts[number].append(Kept(half, anchor[mine], rotations[mine]))
    return [Kept(*map(np.concatenate, zip(*part, strict=True))) for part in parts], read


def _pyramid(model: nn.Module, images: jax.Array) -> Any:
    return model.neck(model.backbone(images, train=False), train=False)


class Probe(nn.Module):
    """Hidden layers with LeakyReLU, then the nine numbers of a rotation for each anchor."""

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array, anchors: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dropout(DROPOUT, deterministic=not train)(x)
        for features in self.hidden:
            x = nn.leaky_relu(nn.Dense(features)(x), LEAKY_SLOPE)
        each = nn.Dense(ANCHORS_PER_CELL * 9)(x).reshape(-1, ANCHORS_PER_CELL, 9)
        return each[jnp.arange(len(each)), anchors]


def train_probe(
    hidden: Sequence[int], x: np.ndarray, heads: Kept, epochs: int
) -> tuple[float, float]:
    """Geodesic error in degrees on heads that trained a probe, and on the last ones, held out."""
    last = int(len(x) * (1 - HELD_OUT))
    size = min(HEADS, last)
    steps = last // size
    inputs, anchors = jnp.asarray(x), jnp.asarray(heads.anchors)
    truth = jnp.asarray(heads.rotations).reshape(-1, 9)
    probe = Probe(hidden)
    params = probe.init(jax.random.key(0), inputs[:1], anchors[:1], train=False)
    rate = optax.cosine_decay_schedule(RATE, steps * epochs)
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)

    def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
        params, moments, key = state
        key, dropping = jax.random.split(key)

        def loss(params: Any) -> jax.Array:
            said = probe.apply(
                params, inputs[rows], anchors[rows], train=True, rngs={"dropout": dropping}
            )
            return jnp.sqrt(((said - truth[rows]) ** 2).sum(-1) + 1e-6).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return (optax.apply_updates(params, updates), moments, key), None

    epoch = jax.jit(lambda state, order: jax.lax.scan(step, state, order)[0])
    state = (params, optimizer.init(params), jax.random.key(1))
    for number in range(epochs):
        order = jax.random.permutation(jax.random.key(number), last)[: steps * size]
        state = epoch(state, order.reshape(steps, size))
    said = jax.jit(lambda p: probe.apply(p, inputs, anchors, train=False))(state[0])
    found = nearest_rotation(np.asarray(said, np.float64).reshape(-1, 3, 3))
    errors = geodesic_degrees(found, np.asarray(heads.rotations, np.float64))
    return float(errors[:last].mean()), float(errors[last:].mean())


def main() -> None:
    """Looks, trains the probes of each scale, and prints their errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, metavar="NAME", help="its records and stream")
    parser.add_argument("--weights", required=True, type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=3200, help=f"at least {BATCH}")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=512, help="width of a hidden layer")
    parser.add_argument("--least", type=int, default=2000, help="heads of a scale that is tried")
    args, overrides = parser.parse_known_args()
    kept, read = look(load_config(args.config, overrides), args.weights, args.images)
    for stride, heads, channels in zip(STRIDES, kept, read, strict=True):
        if len(heads.anchors) < args.least:
            print(f"stride {stride}: {len(heads.anchors)} heads, fewer than {args.least}")
            continue
        cells = heads.cells.astype(np.float32)
        cells = (cells - cells.mean((0, 1))) / (cells.std((0, 1)) + 1e-3)
        arms = {
            "the cell": cells[:, CENTRE, :channels],
            "and what the face branch reads": cells[:, CENTRE],
            "3x3 cells": cells[..., :channels].reshape(len(cells), -1),
            "3x3 cells, both": cells.reshape(len(cells), -1),
        }
        print(f"stride {stride}: {len(cells)} heads, degrees on trained and held-out ones")
        for name, x in arms.items():
            for layers in (1, 2):
                trained, held_out = train_probe([args.hidden] * layers, x, heads, args.epochs)
                print(f"  {name}, {layers} hidden: {trained:.1f} {held_out:.1f}", flush=True)


if __name__ == "__main__":
    main()
