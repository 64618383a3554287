"""A whole training step (forward, loss, backward, Adam) beside the same network in PyTorch.

    python -m benchmarks.train_step --width 0.25 --size 224 --batch 8

Contenders, each in a process of its own, with as many threads as there are cores:

- mtnet: the step that `mtnet train` runs in its last phase, all groups learning, as it runs it.
- mtnet, plain: the same without what this project does for CPUs (oneDNN, compiler, allocator).
- mtnet, remat: the same with `config.model.remat = "blocks"`: less memory for more time.
- mtnet, float32: with `--dtype bfloat16`, the same without it.
- pytorch, and pytorch, channels last: the network of `tests/torch_twin.py` and the loss of
  `tests/torch_loss.py`, eager, in both memory formats, with the same weights and batch. Before
  anything is measured, the losses of the first step are compared.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.timing import Contender, installed, measure, ratio, table, write_json

STEM_CHANNELS = 32  # at width 1
POSE_SIZE = 9
LEARNING_RATE = 1e-4
AGREEMENT = 1e-3  # of the losses of the first step
EVERYTHING = ("backbone", "neck", "face", "pose")
Run = tuple[Callable[[], Any], dict[str, Any]]


class Prepared(NamedTuple):
    """A training step, compiled, and what it starts from, in the devices' memory."""

    step: Any  # (state, data) -> (state, metrics)
    state: Any
    data: dict[str, Any]
    system: Any
    compile_seconds: float


def prepare_step(
    width: float,
    size: int,
    batch: int,
    *,
    dtype: str = "float32",
    trainable: tuple[str, ...] = EVERYTHING,
    frozen_stages: int = 0,
    remat: str = "none",
) -> Prepared:
    """The step that `mtnet train` runs, over all devices, on one batch of noise."""
    import jax

    from mtnet_jax.cpu.choice import fastest
    from mtnet_jax.system import TrainState, build_system
    from mtnet_jax.training.distribution import distribute
    from mtnet_jax.training.phases import make_optimizer, read_phases
    from mtnet_jax.training.step import compile_step, make_train_step

    which = {"trainable": trainable, "frozen_stages": frozen_stages}
    config = step_config(width, size, batch, dtype=dtype, **which)
    config.model.remat = remat
    system, phase = build_system(config), read_phases(config)[0]
    system = system._replace(model=fastest(system.model))
    distribution = distribute(config)
    replicated = distribution.replicated
    data = jax.device_put(random_batch(size, batch, config.input.max_heads), distribution.by_image)
    variables = jax.device_put(fresh_variables(system), replicated)
    optimizer = make_optimizer(phase, variables["params"], steps=1000, clip_norm=config.clip_norm)
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(variables["params"])
    state = TrainState(**variables, opt_state=opt_state)
    start = time.perf_counter()
    step = compile_step(make_train_step(system, phase, optimizer), state, data, replicated)
    return Prepared(step, state, data, system, time.perf_counter() - start)


def mtnet_step(width: float, size: int, batch: int, *, plain: bool = False, **options: Any) -> Run:
    """The project's training step; `plain` without the options and the allocator for CPUs.

    oneDNN is turned off by the environment of the process.
    """
    import jax

    from mtnet_jax.cpu import choice
    from mtnet_jax.cpu.allocator import keep_large_buffers

    if plain:
        with mock.patch.object(choice, "training_options", dict):
            prepared = prepare_step(width, size, batch, **options)
    else:
        keep_large_buffers()
        prepared = prepare_step(width, size, batch, **options)
    step, state, data = prepared[:3]
    facts = {"compile_seconds": prepared.compile_seconds}
    memory = step.memory_analysis()
    if memory is not None:
        facts["temporary_mb"] = memory.temp_size_in_bytes / 1e6

    def run():
        nonlocal state
        state, metrics = step(state, data)
        return jax.block_until_ready((state, metrics))

    return run, facts


def torch_step(path: str, *, dtype: str = "float32", channels_last: bool = False) -> Run:
    """The step in PyTorch of what `write_twin` wrote, in a process without JAX."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model, loss_of = read_twin(path)
    model = model.to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(lambda images: model(images.contiguous(memory_format=layout)))
        loss.backward()
        optimizer.step()
        return loss.item()

    return run, {}


def write_twin(path: str, width: float, size: int, batch: int) -> None:
    """Writes what the step in PyTorch starts from: `fresh_variables`, the batch, the anchors."""
    import torch

    from mtnet_jax.system import build_system
    from tests.torch_twin import TorchTwin

    config = step_config(width, size, batch, dtype="float32", trainable=EVERYTHING)
    system = build_system(config)
    base = round(STEM_CHANNELS * width)
    model = TorchTwin("v2", 1, POSE_SIZE, base=base)
    model.copy_from_flax(fresh_variables(system))
    data = random_batch(size, batch, config.input.max_heads)
    content = {
        "base": base,
        "weights": model.state_dict(),
        "size": size,
        "data": {name: torch.from_numpy(values) for name, values in data.items()},
        "anchors": torch.from_numpy(system.grid.level_anchors_wh),
    }
    torch.save(content, path)


def read_twin(path: str) -> tuple[Any, Callable]:
    """The network in PyTorch, and the loss of its outputs on the batch."""
    import torch

    from tests import torch_loss
    from tests.torch_twin import TorchTwin

    content = torch.load(path)
    model = TorchTwin("v2", 1, POSE_SIZE, base=content["base"])
    model.load_state_dict(content["weights"])
    data, anchors, size = content["data"], content["anchors"], content["size"]

    def loss_of(network: Callable) -> Any:
        outputs = network(data["image"].permute(0, 3, 1, 2).float() / 255)
        outputs = [output.float() for output in outputs]
        return torch_loss.multitask_loss(outputs, data, anchors, size, alpha=0.5)

    return model, loss_of


def check_agreement(path: str, width: float, size: int, batch: int) -> float:
    """The relative difference of the two losses of the first step; the twin is that of the path.

    Raises:
      RuntimeError: the two do not compute the same thing.
    """
    run, _ = mtnet_step(width, size, batch)
    ours = float(run()[1]["loss"])
    model, loss_of = read_twin(path)
    theirs = loss_of(model.train()).item()
    if not abs(ours - theirs) <= AGREEMENT * abs(theirs):
        raise RuntimeError(f"the loss is {ours} here and {theirs} in PyTorch")
    return abs(ours / theirs - 1)


def step_config(
    width: float,
    size: int,
    batch: int,
    *,
    dtype: str,
    trainable: tuple[str, ...],
    frozen_stages: int = 0,
) -> Any:
    """The paper's configuration with one phase, in another size."""
    from ml_collections import ConfigDict

    from mtnet_jax.config import default_config, phase

    config = default_config()
    config.model.width, config.model.dtype, config.input.size = width, dtype, size
    only = phase(
        trainable,
        epochs=1,
        batch_size=batch,
        learning_rate=LEARNING_RATE,
        frozen_stages=frozen_stages,
        alpha=0.5 if "pose" in trainable else 1,
    )
    config.phases = ConfigDict({"only": only})
    return config


def fresh_variables(system: Any) -> dict[str, Any]:
    """Variables of an untrained network."""
    import jax
    import numpy as np

    images = np.zeros((1, system.grid.size, system.grid.size, 3), np.float32)
    return jax.jit(system.model.init)(jax.random.key(0, impl="rbg"), images)


def random_batch(size: int, batch: int, max_heads: int) -> dict[str, Any]:
    """Noise with two heads an image, in the form of `mtnet_jax.data.batches`."""
    import numpy as np

    rng = np.random.default_rng(0)
    low = rng.uniform(0, size / 2, (batch, max_heads, 2))
    high = low + rng.uniform(8, size / 2, low.shape)
    return {
        "image": rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        "boxes": np.concatenate([low, high], axis=-1).astype(np.float32),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (batch, max_heads, 1, 1)),
        "has_pose": np.ones((batch, max_heads), bool),
        "ignore": np.zeros((batch, max_heads), bool),
        "labels": np.zeros((batch, max_heads), np.int32),
        "headings": np.zeros((batch, max_heads), np.float32),
        "has_heading": np.zeros((batch, max_heads), bool),
        "valid": np.tile(np.arange(max_heads) < 2, (batch, 1)),
        "dropped": np.zeros(batch, np.int32),
    }


def shape_parser(doc: str) -> argparse.ArgumentParser:
    """The options of benchmarks that train in one shape."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


def main() -> None:
    parser = shape_parser(__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()

    shape = {"width": args.width, "size": args.size, "batch": args.batch, "dtype": args.dtype}
    contenders = {
        "mtnet": Contender(mtnet_step, shape),
        "mtnet, plain": Contender(
            mtnet_step, {**shape, "plain": True}, environment={"MTNET_ONEDNN": "0"}
        ),
        "mtnet, remat": Contender(mtnet_step, {**shape, "remat": "blocks"}),
    }
    if args.dtype != "float32":
        contenders["mtnet, float32"] = Contender(mtnet_step, {**shape, "dtype": "float32"})
    with tempfile.TemporaryDirectory() as folder:
        if installed("torch"):
            path, sizes = f"{folder}/twin.pt", (args.width, args.size, args.batch)
            write_twin(path, *sizes)
            difference = check_agreement(path, *sizes)
            print(f"the losses of the first step agree within {difference:.0e}")
            for name, channels_last in (("pytorch", False), ("pytorch, channels last", True)):
                settings = {"path": path, "dtype": args.dtype, "channels_last": channels_last}
                contenders[name] = Contender(torch_step, settings)
        results = measure(contenders, turns=args.turns)
    print(shape)
    print(table(results))
    for name in contenders:
        if name.startswith("pytorch") or name == "mtnet, float32":
            middle, low, high = ratio(results["mtnet"], results[name])
            print(f"mtnet / {name}: {middle:.3f} ({low:.3f} to {high:.3f})")
    for name, result in results.items():
        if "temporary_mb" in result.facts:
            seconds, megabytes = (result.facts[k] for k in ("compile_seconds", "temporary_mb"))
            print(f"{name}: compiled in {seconds:.1f} s, {megabytes:.0f} MB of temporary memory")
    if args.json:
        write_json(args.json, results, shape)


if __name__ == "__main__":
    main()
