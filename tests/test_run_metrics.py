"""Which checkpoint is the best, and what the log says of speed."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput
from mtnet_jax.run_metrics import best_step, check_metric
from mtnet_jax.training import evaluating
from mtnet_jax.training.utilisation import PEAKS, flops_of, peak_tflops

LINES = [
    {"kind": "train", "step": 1, "loss": 3.0},
    {"kind": "eval/a", "step": 2, "ap50": 0.5, "mae": None},
    {"kind": "eval/a", "step": 4, "ap50": 0.7, "mae": 20.0},
    {"kind": "eval/b", "step": 4, "ap50": 0.9, "mae": 5.0},
    {"kind": "eval/a", "step": 6, "ap50": 0.7, "mae": 30.0},
]


@pytest.mark.parametrize(
    ("name", "steps", "best"),
    [
        ("a/ap50", [2, 4, 6], 4),  # the earliest of equals
        ("a/ap50", [2, 6], 6),
        ("a/mae", [2, 4, 6], 4),  # lower is better; what has none does not take part
        ("a/mae", [2], None),
        ("b/ap50", [2, 4, 6], 4),
        ("a/recall", [2, 4, 6], None),
    ],
)
def test_the_best_step_of_those_that_are_kept(name, steps, best):
    assert best_step(LINES, name, steps) == best


def test_the_best_step_is_of_what_is_evaluated_now():
    train, test = {"split": "train", "images": 4}, {"split": "test", "images": 4}
    values = [(2, train, 0.9), (4, test, 0.5), (6, test, 0.4)]
    lines = [{"kind": "eval/a", "step": step, "on": on, "ap50": ap} for step, on, ap in values]
    assert best_step(lines, "a/ap50", [2, 4, 6]) == 4
    assert best_step(lines[:1], "a/ap50", [2, 4, 6]) == 2
    del lines[0]["on"]  # an older version wrote it
    assert best_step(lines, "a/ap50", [2, 4, 6]) == 2
    assert best_step([], "a/ap50", [2, 4, 6]) is None


@pytest.mark.parametrize("name", ["ap50", "c/ap50", "a/loss", "a/"])
def test_a_metric_that_no_evaluation_has_is_named(name):
    check_metric("", [])
    check_metric("a/mae", ["a", "b"])
    with pytest.raises(BadInput, match=rf"config\.best_metric is '{name}': .*\(a, b\).*ap50"):
        check_metric(name, ["b", "a"])


def test_peaks_of_chips_are_found_by_their_longest_name():
    assert peak_tflops("TPU v5 lite", "bfloat16", None) == PEAKS["TPU v5 lite"][0]
    assert peak_tflops("TPU v5p", "bfloat16", None) == PEAKS["TPU v5"][0]
    assert peak_tflops("NVIDIA H100 80GB HBM3", "float32", None) == PEAKS["H100"][1]
    assert peak_tflops("NVIDIA H100 PCIe", "bfloat16", None) == 756
    # A chip of v3 has 123 TFLOP/s (Jouppi et al. 2020, table 1) and two cores, each a device.
    assert peak_tflops("TPU v3", "bfloat16", None) == 123 / 2
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "bfloat16", None) == PEAKS["A100"][0]
    assert peak_tflops("Tesla T4", "bfloat16", None) == PEAKS["T4"][0]
    for other in ("cpu", "NVIDIA L40S", "NVIDIA RTX A1000", "NVIDIA T400", "TPU v40"):
        assert peak_tflops(other, "float32", None) is None
    assert peak_tflops("cpu", "float32", 0.5) == 0.5


@pytest.mark.parametrize(
    ("threads", "processes", "reading"), [(2, 0, 2), (2, 3, 3), (2, 32, 4), (9, 3, 9)]
)
def test_evaluations_read_on_the_cores_of_the_loaders(monkeypatch, threads, processes, reading):
    monkeypatch.setattr(evaluating, "usable_cores", lambda: 4)
    config = ConfigDict({"loader_threads": threads, "loader_processes": processes})
    assert evaluating.reading_threads(config) == reading


def test_flops_are_counted_by_the_cpu_whatever_trains(monkeypatch):
    """Backends behind PJRT's C interface, all but the CPU, refuse to count before they compile."""
    seen = []

    def product(a, b):
        seen.append(jax.config.jax_default_device)
        return a @ b

    arrays = np.zeros((3, 5), np.float32), np.zeros((5, 7), np.float32)
    assert flops_of(product, *arrays) == 2 * 3 * 5 * 7
    assert [device.platform for device in seen] == ["cpu"]

    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)  # as with JAX_PLATFORMS=cuda
    assert flops_of(product, *arrays) is None
