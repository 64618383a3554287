"""Images a second and model FLOP utilisation of training on a GPU, a TPU or a CPU.

    python -m benchmarks.accelerator                       # the paper's net, all devices
    python -m benchmarks.accelerator --width 0.25 --size 224 --batches 8,16 --dtypes float32

Trains the last phase (everything learns) on one batch for some seconds for each batch size and
type, as `mtnet train` does: state donated, batch split over all devices, steps started ahead (five
at a time, one wait after them). A batch that does not fit in memory is said so; the sweep goes on.

Model FLOPs are three times those of the forward pass (forward, gradient of the maps, gradient of
the weights), as counted by XLA; utilisation is their share of the chips' peak. Peaks are those of
the makers' data sheets for the type that the matrix units compute in; `--peak` gives another. What
rematerialisation computes again does not count as model FLOPs.

First the gradients of one step are compared with those of plain XLA on the CPU, in float32.

Before it is measured, each program is read: no callbacks to Python, no transfers to the host, no
float64, memory of the state used again. `tests/test_step.py` asks the same on the CPU.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import machine
from benchmarks.train_step import (
    EVERYTHING,
    fresh_variables,
    prepare_step,
    random_batch,
    step_config,
)

GRADIENT_SIZE = 160  # side of the images of which gradients are compared
# Of the difference from the gradient of the CPU, in parts of its length. Matrix units may take
# float32 with 10 bits of mantissa (TF32), bfloat16 has 7: through 75 layers that adds up.
MOST_APART = {"float32": 0.03, "bfloat16": 0.5}
NOT_ON_DEVICE = ("callback", "infeed", "outfeed", "send(", "recv(", "f64")


def measure_training(
    width: float, size: int, batch: int, dtype: str, *, remat: str, seconds: float
) -> dict[str, Any]:
    """Trains on one batch for some seconds.

    Args:
      width: of the network.
      size: side of the images in pixels.
      batch: images a step, over all devices.
      dtype: compute type.
      remat: see `MultitaskNet`.
      seconds: about so long.

    Returns:
      Rates, memory and compile time by name.

    Raises:
      RuntimeError: the program does what it must not, see `faults_of`.
    """
    import jax

    from mtnet_jax.network import normalise_images
    from mtnet_jax.training.utilisation import flops_of

    step, state, data, system, compile_seconds = prepare_step(
        width, size, batch, dtype=dtype, remat=remat
    )
    faults = faults_of(step.as_text())
    if faults:
        raise RuntimeError(f"the compiled step: {', '.join(faults)}")

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    with _plain_convolutions():
        forward = lambda v, x: system.model.apply(v, normalise_images(x))  # noqa: E731
        flop = 3 * (flops_of(forward, variables, data["image"]) or float("nan"))
    state, metrics = step(state, data)
    jax.block_until_ready(metrics)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(5):  # started ahead; the wait is for the last one alone
            state, metrics = step(state, data)
        steps += 5
        jax.block_until_ready(metrics)
    elapsed = time.perf_counter() - start
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "images_per_second": steps * batch / elapsed,
        "step_ms": 1e3 * elapsed / steps,
        "model_tflop_per_second": steps * flop / elapsed / 1e12,
        "compile_seconds": compile_seconds,
        "peak_memory_gb": memory.get("peak_bytes_in_use", float("nan")) / 1e9,
        "loss": float(metrics["loss"]),
    }


def gradients_apart(
    width: float, size: int, batch: int, dtypes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How far the gradients here are from those of the CPU.

    Args:
      width: of the network.
      size: side of the images in pixels.
      batch: images.
      dtypes: compute types here; the CPU computes in float32, once for all of them.

    Returns:
      Type -> group, or "all" -> the length of the difference in parts of the length of the CPU's
      gradient.
    """
    import jax
    import numpy as np
    import optax

    from mtnet_jax.cpu.choice import compiling, fastest
    from mtnet_jax.system import TrainState, build_system
    from mtnet_jax.training.phases import read_phases
    from mtnet_jax.training.step import make_train_step

    def gradients(dtype: str, device: Any, quickest: bool) -> Any:
        config = step_config(width, size, batch, dtype=dtype, trainable=EVERYTHING)
        system, phase = build_system(config), read_phases(config)[0]
        if quickest:
            system = system._replace(model=fastest(system.model))
        keep = optax.trace(decay=0.0)  # its state is the gradient
        step = jax.jit(make_train_step(system, phase, keep))
        with jax.default_device(device), compiling():
            data = random_batch(size, batch, config.input.max_heads)
            state = TrainState(**variables, opt_state=keep.init(variables["params"]))
            return jax.device_get(step(state, data)[0].opt_state.trace)

    first = step_config(width, size, batch, dtype="float32", trainable=EVERYTHING)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        variables = jax.device_get(fresh_variables(build_system(first)))
    expected = gradients("float32", cpu, False)

    def apart(a: Any, b: Any) -> float:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        sums = [(np.sum((x - y) ** 2.0), np.sum(y**2.0)) for x, y in pairs]
        difference, length = np.sqrt(np.sum(sums, axis=0))
        return float(difference / length)

    result = {}
    for dtype in dtypes:
        found = gradients(dtype, jax.devices()[0], True)
        groups = {group: apart(found[group], expected[group]) for group in EVERYTHING}
        result[dtype] = {"all": apart(found, expected), **groups}
    return result


def faults_of(program: str) -> list[str]:
    """What a compiled training step holds and must not, and what it lacks; from its text."""
    # Operations alone: what is behind "metadata" and in the lists of names is where they come from.
    lines = [line.split("metadata=")[0] for line in program.splitlines() if " = " in line]
    faults = [name for name in NOT_ON_DEVICE if any(name in line for line in lines)]
    return faults if "input_output_alias" in program else [*faults, "memory that is not used again"]


def _plain_convolutions() -> Any:
    """XLA counts the FLOPs of its own convolutions alone."""
    from unittest import mock

    return mock.patch.dict("os.environ", {"MTNET_ONEDNN": "0"})


def main() -> None:
    """Sweeps and prints a table."""
    import jax

    from mtnet_jax.cpu.allocator import keep_large_buffers
    from mtnet_jax.training.utilisation import peak_tflops

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batches", default="16,32,64,128", help="images a step, all devices")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--remat", choices=("none", "blocks"), default="none")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each of them")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="of one chip")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    keep_large_buffers()  # before JAX starts, as jax.devices() makes it do
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    print(f"{count} x {kind}; width {args.width}, {args.size} pixels, remat {args.remat}")
    dtypes = args.dtypes.split(",")
    apart = gradients_apart(args.width, GRADIENT_SIZE, 2, dtypes)
    for dtype, groups in apart.items():
        said = ", ".join(f"{name} {value:.1e}" for name, value in groups.items())
        print(f"{dtype} gradients, off the CPU's in parts of their length: {said}")
        if not groups["all"] <= MOST_APART[dtype]:
            raise SystemExit(f"that is more than {MOST_APART[dtype]}: these are other gradients")
    print("dtype     batch  images/s   ms a step  TFLOP/s  of peak  memory GB  compile s")
    results = []
    for dtype in dtypes:
        peak = count * (peak_tflops(kind, dtype, args.peak) or float("nan"))
        for batch in map(int, args.batches.split(",")):
            try:
                found = measure_training(
                    args.width, args.size, batch, dtype, remat=args.remat, seconds=args.seconds
                )
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                print(f"{dtype:8s} {batch:6d}  does not fit in memory")
                continue
            share = found["model_tflop_per_second"] / peak
            print(
                f"{dtype:8s} {batch:6d} {found['images_per_second']:9.1f} {found['step_ms']:11.1f} "
                f"{found['model_tflop_per_second']:8.2f} {share:8.1%} "
                f"{found['peak_memory_gb']:10.2f} {found['compile_seconds']:10.1f}"
            )
            results.append({"dtype": dtype, "batch": batch, "peak_tflops": peak, **found})
    if args.json:
        content = {"devices": [kind, count], "machine": machine()}
        content |= {"gradients_apart": apart, "results": results}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
