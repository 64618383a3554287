"""Convolution and BatchNorm with LeakyReLU against slow NumPy and PyTorch-free formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax.cpu.convolution import compiler_options, conv2d
from mtnet_jax.network.normalisation import batch_norm_leaky

EPS, SLOPE = 1e-5, 0.1
CONV_CASES = [  # (batch, height, width, in, out, kernel, stride)
    (1, 5, 7, 3, 4, 3, 1),
    (2, 8, 6, 4, 8, 3, 2),
    (1, 9, 7, 5, 3, 3, 2),
    (3, 6, 5, 8, 2, 1, 1),
    (1, 1, 1, 4, 4, 3, 1),
]
NORM_SHAPES = [(1, 5, 7, 3), (4, 8, 6, 8), (2, 1, 1, 5), (3, 13, 13, 16)]


def slow_conv(x, kernel, stride):
    """Sum over the window, one output pixel at a time, in float64."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = (x.shape[1] - 1) // stride + 1
    columns = (x.shape[2] - 1) // stride + 1
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            window = padded[:, top : top + size, left : left + size]
            y[:, i, j] = np.einsum("bhwi,hwio->bo", window, kernel)
    return y


def conv_operands(case):
    batch, height, width, channels, features, size, _ = case
    generator = np.random.default_rng(sum(case))
    x = generator.normal(size=(batch, height, width, channels))
    kernel = generator.normal(size=(size, size, channels, features))
    return x, kernel


def slow_norm(x, scale, bias):
    """BatchNorm and LeakyReLU as in their papers, two passes, float64."""
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    z = (x - mean) / np.sqrt(variance + EPS) * scale + bias
    return np.where(z >= 0, z, SLOPE * z), mean, variance


def norm_operands(shape):
    generator = np.random.default_rng(sum(shape))
    x = 3 * generator.normal(size=shape) + generator.normal(size=shape[-1])
    # A negative scale is legal, and turns the side on which the LeakyReLU is steep.
    return x, generator.normal(size=shape[-1]), generator.normal(size=shape[-1])


def plain_norm(x, scale, bias):
    """The two layers of Flax that `batch_norm_leaky` stands for."""
    layer = nn.BatchNorm(use_running_average=False, epsilon=EPS, dtype=x.dtype)
    zeros = jnp.zeros_like(scale)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": zeros, "var": zeros},
    }
    return nn.leaky_relu(layer.apply(variables, x, mutable=["batch_stats"])[0], SLOPE)


def compiled(function, *operands):
    """Compiles as the project does, and calls."""
    return jax.jit(function, compiler_options=compiler_options())(*operands)


def as_float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("case", CONV_CASES)
def test_conv_equals_the_sum_over_the_window(case):
    x, kernel = conv_operands(case)
    y = compiled(lambda x, kernel: conv2d(x, kernel, case[-1]), *as_float32(x, kernel))
    np.testing.assert_allclose(y, slow_conv(x, kernel, case[-1]), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", CONV_CASES)
def test_conv_gradients_are_those_of_a_bilinear_map(case):
    x, kernel = conv_operands(case)
    generator = np.random.default_rng(1)
    dy = generator.normal(size=slow_conv(x, kernel, case[-1]).shape)
    loss = lambda x, kernel: jnp.sum(conv2d(x, kernel, case[-1]) * as_float32(dy)[0])  # noqa: E731
    dx, dkernel = compiled(jax.grad(loss, (0, 1)), *as_float32(x, kernel))
    # The map is linear in each operand: <gradient, direction> is the loss of the direction.
    for _ in range(3):
        direction_x, direction_kernel = (generator.normal(size=a.shape) for a in (x, kernel))
        expected = np.sum(dy * slow_conv(direction_x, kernel, case[-1]))
        assert np.sum(np.asarray(dx, float) * direction_x) == pytest.approx(expected, 1e-4, 1e-3)
        expected = np.sum(dy * slow_conv(x, direction_kernel, case[-1]))
        actual = np.sum(np.asarray(dkernel, float) * direction_kernel)
        assert actual == pytest.approx(expected, 1e-4, 1e-3)


def test_conv_keeps_bfloat16():
    x, kernel = conv_operands(CONV_CASES[0])
    x, kernel = (jnp.asarray(array, jnp.bfloat16) for array in (x, kernel))
    y = compiled(conv2d, x, kernel)
    assert y.dtype == jnp.bfloat16
    expected = slow_conv(np.asarray(x, float), np.asarray(kernel, float), 1)
    np.testing.assert_allclose(np.asarray(y, float), expected, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("shape", NORM_SHAPES)
def test_norm_equals_the_two_pass_formula(shape):
    operands = norm_operands(shape)
    actual = compiled(lambda *a: batch_norm_leaky(*a, EPS, SLOPE), *as_float32(*operands))
    for value, expected in zip(actual, slow_norm(*operands), strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", NORM_SHAPES)
def test_norm_gradients_equal_finite_differences(shape):
    operands = norm_operands(shape)
    generator = np.random.default_rng(2)
    dy = generator.normal(size=shape)
    loss = lambda *a: jnp.sum(batch_norm_leaky(*a, EPS, SLOPE)[0] * as_float32(dy)[0])  # noqa: E731
    gradients = compiled(jax.grad(loss, (0, 1, 2)), *as_float32(*operands))
    for index, gradient in enumerate(gradients):
        direction = generator.normal(size=operands[index].shape)
        step = 1e-6

        def moved(sign, index=index, direction=direction, step=step):
            changed = list(operands)
            changed[index] = operands[index] + sign * step * direction
            return np.sum(slow_norm(*changed)[0] * dy)

        expected = (moved(1) - moved(-1)) / (2 * step)
        actual = np.sum(np.asarray(gradient, float) * direction)
        assert actual == pytest.approx(expected, 1e-3, 1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
def test_norm_and_its_gradients_equal_the_two_layers(dtype, tolerance):
    x, scale, bias = as_float32(*norm_operands((4, 8, 6, 8)))
    x = x.astype(dtype)
    dy = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), dtype)
    y, pull = jax.vjp(plain_norm, x, scale, bias)
    fused, pull_fused = jax.vjp(lambda *a: batch_norm_leaky(*a, EPS, SLOPE)[0], x, scale, bias)
    assert fused.dtype == y.dtype == dtype
    expected = [y, *pull(dy)]
    for value, other in zip([fused, *pull_fused(dy)], expected, strict=True):
        assert value.dtype == other.dtype
        scale_of = float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(
            np.asarray(value, float), np.asarray(other, float), atol=tolerance * scale_of
        )


def test_norm_of_a_constant_map_is_finite():
    x, ones = jnp.full((2, 4, 4, 3), 1000.1, jnp.float32), jnp.ones(3)
    y, _, variance = batch_norm_leaky(x, ones, ones, EPS, SLOPE)
    assert np.all(variance >= 0)
    assert np.all(np.isfinite(y))
    gradient = jax.grad(lambda x: batch_norm_leaky(x, ones, ones, EPS, SLOPE)[0].sum())(x)
    assert np.all(np.isfinite(gradient))


def test_statistics_carry_no_gradient():
    x, scale, bias = as_float32(*norm_operands((2, 4, 4, 3)))
    gradient = jax.grad(lambda x: batch_norm_leaky(x, scale, bias, EPS, SLOPE)[1].sum())(x)
    assert not np.any(gradient)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends keep their defaults")
def test_barriers_reach_the_fusions():
    """Else XLA's CPU compiler computes the gradient behind a BatchNorm again for each reader."""

    def twice(x):
        y = jax.lax.optimization_barrier(jnp.sin(x))
        return y + 1, y * 2

    x = jnp.ones((8, 8))
    lowered = jax.jit(twice).lower(x)
    kept = lowered.compile(compiler_options()).as_text()
    assert "opt-barrier(" in kept
    assert "opt-barrier(" not in lowered.compile().as_text()
