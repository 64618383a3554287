"""One step on eight simulated devices: the numbers of one device, and the collectives it needs.

The steps run in a process of their own (tests/eight_devices.py).
"""

import json
import os
import subprocess
import sys

import jax
import pytest

from mtnet_jax.errors import BadInput
from mtnet_jax.training.distribution import distribute
from tests.conftest import REPOSITORY
from tests.tiny import tiny_config


def test_a_mesh_that_cannot_be_is_named():
    config = tiny_config()
    config.mesh.fsdp = 3
    with pytest.raises(BadInput, match=r"config\.mesh\.fsdp is 3: .* devices, 1\."):
        distribute(config)


@pytest.fixture(scope="module")
def report():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.eight_devices"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_one_device_needs_no_collectives(report):
    assert report["one"]["collectives"] == {}


@pytest.mark.slow
def test_data_parallel_steps_sum_gradients_and_statistics_and_nothing_else(report):
    """Each gradient once (BatchNorm's backward sums are two of them), its forward sums, scalars."""
    found = report["data"]["collectives"]
    assert found.keys() == {"all-reduce"}
    expected = 4 * report["parameters"] + 2 * 4 * report["channels"]
    assert expected <= found["all-reduce"] <= expected + 4 * 50


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp", "both"])
def test_sharded_parameters_are_gathered_once_and_images_never_move(report, mesh):
    found = report[mesh]["collectives"]
    assert found.keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert found["all-gather"] <= 4 * report["parameters"]
    kept, whole = (report[name]["on the first device"] for name in (mesh, "one"))
    assert kept < whole * {"fsdp": 0.3, "both": 0.4}[mesh]  # the rest: arrays of 100 and fewer


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data", "fsdp", "both"])
def test_every_mesh_gives_the_numbers_of_one_device(report, mesh):
    assert report[mesh]["loss"] < 1e-5
    assert report[mesh]["batch_stats"] < 1e-5
    assert report[mesh]["params"] < 1e-3
    assert report[mesh]["ema"] < 1e-3


@pytest.mark.slow
def test_eight_devices_find_the_heads_of_one(report):
    assert report["found"] > 0
    assert report["heads"] < 1e-5
