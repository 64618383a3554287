"""One training step (forward, loss, backward, Adam) beside the same network and step in PyTorch.

    python -m benchmarks.train_step --width 0.25 --size 224 --batch 8

The contenders take turns in one process, so that other load on the machine meets them alike; ratios
are of the medians. "jax, default options" is the same step without the project's compiler options.
PyTorch runs eagerly, with as many threads as there are cores, if it is installed.
"""

import argparse
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax.network.convolution import compiler_options
from mtnet_jax.network.multitask_net import MultitaskNet

STEM_CHANNELS = 32  # at width 1
POSE_SIZE = 9
LEARNING_RATE = 1e-4


def jax_step(args: argparse.Namespace, images: np.ndarray, options: dict) -> Callable[[], float]:
    """Compiles the step; returns a function that runs it once and returns the loss."""
    model = MultitaskNet(1, POSE_SIZE, width=args.width, dtype=args.dtype)
    optimizer = optax.adam(LEARNING_RATE)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    groups = tuple(variables["params"])

    def loss_of(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updated = model.apply(variables, images, train=groups, mutable=["batch_stats"])
        return sum(jnp.mean(output**2) for output in outputs), updated["batch_stats"]

    def step(state, images):
        params, batch_stats, moments = state
        gradient_of = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch_stats), gradients = gradient_of(params, batch_stats, images)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), batch_stats, moments), loss

    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    images = jnp.asarray(images)
    compiled = (
        jax.jit(step, donate_argnums=0, compiler_options=options).lower(state, images).compile()
    )
    memory = compiled.memory_analysis()
    if memory is not None:
        print(f"  temporary memory {memory.temp_size_in_bytes / 1e6:.0f} MB")

    def run():
        nonlocal state
        state, loss = compiled(state, images)
        jax.block_until_ready(state)
        return float(loss)

    return run


def torch_step(args: argparse.Namespace, images: np.ndarray) -> Callable[[], float] | None:
    """The step in PyTorch, or None without it."""
    try:
        import torch
    except ImportError:
        return None
    from tests.torch_twin import TorchTwin

    torch.set_num_threads(os.cpu_count())
    model = TorchTwin("v2", 1, POSE_SIZE, base=round(STEM_CHANNELS * args.width))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    images_BCHW = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = sum((output.float() ** 2).mean() for output in model(images_BCHW))
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def measure(contenders: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Runs the contenders in turn; returns the median seconds of each."""
    seconds = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:  # the first is warm-up
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()

    shape = (args.batch, args.size, args.size, 3)
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    print(f"{jax.default_backend()}, {vars(args)}")
    contenders = {"jax": jax_step(args, images, compiler_options())}
    if compiler_options():
        contenders["jax, default options"] = jax_step(args, images, {})
    if (run := torch_step(args, images)) is not None:
        contenders["pytorch"] = run
    medians = measure(contenders, args.repeats)
    for name, median in medians.items():
        rate = args.batch / median
        ratio = median / medians["jax"]
        print(f"{name:22s} {median:7.3f} s {rate:8.1f} pictures/s {ratio:6.2f} times jax")


if __name__ == "__main__":
    main()
