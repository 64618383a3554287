"""Convolutions and products of Intel's oneDNN, which jaxlib carries for x86 processors.

XLA's CPU backend knows oneDNN's primitives as custom calls, but chooses them itself only in builds
of TensorFlow. They are asked for by name here. With them a whole training step takes half the time
(docs/performance.md). The names and their settings (XLA's onednn_config.proto) are no public
interface: requirements.txt pins jaxlib, and `usable` tries them once before anything relies on
them. MTNET_ONEDNN=0 in the environment does without.
"""

import functools
import json
import os
import platform
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.cpu.instructions import CPU_INFO, instructions

Array = jax.Array

TYPES = (jnp.float32, jnp.bfloat16)
BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # instructions, as that file names them


def available() -> bool:
    """Whether the backend is a CPU that has oneDNN, of one device, and nobody turned it off.

    With several devices XLA splits arrays among them, which it cannot do for what it does not know.
    """
    return os.environ.get("MTNET_ONEDNN", "1") != "0" and _right_in(jnp.dtype(jnp.float32))


def usable(*operands: Array) -> bool:
    """Whether these operands can go to oneDNN: they are of one type, and it `knows` it."""
    types = {operand.dtype for operand in operands}
    return len(types) == 1 and knows(types.pop())


def knows(dtype: jnp.dtype) -> bool:
    """Whether oneDNN can be asked for sums in this type: `available`, and right when tried."""
    return available() and _right_in(jnp.dtype(dtype))


def multiplies_bfloat16(cpu_info: Path) -> bool:
    """Whether a processor has instructions for products of bfloat16, as far as a file says."""
    return bool(BFLOAT16 & instructions(cpu_info))


def compiling() -> AbstractContextManager:
    """Round the compilation of programs that may hold these calls.

    XLA cannot write such programs to a file: JAX's persistent compilation cache would try, fail and
    warn each time. It is left alone inside.
    """
    return _not_stored if available() else nullcontext()


class _NotStored:
    """Sets the cache's threshold out of reach. It is the process's, and several threads may be
    inside: the first one in notes what it was, and the last one out puts it back."""

    _NAME = "jax_persistent_cache_min_compile_time_secs"

    def __init__(self) -> None:
        self._lock, self._inside, self._least = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._least = getattr(jax.config, self._NAME)
                jax.config.update(self._NAME, float("inf"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                jax.config.update(self._NAME, self._least)


_not_stored = _NotStored()


@functools.cache
def _right_in(dtype: np.dtype) -> bool:
    """Whether oneDNN is there and gives right answers in this type."""
    # On other processors the names are unknown, or stand for something else (Arm's library).
    if platform.machine().lower() not in ("x86_64", "amd64") or dtype not in TYPES:
        return False
    # Asked for what it cannot do, or was told not to, it does not fail but ends the process.
    limited = "ONEDNN_MAX_CPU_ISA" in os.environ
    if dtype == jnp.bfloat16 and (limited or not multiplies_bfloat16(CPU_INFO)):
        return False
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    image = np.arange(18).astype(dtype).reshape(1, 3, 3, 2)  # the sums are exact
    kernel = np.arange(12).astype(dtype).reshape(1, 2, 3, 2)  # outputs before inputs
    try:
        with _not_stored, jax.ensure_compile_time_eval():
            call = functools.partial(convolution, padding=((1, 0), (0, 1)))
            swapped = jax.jit(functools.partial(call, stride=1, inputs_last=True))(image, kernel)
            strided = jax.jit(functools.partial(call, stride=2))(image, kernel.swapaxes(2, 3))
            product = jax.jit(transposed_product)(image[0, 0], kernel[0, 0])
            found = jax.device_get((swapped, strided, product))  # here: it waits for them
    except jax.errors.JaxRuntimeError:
        return False
    padded = np.pad(image, ((0, 0), (1, 0), (0, 1), (0, 0))).astype(float)
    taps = kernel.astype(float)
    sums = padded[:, :, :-1] @ taps[0, 0].T + padded[:, :, 1:] @ taps[0, 1].T
    expected = (sums, sums[:, ::2, ::2], image[0, 0].astype(float).T @ taps[0, 0])
    return all(map(np.array_equal, found, (values.astype(dtype) for values in expected)))


def convolution(
    x_BxHxWxI: Array,
    kernel: Array,
    stride: int,
    padding: Sequence[tuple[int, int]],
    *,
    inputs_last: bool = False,
) -> Array:
    """2-D convolution, float32 or bfloat16 (summed in float32), of one type with its kernel.

    It has no gradient of its own.

    Args:
      x_BxHxWxI: maps.
      kernel: (h, w, I, O); (h, w, O, I) with `inputs_last`.
      stride: along both axes.
      padding: ((top, bottom), (left, right)) in pixels.
      inputs_last: read the kernel as it is used in gradients, without a transposed copy.
    """
    batch, *sides, _ = x_BxHxWxI.shape
    inputs, outputs = (3, 2) if inputs_last else (2, 3)
    window = kernel.shape[:2]
    size = [
        (side + sum(pads) - reach) // stride + 1
        for side, reach, pads in zip(sides, window, padding, strict=True)
    ]
    maps = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    layout = {"input_feature_dim": inputs, "output_feature_dim": outputs, "spatial_dims": [0, 1]}
    before, after = zip(*padding, strict=True)
    settings = {
        "dims": 4,
        "input": maps,
        "kernel": {"dims": 4, "filter": {**layout, "shape": list(kernel.shape)}},
        "output": maps,
        "window": {
            "size": list(window),
            "pad_left": list(before),
            "pad_right": list(after),
            "strides": 2 * [stride],
            "window_dilations": [1, 1],
        },
        "feature_groups": 1,
    }
    out = jax.ShapeDtypeStruct((batch, *size, kernel.shape[outputs]), x_BxHxWxI.dtype)
    return _call("convolution", {"onednn_conv_config": settings}, out, x_BxHxWxI, kernel)


def transposed_product(a_KxM: Array, b_KxN: Array) -> Array:
    """a^T b, (M, N): for many rows K of few columns, as in gradients of weights.

    float32 or bfloat16 (summed in float32), both of one type.
    """
    shapes = {"lhs": a_KxM.shape, "rhs": b_KxN.shape, "result": (a_KxM.shape[1], b_KxN.shape[1])}
    settings: dict[str, Any] = {"transpose_a": True}
    for name, shape in shapes.items():
        # In this message, other than in the one above, dimensions count from 1.
        settings[name] = {"dims": 2, "tensor": {"dimensions": [1, 2], "shape": list(shape)}}
    out = jax.ShapeDtypeStruct(shapes["result"], a_KxM.dtype)
    return _call("matmul", {"onednn_matmul_config": settings}, out, a_KxM, b_KxN)


def _call(name: str, settings: dict, out: jax.ShapeDtypeStruct, *operands: Array) -> Array:
    call = jax.ffi.ffi_call(
        f"__onednn${name}",
        out,
        custom_call_api_version=1,
        legacy_backend_config=json.dumps(settings),
    )
    return call(*operands)
