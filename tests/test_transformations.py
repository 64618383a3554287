"""The network as it is by default: any transformation of JAX, for any platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mtnet_jax.cpu import onednn
from mtnet_jax.cpu.choice import fastest
from mtnet_jax.network import GROUPS, MultitaskNet
from tests.tiny import trained_variables

SIDE = 64


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
    """The tests turn oneDNN off (tests/conftest.py), users do not."""
    monkeypatch.setenv("MTNET_ONEDNN", "1")


@pytest.fixture(scope="module")
def net():
    model = MultitaskNet(1, 9, width=0.1, depth=0.01)
    return model, trained_variables(model, SIDE)


def images_of(*shape: int) -> jax.Array:
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.uniform(size=(*shape, SIDE, SIDE, 3)), jnp.float32)


def in_training(model):
    """Variables, images -> outputs, with the statistics of the batch."""

    def apply(variables, images):
        return model.apply(variables, images, train=GROUPS, mutable=["batch_stats"])[0]

    return apply


def assert_close(actual, expected):
    """Up to rounding, beside the largest value of a map."""
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * np.abs(b).max())


def test_vmap_over_batches(net):
    model, variables = net
    images = images_of(2, 1)
    together = jax.jit(jax.vmap(model.apply, in_axes=(None, 0)))(variables, images)
    for i in range(2):
        assert_close([whole[i] for whole in together], jax.jit(model.apply)(variables, images[i]))


def test_vmap_over_networks(net):
    model, variables = net
    two = jax.tree.map(lambda v: jnp.stack([v, 1.1 * v]), variables)
    images = images_of(1)
    together = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(two, images)
    second = jax.jit(model.apply)(jax.tree.map(lambda v: v[1], two), images)
    assert_close([whole[1] for whole in together], second)


def test_forward_derivatives_are_those_of_the_gradient(net):
    """In training, where the normalisation reads the batch: <dy, J v> = <J^T dy, v>."""
    model, variables = net
    images, direction = images_of(2), images_of(2)[::-1] - 0.5
    function = lambda x: in_training(model)(variables, x)[0].sum()  # noqa: E731
    forward = jax.jit(lambda x, v: jax.jvp(function, (x,), (v,))[1])(images, direction)
    backward = (jax.jit(jax.grad(function))(images) * direction).sum()
    assert abs(forward) > 1e-3
    np.testing.assert_allclose(forward, backward, rtol=1e-3)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_it_is_exported_for_any_platform(net, platform):
    model, variables = net
    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), variables)
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, SIDE, SIDE, 3), jnp.float32)
    for function in (model.apply, in_training(model)):
        exported = export.export(jax.jit(function), platforms=[platform])(shapes, images)
        assert "onednn" not in exported.mlir_module()
        assert exported.serialize()


def test_what_commands_train_with_computes_the_same(net):
    """Another convolution, another gradient of the normalisation; the same variables and values."""
    model, variables = net
    images = images_of(2)
    fast = fastest(model)
    loss = lambda model: lambda v: sum((y**2).sum() for y in in_training(model)(v, images))  # noqa: E731
    with onednn.compiling():
        plain, gradient = jax.jit(jax.value_and_grad(loss(model)))(variables)
        other, other_gradient = jax.jit(jax.value_and_grad(loss(fast)))(variables)
    np.testing.assert_allclose(other, plain, rtol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (gradient, other_gradient)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * float(jnp.abs(a).max()) + 1e-6)
