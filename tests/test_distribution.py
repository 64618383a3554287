"""One step on eight simulated devices: the numbers of one device, and the collectives it needs.

The steps run in a process of their own (tests/eight_devices.py).
"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mtnet_jax.errors import BadInput
from mtnet_jax.training.distribution import AXES, distribute, mesh_of
from tests.conftest import REPOSITORY
from tests.tiny import tiny_config


def test_a_mesh_that_cannot_be_is_named():
    config = tiny_config()
    config.mesh.fsdp = 3
    with pytest.raises(BadInput, match=r"config\.mesh\.fsdp is 3: .* devices, 1\."):
        distribute(config)


def gpus(hosts, each=8, slice_of=lambda host: host):
    """GPUs as JAX describes them: those of a host are a slice, ids go from host to host."""
    devices = [
        SimpleNamespace(
            id=host * each + number,
            process_index=host,
            slice_index=slice_of(host),
            platform="gpu",
            device_kind="NVIDIA H100 80GB HBM3",
        )
        for host in range(hosts)
        for number in range(each)
    ]
    return [devices[i] for i in np.random.default_rng(0).permutation(len(devices))]


@pytest.fixture
def made(monkeypatch):
    """Meshes of devices that are none: what `Mesh` is given, (data, fsdp) devices."""

    def mesh(devices, names, axis_types):
        assert (names, len(axis_types)) == (AXES, 2)
        return devices

    for place in ("mtnet_jax.training.distribution.Mesh", "jax._src.sharding_impls.Mesh"):
        monkeypatch.setattr(place, mesh)


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_gpus_of_four_hosts_share_parameters_within_a_host(made, fsdp):
    placed = mesh_of(gpus(4), fsdp)
    assert placed.shape == (32 // fsdp, fsdp)
    assert [device.id for device in placed.flat] == list(range(32))
    for row in placed:
        assert len({device.slice_index for device in row}) == 1


@pytest.mark.parametrize(("hosts", "fsdp"), [(4, 16), (4, 32), (3, 6), (3, 12)])
def test_more_shares_than_a_host_has_gpus_lie_on_neighbours(made, hosts, fsdp):
    placed = mesh_of(gpus(hosts), fsdp)
    assert placed.shape == (8 * hosts // fsdp, fsdp)
    # A host's rows of a batch follow those of the host before, as they do in its stream.
    assert [device.id for device in placed.flat] == list(range(8 * hosts))


def test_hosts_of_one_slice_are_one(made):
    placed = mesh_of(gpus(4, slice_of=lambda host: host // 2), 16)
    assert [{device.process_index for device in row} for row in placed] == [{0, 1}, {2, 3}]
    assert mesh_of(gpus(4, slice_of=lambda host: 0), 4).shape == (8, 4)


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
