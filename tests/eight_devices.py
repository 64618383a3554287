"""Steps on eight simulated devices, for tests/test_distribution.py: prints what they did as JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.eight_devices
"""

import json
import math
import re
from collections import Counter
from typing import Any

import jax
import numpy as np

from mtnet_jax.predict.inference import make_detector
from mtnet_jax.training.distribution import Distribution, mesh_of, put_batch, put_same
from mtnet_jax.training.evaluating import local_mesh
from mtnet_jax.training.phases import make_optimizer, read_phases
from mtnet_jax.training.starting import first_state
from mtnet_jax.training.step import compile_step, make_train_step
from tests.tiny import random_batch, tiny_config, tiny_system, trained_variables

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SIZES = {"pred": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2}


def collectives(program: str) -> dict[str, int]:
    """Kind of collective -> bytes that come out of all of them, from the text of a program."""
    found: Counter[str] = Counter()
    for line in program.splitlines():
        operation = re.search(rf"= (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line)
        if operation:
            for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", operation[1]):
                sides = [int(side) for side in shape.split(",") if side]
                found[operation[2]] += SIZES[kind] * math.prod(sides)
    return dict(found)


def main() -> None:
    config = tiny_config()
    config.ema_decay = 0.5
    system, variables = tiny_system(config)
    phase = read_phases(config)[-1]
    optimizer = make_optimizer(phase, variables["params"], steps=10, clip_norm=10.0)
    batch = random_batch(config, 16)
    report: dict[str, Any] = {
        "parameters": sum(x.size for x in jax.tree.leaves(variables["params"])),
        "channels": sum(x.size for x in jax.tree.leaves(variables["batch_stats"])) // 2,
    }
    results = {}
    for name, data, fsdp in (("one", 1, 1), ("data", 8, 1), ("fsdp", 1, 8), ("both", 2, 4)):
        devices = jax.devices()[: data * fsdp]
        distribution = Distribution(mesh_of(devices, fsdp), shard_above=100)
        placed = put_same(variables, distribution.of_state(variables))
        state = first_state(placed, optimizer, config, distribution)
        whole = distribution.replicated if distribution.sharded else None
        step = make_train_step(system, phase, optimizer, ema_decay=0.5, whole=whole)
        here = put_batch(batch, distribution)
        compiled = compile_step(step, state, here, distribution.replicated)
        report[name] = {
            "collectives": collectives(compiled.as_text()),
            "on the first device": sum(
                leaf.addressable_data(0).size for leaf in jax.tree.leaves(state)
            ),
        }
        for _ in range(2):
            state, metrics = compiled(state, here)
        results[name] = jax.device_get((state, metrics))
    for name in ("data", "fsdp", "both"):
        state, metrics = results[name]
        one, one_metrics = results["one"]
        report[name]["loss"] = abs(metrics["loss"] / one_metrics["loss"] - 1).item()
        for part in ("batch_stats", "ema", "params"):
            report[name][part] = difference(getattr(state, part), getattr(one, part))

    mesh = local_mesh()
    model = trained_variables(system.model, config.input.size)
    images = random_batch(config, 16)["image"]
    heads = [
        jax.device_get(make_detector(system, config, 0.01, over=over)(model)(images))
        for over in (None, mesh)
    ]
    report["heads"] = max(apart(over_mesh, one) for one, over_mesh in zip(*heads, strict=True))
    report["found"] = int(heads[0].valid.sum())
    print(json.dumps(report))


def difference(a: Any, b: Any) -> float:
    """The largest difference of two trees, over the largest value of the array that it is in."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-3)) for x, y in pairs)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in parts of the value where that is above 1: boxes of a network that
    learned nothing may be ten thousand pixels long, and float32 has seven digits."""
    a, b = a.astype(float), b.astype(float)
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max())


if __name__ == "__main__":
    main()
