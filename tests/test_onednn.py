"""oneDNN's convolutions and gradients: against XLA's, NumPy's, and in the steps of training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.cpu import onednn
from mtnet_jax.cpu.choice import (
    fast_conv2d,
    folded_convolution,
    training_options,
    type_warning,
)
from mtnet_jax.network import normalise_images
from mtnet_jax.network.convolution import conv2d
from mtnet_jax.network.folding import apply_folded, fold
from mtnet_jax.training.step import compile_step
from tests.test_convolution import slow_conv
from tests.test_step import make_step
from tests.tiny import EVERYTHING, random_batch, tiny_config, tiny_system

CASES = [  # (batch, height, width, in, out, kernel, stride)
    (1, 5, 7, 3, 4, 3, 1),
    (2, 8, 6, 4, 8, 3, 2),
    (1, 9, 7, 5, 3, 3, 2),
    (3, 6, 5, 8, 2, 1, 1),
    (1, 1, 1, 4, 4, 3, 1),
    (1, 1, 1, 4, 4, 3, 2),
    (2, 27, 26, 16, 32, 3, 2),
    (2, 26, 26, 32, 64, 3, 1),
    (2, 26, 26, 64, 32, 1, 1),
    (2, 5, 4, 256, 136, 3, 1),  # wide: the gradient of its kernel is XLA's in float32
]


@pytest.fixture(autouse=True)
def _with_onednn(monkeypatch):
    monkeypatch.setenv("MTNET_ONEDNN", "1")
    if not onednn.available():
        pytest.skip("this backend has no oneDNN (it is in jaxlib for x86 CPUs)")


def with_bfloat16():
    if not onednn.usable(jnp.zeros(1, jnp.bfloat16)):
        pytest.skip("this processor's oneDNN has no bfloat16")


def operands(case):
    batch, height, width, channels, features, size, stride = case
    rng = np.random.default_rng(sum(case))
    x = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, channels, features)).astype(np.float32)
    dy = rng.normal(size=(batch, -(-height // stride), -(-width // stride), features))
    return x, kernel, dy.astype(np.float32)


def with_gradients(conv, stride):
    """A convolution of (x, kernel, dy) with the gradients of its maps and kernel."""

    def values(x, kernel, dy):
        y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, stride), x, kernel)
        return y, *pull(dy)

    return values


def run(function, *args):
    with onednn.compiling():
        return jax.jit(function, compiler_options=training_options())(*args)


@pytest.mark.parametrize("case", CASES)
def test_convolution_and_gradients_equal_those_of_xla(case):
    x, kernel, dy = operands(case)

    theirs = jax.jit(with_gradients(conv2d, case[-1]))(x, kernel, dy)
    found = run(with_gradients(fast_conv2d, case[-1]), x, kernel, dy)
    for ours, expected in zip(found, theirs, strict=True):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(
        theirs[0], slow_conv(x.astype(float), kernel, case[-1]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_summed_in_float32(case):
    """Against XLA in float32 on the same numbers: what is left is one rounding to 8 bits."""
    with_bfloat16()
    x, kernel, dy = (jnp.asarray(a, jnp.bfloat16) for a in operands(case))
    exact = (a.astype(jnp.float32) for a in (x, kernel, dy))
    expected = jax.jit(with_gradients(conv2d, case[-1]))(*exact)
    found = run(with_gradients(fast_conv2d, case[-1]), x, kernel, dy)
    for ours, values in zip(found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        assert ours.shape == values.shape
        scale = np.abs(values).max()
        np.testing.assert_allclose(ours.astype(jnp.float32), values, rtol=2**-8, atol=1e-5 * scale)


@pytest.mark.parametrize(("rows", "m", "n"), [(1, 1, 1), (7, 3, 2), (1000, 27, 8), (338, 96, 192)])
def test_transposed_product(rows, m, n):
    rng = np.random.default_rng(rows)
    a, b = (rng.normal(size=(rows, k)).astype(np.float32) for k in (m, n))
    product = run(onednn.transposed_product, a, b)
    np.testing.assert_allclose(product, a.T.astype(float) @ b, rtol=1e-4, atol=1e-4 * rows**0.5)


def test_the_calls_are_made_for_the_types_that_it_knows():
    def text(dtype, kernel_dtype):
        x, kernel = jnp.zeros((1, 4, 4, 2), dtype), jnp.zeros((3, 3, 2, 2), kernel_dtype)
        return jax.jit(lambda x, kernel: fast_conv2d(x, kernel)).lower(x, kernel).as_text()

    assert "__onednn$convolution" in text(jnp.float32, jnp.float32)
    assert "onednn" not in text(jnp.float16, jnp.float16)
    with_bfloat16()
    assert "__onednn$convolution" in text(jnp.bfloat16, jnp.bfloat16)
    assert not onednn.usable(jnp.zeros(1), jnp.zeros(1, jnp.bfloat16))


def test_the_environment_turns_it_off(monkeypatch):
    monkeypatch.setenv("MTNET_ONEDNN", "0")
    assert not onednn.available()
    x, kernel = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2))
    text = jax.jit(lambda x, kernel: fast_conv2d(x, kernel)).lower(x, kernel).as_text()
    assert "onednn" not in text


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("flags\t\t: fpu sse2 avx512f amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx512_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: amx_bf16\n", False),
        (None, False),
    ],
)
def test_processors_without_bfloat16_are_not_asked_for_it(tmp_path, text, there):
    """oneDNN would end the process."""
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert onednn.multiplies_bfloat16(path) is there


def test_bfloat16_is_warned_of_where_it_is_slow(monkeypatch):
    with_bfloat16()
    assert type_warning(jnp.bfloat16) == type_warning(jnp.float32) == ""
    monkeypatch.setenv("MTNET_ONEDNN", "0")
    assert "faster with --config.model.dtype=float32" in type_warning(jnp.bfloat16)
    assert type_warning(jnp.float32) == ""


def steps(config, system, variables, *, runs):
    """The losses of three steps and the parameters after them, `runs` times with one program."""
    step, state = make_step(config, system, variables, EVERYTHING)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    batches = [jax.device_put(random_batch(config, 2, seed), device) for seed in range(3)]
    start = jax.device_get(state)  # a step works in the memory of its state
    compiled = compile_step(step, jax.device_put(start, device), batches[0], device)
    for _ in range(runs):
        state, losses = jax.device_put(start, device), []
        for batch in batches:
            state, metrics = compiled(state, batch)
            losses.append(float(metrics["loss"]))
        yield losses, jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("bfloat16", 0.02)])
def test_training_steps_are_those_of_xla_and_repeat_bit_for_bit(monkeypatch, dtype, rtol):
    config = tiny_config()
    config.model.dtype = dtype
    config.phases.b.learning_rate = 1e-4
    system, variables = tiny_system(config)
    (losses, params), (_, again) = steps(config, system, variables, runs=2)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    monkeypatch.setenv("MTNET_ONEDNN", "0")
    ((expected, _),) = steps(config, system, variables, runs=1)
    np.testing.assert_allclose(losses, expected, rtol=rtol)


@pytest.mark.slow
def test_frozen_groups_are_not_differentiated():
    config = tiny_config()
    system, variables = tiny_system(config)
    batch = random_batch(config, 2)

    def calls(function, *args):
        with onednn.compiling():
            text = jax.jit(function).lower(*args).compile().as_text()
        return text.count('custom_call_target="__onednn$')

    forward = calls(
        lambda v, x: system.model.apply(v, normalise_images(x)), variables, batch["image"]
    )
    step, state = make_step(config, system, variables, ("face",))
    assert calls(step, state, batch) == forward + 3  # the kernels of the three last layers
    step, state = make_step(config, system, variables, EVERYTHING)
    assert calls(step, state, batch) > 2.5 * forward


def test_the_folded_network_equals_the_network():
    config = tiny_config()
    system, variables = tiny_system(config)
    images = normalise_images(random_batch(config, 2)["image"])
    expected = run(system.model.apply, variables, images)
    convolution = folded_convolution(jnp.float32)
    folded = fold(system.model, variables, convolution)
    network = partial(apply_folded, system.model, convolution=convolution)
    found = run(network, folded, images)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_threads_that_compile_at_once_leave_the_cache_as_it_was():
    def threshold():
        return jax.config.jax_persistent_cache_min_compile_time_secs

    before = threshold()
    first, second = onednn.compiling(), onednn.compiling()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threshold() == float("inf")  # the second one compiles yet
    second.__exit__(None, None, None)
    assert threshold() == before


def test_nothing_is_offered_to_the_persistent_cache(tmp_path):
    # Writing a program with these calls fails, which JAX reports as a warning: an error here.
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        x, kernel, _ = operands((1, 6, 6, 3, 5, 3, 1))
        run(lambda x, kernel: fast_conv2d(x, kernel) + 1, x, kernel)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert not list(tmp_path.iterdir())
