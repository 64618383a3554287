"""What each of the CPU's own ways gains (`mtnet_jax/cpu`): all of them, and all but one.

    python -m benchmarks.cpu_tricks train --width 0.25 --size 224 --batch 8
    python -m benchmarks.cpu_tricks predict --width 0.25 --size 416

The first line is what people get; each line below does without one thing, so its ratio is what
that thing gains. `train` runs four steps at a time, as the training loop does; `predict` is the
folded network by JAX. Each line is a process of its own.
"""

import argparse
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.timing import Contender, measure, table, write_json
from benchmarks.train_step import Run, prepare_step

STEPS = 4  # of a turn


def train(width: float, size: int, batch: int, without: str = "") -> Run:
    """Four training steps; all that `mtnet train` does for CPUs, but for what is named."""
    import jax

    from mtnet_jax.cpu import choice
    from mtnet_jax.cpu.allocator import keep_large_buffers
    from mtnet_jax.network.normalisation import batch_norm_leaky

    if without != "the allocator's settings":
        keep_large_buffers()
    with ExitStack() as changed:
        if without == "the compiler's options":
            changed.enter_context(mock.patch.object(choice, "training_options", dict))
        if without == "the normalisation":
            plain = mock.patch.object(choice, "lean_batch_norm_leaky", batch_norm_leaky)
            changed.enter_context(plain)
        step, state, data = prepare_step(width, size, batch)[:3]
    most = 2 if without == "waiting for each step" else choice.steps_in_flight()

    def run() -> None:
        nonlocal state
        in_flight: deque[Any] = deque()
        for _ in range(STEPS):
            if len(in_flight) == most:
                jax.block_until_ready(in_flight.popleft())
            state, metrics = step(state, data)
            in_flight.append(metrics)
        jax.block_until_ready((state, list(in_flight)))

    return run, {}


def predict(width: float, size: int, without: str = "") -> Run:
    """The folded network on one image; all that JAX does on CPUs, but for what is named."""
    import jax

    from benchmarks.predict import network_alone
    from mtnet_jax.cpu import choice

    beyond = 10**9  # more channels, or weights of a tap, than there are
    with ExitStack() as changed:
        if without == "Winograd":
            for name in ("LEAST_WINOGRAD_CHANNELS", "LEAST_WINOGRAD_CHANNELS_BESIDE_ONEDNN"):
                changed.enter_context(mock.patch.object(choice, name, beyond))
        if without == "XLA's convolution for wide kernels":
            changed.enter_context(mock.patch.object(choice, "MOST_WEIGHTS_OF_A_TAP", beyond))
        if without == "the compiler's options":
            changed.enter_context(mock.patch.object(choice, "prediction_options", dict))
        run, facts = network_alone(weights=None, width=width, size=size)
        jax.block_until_ready(run())  # compiles
    return run, facts


WAYS: dict[str, tuple[Callable[..., Run], tuple[str, ...]]] = {
    "train": (
        train,
        (
            "the normalisation",
            "the compiler's options",
            "the allocator's settings",
            "waiting for each step",
        ),
    ),
    "predict": (
        predict,
        ("Winograd", "XLA's convolution for wide kernels", "the compiler's options"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--batch", type=int, default=8, help="of training")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample")
    args = parser.parse_args()

    make, tricks = WAYS[args.way]
    shape: dict[str, Any] = {"width": args.width, "size": args.size}
    if args.way == "train":
        shape["batch"] = args.batch
    contenders = {"all": Contender(make, shape)}
    contenders["without oneDNN"] = Contender(make, shape, {"MTNET_ONEDNN": "0"})
    for trick in tricks:
        contenders[f"without {trick}"] = Contender(make, {**shape, "without": trick})
    results = measure(contenders, turns=args.turns, runs=1 if args.way == "train" else 5)
    print(f"{args.way}: {shape}")
    print(table(results))
    if args.json:
        write_json(args.json, results, shape)


if __name__ == "__main__":
    main()
