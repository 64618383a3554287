"""The folded network against the network, and the convolution of Winograd against slow products."""

from functools import partial

import jax
import numpy as np
import pytest

from mtnet_jax.cpu.winograd import transform_kernel, winograd_conv
from mtnet_jax.network import MultitaskNet
from mtnet_jax.network.folding import Folded, apply_folded, fold
from tests.tiny import trained_variables


def slow_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3x3, padding 1: nine shifted products in float64."""
    _, height, width, _ = x.shape
    x = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (13, 6), (2, 3), (1, 1)])
def test_winograd_is_the_convolution(height, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 5, 6)).astype(np.float32)
    expected = slow_convolution(x, kernel)
    found = jax.jit(lambda x, k: winograd_conv(x, transform_kernel(k)))(x, kernel)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


NETS = {
    "v2": {"width": 0.125, "depth": 0.2},
    "v1": {"width": 0.1, "depth": 0.01, "version": "v1", "pose_activation": "tanh"},
    "boxes to pose": {"width": 0.1, "depth": 0.01, "aggregate": "boxes", "box_activation": "tanh"},
}


@pytest.mark.parametrize("name", NETS)
def test_folded_network_is_the_network(name):
    model = MultitaskNet(2, 9, **NETS[name])
    variables = trained_variables(model, 96)
    images = np.random.default_rng(1).uniform(size=(2, 96, 96, 3)).astype(np.float32)
    expected = jax.jit(model.apply)(variables, images)
    for winograd in (False, True):
        folded = jax.jit(partial(fold, model, winograd=winograd))(variables)
        found = jax.jit(partial(apply_folded, model))(folded, images)
        for level, wanted in zip(found, expected, strict=True):
            assert np.asarray(wanted).std() > 0.1
            np.testing.assert_allclose(level, wanted, atol=2e-5 * np.abs(wanted).max())


def kernels_of(folded: Folded) -> dict[str, tuple[int, ...]]:
    return {name: unit.kernel.shape for name, unit in folded.units.items()}


def test_only_kernels_that_gain_are_transformed():
    model = MultitaskNet(1, 9, width=0.25)

    def init(key):
        return model.init(key, np.zeros((1, 32, 32, 3), np.float32))

    abstract = jax.eval_shape(init, jax.random.key(0))
    plain, fast = (
        kernels_of(jax.eval_shape(lambda v, w=winograd: fold(model, v, winograd=w), abstract))
        for winograd in (False, True)
    )
    assert len(plain) == 52 + 18 + 2 + 3  # backbone, neck with laterals, hidden layers of the poses
    changed = {name for name in plain if plain[name] != fast[name]}
    assert "backbone/stem" not in changed  # 3 channels in
    assert not any(name.endswith("_down") for name in changed)  # stride 2
    assert "backbone/stage5_block4/conv2" in changed
    for name in changed:
        size, _, inputs, outputs = plain[name]
        assert size == 3
        assert fast[name] == (4, 4, inputs, outputs)


def test_bfloat16_stays_near_float32():
    settings = {"width": 0.1, "depth": 0.01}
    exact = MultitaskNet(1, 9, **settings)
    variables = trained_variables(exact, 64)
    images = np.random.default_rng(1).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    model = MultitaskNet(1, 9, dtype=jax.numpy.bfloat16, **settings)
    folded = jax.jit(partial(fold, model, winograd=False))(variables)
    found = jax.jit(partial(apply_folded, model))(folded, images)
    for level, wanted in zip(found, jax.jit(exact.apply)(variables, images), strict=True):
        assert level.dtype == np.float32
        difference = np.abs(np.asarray(level) - wanted).mean()
        assert 0 < difference < 0.03 * np.abs(np.asarray(wanted)).mean()
