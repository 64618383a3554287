"""A tiny network and configuration for tests of training: seconds on a CPU."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mtnet_jax.config import default_config, phase, record_set
from mtnet_jax.cpu.choice import fastest
from mtnet_jax.network import MultitaskNet
from mtnet_jax.saved_config import write_config
from mtnet_jax.system import System, abstract_variables, build_system
from tests.conftest import REPOSITORY

DEMO_RECORDS = REPOSITORY / "demo" / "studio_demo"
EVERYTHING = ("backbone", "neck", "face", "pose")
QUICK = {"xla_backend_optimization_level": 0}  # of the compiler: halves the time of some tests
SCORE = 0.1  # threshold at which these weights find heads in any image


def tiny_config() -> ConfigDict:
    """All parts of the network, eight channels each, 64 pixels, the demo records."""
    config = default_config()
    config.model.width = 0.01
    config.model.depth = 0.01
    config.input.size = 64
    config.input.max_heads = 4
    config.data.demo = record_set(str(DEMO_RECORDS))
    config.phases = ConfigDict()
    config.phases.a = phase(
        ("face",), epochs=3 * 4 / 700, batch_size=4, learning_rate=1e-3, alpha=1
    )
    config.phases.b = phase(EVERYTHING, epochs=3 * 4 / 700, batch_size=4, learning_rate=1e-3)
    config.log_every_steps = 1
    config.save_every_steps = 2
    config.eval_every_epochs = 0.0
    config.eval_images = 4
    return config


def random_batch(config: ConfigDict, batch_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch with one or two heads an image."""
    rng = np.random.default_rng(seed)
    size, slots = config.input.size, config.input.max_heads
    low = rng.uniform(0, size / 2, (batch_size, slots, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, size / 2, low.shape)], axis=-1)
    return {
        "image": rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
        "boxes": boxes.astype(np.float32),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (batch_size, slots, 1, 1)),
        "has_pose": np.ones((batch_size, slots), bool),
        "ignore": np.zeros((batch_size, slots), bool),
        "labels": np.zeros((batch_size, slots), np.int32),
        "headings": np.zeros((batch_size, slots), np.float32),
        "has_heading": np.zeros((batch_size, slots), bool),
        "valid": np.arange(slots)[None] < rng.integers(1, 3, (batch_size, 1)),
        "dropped": np.zeros(batch_size, np.int32),
    }


def tiny_system(config: ConfigDict) -> tuple[System, dict]:
    """The network of a configuration as commands train it, and its fresh variables."""
    system = build_system(config)
    system = system._replace(model=fastest(system.model))
    size = config.input.size
    images = np.zeros((1, size, size, 3), np.float32)
    return system, jax.jit(system.model.init)(jax.random.key(0, impl="rbg"), images)


def trained_variables(model: MultitaskNet, size: int, seed: int = 0) -> dict:
    """Variables in which no BatchNorm is the identity, nor its inverse."""
    rng = np.random.default_rng(seed)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), images)
    arrays = {}
    for name, leaf in flatten_dict(abstract, sep="/").items():
        if name.endswith("kernel"):
            spread = (2 / np.prod(leaf.shape[:3])) ** 0.5
            arrays[name] = rng.normal(0, spread, leaf.shape).astype(np.float32)
        elif name.endswith(("scale", "var")):
            arrays[name] = rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        else:
            arrays[name] = rng.normal(0, 0.3, leaf.shape).astype(np.float32)
    return unflatten_dict(arrays, sep="/")


def write_random_weights(folder: Path) -> None:
    """An export that nobody trained: 8 channels a layer, 64 pixels, at most six heads an image."""
    config = default_config()
    config.model.width, config.model.depth = 0.01, 0.01
    config.input.size = 64
    config.decode.max_heads = 6
    rng = np.random.default_rng(1)
    arrays = {}
    for name, leaf in flatten_dict(abstract_variables(build_system(config)), sep="/").items():
        centre = 1.0 if name.endswith(("/var", "/scale")) else 0.0
        spread = 0.0 if name.startswith("batch_stats/") else 0.2
        arrays[name] = rng.normal(centre, spread, leaf.shape).astype(np.float32)
    write_config(folder, config)
    np.savez(folder / "weights.npz", **arrays)


def random_variables(net: MultitaskNet, seed: int):
    """Random parameters and statistics, none at its initial value, that keep maps of order one."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, layer = path[-1].key, path[-3].key
        if name == "kernel":
            x = rng.standard_normal(leaf.shape, np.float32)
            return x * np.float32(math.sqrt(2 / math.prod(leaf.shape[:3])))
        low, high = (0.1, 0.4) if layer == "conv2" and name == "scale" else (0.5, 1.5)
        if name in ("scale", "var"):
            return rng.uniform(low, high, leaf.shape).astype(np.float32)
        return 0.1 * rng.standard_normal(leaf.shape, np.float32)

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    abstract = jax.eval_shape(net.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, abstract)


def run(function, *arguments):
    """Compiled call, compiled in little time."""
    return jax.jit(function, compiler_options=QUICK)(*arguments)
