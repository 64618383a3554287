"""Convolution and BatchNorm with LeakyReLU against slow NumPy and PyTorch-free formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtnet_jax.cpu.choice import training_options
from mtnet_jax.network import GROUPS, MultitaskNet
from mtnet_jax.network.convolution import conv2d
from mtnet_jax.network.normalisation import batch_norm_leaky, lean_batch_norm_leaky

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
    return jax.jit(function, compiler_options=training_options())(*operands)


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
    actual = compiled(lambda *a: lean_batch_norm_leaky(*a, EPS, SLOPE), *as_float32(*operands))
    for value, expected in zip(actual, slow_norm(*operands), strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", NORM_SHAPES)
def test_norm_gradients_equal_finite_differences(shape):
    operands = norm_operands(shape)
    generator = np.random.default_rng(2)
    dy = generator.normal(size=shape)
    loss = lambda *a: jnp.sum(lean_batch_norm_leaky(*a, EPS, SLOPE)[0] * as_float32(dy)[0])  # noqa: E731
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
    fused, pull_fused = jax.vjp(lambda *a: lean_batch_norm_leaky(*a, EPS, SLOPE)[0], x, scale, bias)
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
    y, _, variance = lean_batch_norm_leaky(x, ones, ones, EPS, SLOPE)
    assert np.all(variance >= 0)
    assert np.all(np.isfinite(y))
    gradient = jax.grad(lambda x: lean_batch_norm_leaky(x, ones, ones, EPS, SLOPE)[0].sum())(x)
    assert np.all(np.isfinite(gradient))


def test_statistics_carry_no_gradient():
    x, scale, bias = as_float32(*norm_operands((2, 4, 4, 3)))
    gradient = jax.grad(lambda x: lean_batch_norm_leaky(x, scale, bias, EPS, SLOPE)[1].sum())(x)
    assert not np.any(gradient)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends keep their defaults")
def test_barriers_reach_the_fusions():
    """Else XLA's CPU compiler computes the gradient behind a BatchNorm again for each reader."""

    def twice(x):
        y = jax.lax.optimization_barrier(jnp.sin(x))
        return y + 1, y * 2

    x = jnp.ones((8, 8))
    lowered = jax.jit(twice).lower(x)
    kept = lowered.compile(training_options()).as_text()
    assert "opt-barrier(" in kept
    assert "opt-barrier(" not in lowered.compile().as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_lean_normalisation_is_the_plain_one(dtype):
    """Same values, bit for bit; gradients by formula and by differentiation agree."""
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.normal(1, 2, (3, 5, 4, 6)), dtype)
    scale, bias = as_float32(rng.normal(size=6), rng.normal(size=6))
    dy = jnp.asarray(rng.normal(size=x.shape), dtype)
    both = []
    for function in (batch_norm_leaky, lean_batch_norm_leaky):
        y, pull, statistics = jax.vjp(
            lambda *a, f=function: (lambda out: (out[0], out[1:]))(f(*a, EPS, SLOPE)),
            *(x, scale, bias),
            has_aux=True,
        )
        both.append((y, statistics, pull(dy)))
    (y, statistics, gradients), (lean_y, lean_statistics, lean_gradients) = both
    np.testing.assert_array_equal(y, lean_y)
    for a, b in zip(statistics, lean_statistics, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(gradients, lean_gradients, strict=True):
        a, b = (np.asarray(v, np.float32) for v in (a, b))
        scale_of = np.abs(a).max() * (2e-2 if dtype == jnp.bfloat16 else 1e-5)
        np.testing.assert_allclose(a, b, atol=scale_of)


@pytest.fixture
def optimised():
    """As everywhere but in tests (tests/conftest.py)."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("optimised")
def test_the_compiled_gradient_of_a_whole_network_is_that_of_the_formula():
    """Compiled as one program, the plain normalisation too: what it computes anew in the backward
    pass may be rounded otherwise there, which the gradient of a maximum does not survive."""
    images = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    model = MultitaskNet(num_classes=1, pose_size=9, width=0.125, depth=0.1)
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def gradient(norm):
        def loss(params):
            outputs, _ = model.clone(norm=norm).apply(
                {**variables, "params": params}, images, train=GROUPS, mutable=["batch_stats"]
            )
            return (outputs[0][:, :1, :1] ** 2).sum()  # few cells, as the loss of poses has

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, lean = (
        jax.tree.leaves(gradient(norm)) for norm in (batch_norm_leaky, lean_batch_norm_leaky)
    )
    length = np.sqrt(sum((x**2).sum() for x in lean))
    assert length > 1e-3
    off = np.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(plain, lean, strict=True)))
    assert off < 1e-4 * length
