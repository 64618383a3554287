"""The network against a PyTorch twin, published sizes, and its own promises about freezing."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.network import GROUPS, STRIDES, MultitaskNet, count_parameters
from mtnet_jax.network.branches import FaceBranch, PoseBranch
from mtnet_jax.network.darknet53 import ResidualBlock
from mtnet_jax.network.fpn import ScaleFeatures
from mtnet_jax.network.layers import ConvBN, scaled_channels
from tests.tiny import random_variables, run

SMALL = {"width": 0.25, "depth": 0.1875}
SMALL_TWIN = {"base": 8, "blocks": (1, 1, 2, 2, 1)}


@pytest.fixture(scope="module")
def twins():
    pytest.importorskip("torch", reason="PyTorch is not installed: no twin to compare with")
    from tests import torch_twin

    return torch_twin


@functools.cache
def abstract_variables(net: MultitaskNet):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)


def random_images(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("options", "twin_options"),
    [
        *(({"version": "v1", "pose_size": n}, {}) for n in (3, 4, 6, 9)),
        *(({"version": "v2", "pose_size": n}, {}) for n in (3, 4, 6, 9)),
        ({"version": "v1", "pose_size": 9, "pose_activation": "tanh"}, {"tanh_pose": True}),
        (
            {"version": "v1", "pose_size": 3, "num_classes": 2, "box_activation": "tanh"},
            {"tanh_box": True},
        ),
        (
            {"version": "v2", "pose_size": 9, "num_classes": 3, "pose_activation": "tanh"},
            {"tanh_pose": True},
        ),
        ({"version": "v2", "pose_size": 9, "aggregate": "boxes"}, {"boxes_to_pose": True}),
        ({"version": "v2", "pose_size": 9, "pose_blocks": 2}, {"pose_blocks": 2}),
    ],
)
def test_forward_equals_torch_twin(twins, options, twin_options):
    _compare_forward(
        twins, {"num_classes": 1, **options, **SMALL}, {**twin_options, **SMALL_TWIN}, (2, 32, 64)
    )


@pytest.mark.slow
def test_forward_of_the_full_net_equals_torch_twin(twins):
    """Version v1; v2 of full size is compared in test_darknet_weights.py."""
    _compare_forward(
        twins, {"num_classes": 1, "pose_size": 9, "version": "v1"}, {}, (1, 64, 64), True
    )


def _compare_forward(twins, options, twin_options, shape_BHW, full=False):
    net = MultitaskNet(**options)
    variables = random_variables(net, seed=1)
    images = random_images((*shape_BHW, 3))
    twin = twins.TorchTwin(
        options["version"], options["num_classes"], options["pose_size"], **twin_options
    ).eval()
    twin.copy_from_flax(variables)
    # Without jit the small nets share their compiled layers, which takes less time.
    outputs = run(net.apply, variables, images) if full else net.apply(variables, images)
    expected = twins.run_twin(twin, images)
    assert len(outputs) == 3
    for output, other in zip(outputs, expected, strict=True):
        assert output.dtype == jnp.float32
        assert 0.1 < np.abs(other).max() < 50  # a comparison of zeros would show nothing
        np.testing.assert_allclose(output, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("train", [("neck", "face"), ("backbone", "pose")])
def test_training_mode_and_frozen_groups(twins, train):
    """Outputs and running statistics as torch's, the groups in train() or eval() one by one.

    Normalising by the batch amplifies rounding: outputs agree to 1e-4 of the largest value.
    """
    net = MultitaskNet(num_classes=1, pose_size=9, **SMALL)
    variables = random_variables(net, seed=2)
    images = random_images((4, 64, 64, 3))
    twin = twins.TorchTwin("v2", 1, 9, **SMALL_TWIN).eval()
    twin.copy_from_flax(variables)
    for group in train:
        getattr(twin, group).train()

    def forward(variables, images):
        return net.apply(variables, images, train=train, mutable=["batch_stats"])

    outputs, updated = run(forward, variables, images)
    # Running statistics by formula from the twin's batch statistics: torch's own update takes the
    # unbiased variance, Flax the biased one.
    batch = twins.batch_statistics(twin, images)
    for output, other in zip(outputs, twins.run_twin(twin, images), strict=True):
        np.testing.assert_allclose(output, other, rtol=0, atol=1e-4 * np.abs(other).max())
    for path, old in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]):
        names = [entry.key for entry in path]
        new = updated["batch_stats"]
        for name in names:
            new = new[name]
        if names[0] in train:
            expected = 0.9 * old + 0.1 * batch[".".join(names[:-1])][names[-1]]
            np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-5, err_msg=str(names))
            assert not np.array_equal(new, old)
        else:
            np.testing.assert_array_equal(new, old)


def test_parameter_counts():
    v1 = count_parameters(abstract_variables(MultitaskNet(1, 9, version="v1"))["params"])
    v2 = count_parameters(abstract_variables(MultitaskNet(1, 9, version="v2"))["params"])
    assert list(v1) == ["backbone", "neck", "face"]
    assert list(v2) == list(GROUPS)
    assert v1["backbone"] == v2["backbone"] == 40_584_928  # Darknet-53: 40.6M
    # The paper: 61.5M and 62.3M, digits after the first one cut off.
    assert sum(v1.values()) == 61_572_199
    assert sum(v2.values()) == 62_319_847
    assert truncated(sum(v1.values()), 1e6) == 61.5
    assert truncated(sum(v2.values()), 1e6) == 62.3


def truncated(count: int, unit: float) -> float:
    return math.floor(count / unit * 10) / 10


@pytest.mark.parametrize(("version", "gigaflops"), [("v1", 65.3), ("v2", 66.0)])
def test_flops_at_416(twins, version, gigaflops):
    import torch

    with torch.device("meta"):
        twin = twins.TorchTwin(version, 1, 9).eval()
    full, inside = twins.convolution_flops(twin, 416)
    assert truncated(full, 1e9) == gigaflops

    net = MultitaskNet(1, 9, version=version)
    images = jax.ShapeDtypeStruct((1, 416, 416, 3), jnp.float32)
    cost = jax.jit(net.apply).lower(abstract_variables(net), images).cost_analysis()
    # XLA counts no products with padding, and adds BatchNorm and LeakyReLU (under 1%).
    assert inside <= cost["flops"] <= 1.01 * full
    assert cost["flops"] / 1e9 == pytest.approx(gigaflops, rel=0.05)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("height", "width"), [(416, 416), (320, 608)])
def test_output_shapes(version, height, width):
    net = MultitaskNet(num_classes=2, pose_size=6, version=version, width=0.5, depth=0.5)
    images = jax.ShapeDtypeStruct((5, height, width, 3), jnp.float32)
    outputs = jax.eval_shape(net.apply, abstract_variables(net), images)
    assert STRIDES == (32, 16, 8)
    assert [output.shape for output in outputs] == [
        (5, height // stride, width // stride, 3, 5 + 2 + 6) for stride in STRIDES
    ]


def test_a_pose_branch_may_be_wider_than_the_network():
    """Hidden channels of the paper's branch are 512, 256, 128; all else stays as it is."""
    narrow = abstract_variables(MultitaskNet(1, 9, width=0.25, depth=0.125))["params"]
    wide = abstract_variables(MultitaskNet(1, 9, width=0.25, depth=0.125, pose_width=2.0))["params"]
    for params, hidden in ((narrow, (128, 64, 32)), (wide, (1024, 512, 256))):
        kernels = [params["pose"][f"hidden{scale}"]["kernel"].shape for scale in (1, 2, 3)]
        assert tuple(shape[-1] for shape in kernels) == hidden
    without = [{k: v for k, v in p.items() if k != "pose"} for p in (narrow, wide)]
    assert jax.tree.map(jnp.shape, without[0]) == jax.tree.map(jnp.shape, without[1])


def test_bfloat16_is_close_and_keeps_float32_state():
    options = {"num_classes": 1, "pose_size": 9, "aggregate": "boxes", **SMALL}
    net, half = MultitaskNet(**options), MultitaskNet(**options, dtype=jnp.bfloat16)
    variables = random_variables(net, seed=3)
    images = random_images((2, 64, 64, 3))

    def train(variables, images):
        return half.apply(variables, images, train=GROUPS, mutable=["batch_stats"])

    float32 = {jnp.dtype("float32")}
    state = abstract_variables(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == float32
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(train, state, images))} == float32

    exact, rounded = (run(model.apply, variables, images) for model in (net, half))
    for a, b in zip(exact, rounded, strict=True):
        error = np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2))
        assert 1e-4 < error < 0.05  # not equal: it does compute in bfloat16


def test_statistics_are_reduced_in_float32():
    """A sum of 65,536 bfloat16 ones would stop at 256 if it were kept in bfloat16."""
    layer = ConvBN(8, 1, dtype=jnp.bfloat16)
    images = 1 + 0.5 * random_images((4, 128, 128, 3), seed=4)
    variables = layer.init(jax.random.key(0), images, train=False)
    kernel = np.zeros((1, 1, 3, 8), np.float32)
    kernel[0, 0, 0, :] = 1
    variables["params"]["kernel"] = kernel
    _, updated = layer.apply(variables, images, train=True, mutable=["batch_stats"])
    channel = np.asarray(images[..., 0].astype(jnp.bfloat16), np.float64)
    stats = updated["batch_stats"]["bn"]
    np.testing.assert_allclose(stats["mean"], 0.1 * channel.mean(), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * channel.var(), rtol=1e-4)


def test_fresh_objectness_is_one_in_a_hundred():
    features = np.zeros((1, 2, 2, 8), np.float32)
    scales = [ScaleFeatures(features, features)] * 3
    outputs, variables = FaceBranch(5 + 2 + 9).init_with_output(jax.random.key(0), scales)
    for number, output in enumerate(outputs, start=1):
        values = output.reshape(1, 2, 2, 3, 16)
        np.testing.assert_allclose(1 / (1 + np.exp(-values[..., 4])), 0.01, rtol=1e-5)
        bias = np.array(variables["params"][f"scale{number}"]["bias"]).reshape(3, 16)
        assert not np.delete(bias, 4, axis=1).any()


def test_fresh_residual_block_is_nearly_the_identity():
    """At scale 1 each of 23 blocks adds half to the spread of a backbone frozen from the start."""
    maps = np.random.default_rng(0).standard_normal((1, 16, 16, 64), np.float32)
    output, _ = ResidualBlock().init_with_output(jax.random.key(0), maps, train=False)
    assert 0 < np.std(output - maps) < 0.3
    assert np.std(output) ** 23 < 5


def test_pose_gives_no_gradient_to_aggregated_boxes():
    branch = PoseBranch(pose_size=3, width=0.02, aggregate="boxes")
    scales = [ScaleFeatures(random_images((1, 2, 2, 8)), random_images((1, 2, 2, 8)))] * 3
    faces = [random_images((1, 2, 2, 18), seed=5)] * 3

    def outputs_and_gradient(key, faces):
        variables = branch.init(key, scales, faces, train=False)

        def outputs(faces):
            return branch.apply(variables, scales, faces, train=False)

        return outputs(faces), jax.grad(lambda f: sum(jnp.sum(o) for o in outputs(f)))(faces)

    key = jax.random.key(0)
    outputs, gradients = run(outputs_and_gradient, key, faces)
    changed, _ = run(outputs_and_gradient, key, [face + 1 for face in faces])
    for before, after, gradient in zip(outputs, changed, gradients, strict=True):
        assert not np.allclose(before, after)
        assert not np.any(gradient)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 100, 96, 3), "100 x 96"),
        ((1, 416, 400, 3), "416 x 400"),
        ((1, 16, 32, 3), "16 x 32"),
        ((1, 0, 32, 3), "0 x 32"),
        ((416, 416, 3), "expected"),
        ((1, 3, 416, 416), "expected"),
    ],
)
def test_odd_images_are_refused(shape, message):
    net = MultitaskNet(1, 9, **SMALL)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.apply, abstract_variables(net), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v3"}, "version"),
        ({"box_activation": "relu"}, "box_activation"),
        ({"pose_activation": "relu"}, "pose_activation"),
        ({"aggregate": "faces"}, "aggregate"),
        ({"version": "v1", "aggregate": "boxes"}, "v1"),
        ({"version": "v1", "pose_width": 1.0}, "v1"),
        ({"version": "v1", "pose_blocks": 1}, "v1"),
        ({"width": 0.0}, "width"),
        ({"depth": -1.0}, "depth"),
        ({"pose_width": -1.0}, "pose_width"),
        ({"pose_blocks": -1}, "pose_blocks"),
        ({"num_classes": 0}, "num_classes"),
        ({"pose_size": 0}, "pose_size"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        abstract_variables(MultitaskNet(**{"num_classes": 1, "pose_size": 9, **options}))


@pytest.mark.parametrize("train", ["face", ("face", "head")])
def test_unknown_groups_are_refused(train):
    net = MultitaskNet(1, 9, **SMALL)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    with pytest.raises(ValueError, match="backbone, neck, face, pose"):
        jax.eval_shape(lambda v, x: net.apply(v, x, train=train), abstract_variables(net), images)


def test_scaled_channels():
    for channels in (32, 64, 128, 256, 512, 1024):
        assert scaled_channels(channels, 1.0) == channels
        assert scaled_channels(channels, 0.25) == max(8, channels // 4)
    assert scaled_channels(32, 0.01) == 8
    assert scaled_channels(64, 0.3) == 16  # 19.2, nearest multiple of 8
