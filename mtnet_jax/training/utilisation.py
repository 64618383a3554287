"""How well a step uses the machine: its FLOPs of the chips' peak, and the memory it takes."""

import re
import resource
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from mtnet_jax.network.convolution import conv2d
from mtnet_jax.network.normalisation import batch_norm_leaky
from mtnet_jax.system import System, TrainState
from mtnet_jax.training.phases import Phase
from mtnet_jax.training.step import make_train_step

# 10^12 dense FLOP/s a device in bfloat16, and in float32 as XLA multiplies it by default
# (TensorFloat on GPUs from Ampere, bfloat16 on TPUs), from the makers' data sheets. By words of
# `device_kind`. A device is a chip, but of TPU v2 and v3 one of the two cores of a chip.
PEAKS = {
    "H200": (989, 494), "H200 NVL": (835, 417),
    "H100": (989, 494), "H100 NVL": (835, 417), "H100 PCIe": (756, 378),
    "A100": (312, 156), "L4": (121, 60), "T4": (65, 8.1),
    "V100": (125, 15.7),
    "TPU v2": (22.5, 22.5), "TPU v3": (61.5, 61.5), "TPU v4": (275, 275), "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197), "TPU v5": (459, 459), "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918), "TPU v6e": (918, 918),
}  # fmt: skip


def peak_tflops(kind: str, dtype: str, given: float | None) -> float | None:
    """10^12 FLOP/s of a device; None where it is not known.

    Args:
      kind: `device_kind` of the device.
      dtype: compute type, "float32" or "bfloat16".
      given: what is taken instead of the table, if anything.
    """
    if given:
        return given
    # The longest name first: "TPU v5 lite" is no "TPU v5".
    for name in sorted(PEAKS, key=len, reverse=True):
        if re.search(rf"\b{re.escape(name)}\b", kind, re.IGNORECASE):
            return float(PEAKS[name][dtype != "bfloat16"])
    return None


def least_seconds(
    config: ConfigDict,
    system: System,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Mapping[str, Any],
) -> float | None:
    """Seconds of a step at the peak of all devices; None where that is not known."""
    kind = jax.devices()[0].device_kind
    peak = peak_tflops(kind, config.model.dtype, config.peak_tflops)
    if peak is None:
        return None
    flops = model_flops(system, phase, optimizer, state, batch)
    return flops and flops / (peak * 1e12 * jax.device_count())


def model_flops(
    system: System,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Mapping[str, Any],
) -> float | None:
    """FLOPs of a step over all devices, see `flops_of`.

    Frozen groups count with their forward pass alone; what rematerialisation computes again does
    not count.
    """
    # XLA counts neither what oneDNN computes nor the rounds of a loop.
    plain = system.model.clone(conv=conv2d, norm=batch_norm_leaky, remat="none")
    step = make_train_step(
        system._replace(model=plain), phase._replace(accumulate=1), optimizer, ema_decay=0.0
    )
    return flops_of(step, state, dict(batch))


def flops_of(function: Callable, *arguments: Any) -> float | None:
    """FLOPs of a function for such arrays, as XLA counts them before it optimises.

    GPUs and TPUs count nothing before they compile, and then what the compiler made of it: the CPU,
    which JAX has beside them, counts in their place. None where $JAX_PLATFORMS leaves it out.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    with jax.default_device(cpu):
        cost: Any = jax.jit(function).lower(*shapes).cost_analysis()
    return cost and cost.get("flops")


def memory_gb() -> float:
    """The most memory that was in use: of the first device of this host, or of a CPU's process."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
