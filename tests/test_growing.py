"""A larger network begins as the smaller one was, and all of it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from benchmarks.mean_weights import check_same, mean_of
from mtnet_jax.config import flatten as flatten_config
from mtnet_jax.network import GROUPS, MultitaskNet
from mtnet_jax.training.growing import grow
from tests.tiny import QUICK, random_variables, run, tiny_config

SMALL = {"width": 0.02, "depth": 0.1, "pose_blocks": 1}
WIDER = {"width": 0.4, "depth": 0.3, "pose_width": 0.05}


def grown(small: MultitaskNet, large: MultitaskNet):
    """Variables of both, those of the second out of the first."""
    before = random_variables(small, seed=0)
    fresh = random_variables(large, seed=1)
    groups = {group: grow(group, fresh, before) for group in fresh["params"]}
    assert None not in groups.values()
    after = {
        kind: {group: tree[kind] for group, tree in groups.items() if kind in tree}
        for kind in fresh
    }
    sizes = lambda tree: jax.tree.map(np.shape, tree)  # noqa: E731
    assert sizes(after) == sizes(fresh)
    return before, after


@pytest.mark.parametrize(
    ("small", "larger"),
    [
        ({}, {"pose_width": 0.05, "pose_blocks": 3}),
        ({"pose_blocks": 2}, WIDER),
        ({"aggregate": "boxes"}, WIDER),
        ({"version": "v1", "pose_blocks": 0}, {"width": 0.4, "depth": 0.3}),
    ],
)
def test_it_says_the_same_and_learns(small, larger):
    options = {"num_classes": 1, "pose_size": 9, **SMALL, **small}
    net, large = MultitaskNet(**options), MultitaskNet(**{**options, **larger})
    before, after = grown(net, large)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    for train in ((), GROUPS):  # with statistics that run, and with those of the batch
        says = [
            run(lambda v, n=n, t=train: n.apply(v, images, train=t, mutable=["batch_stats"])[0], v)
            for n, v in ((net, before), (large, after))
        ]
        for a, b in zip(*says, strict=True):
            assert np.abs(a).max() > 0.1
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * np.abs(a).max())

    # What feeds channels that nothing reads yet moves after what reads them has.
    def loss(params):
        outputs = large.apply({**after, "params": params}, images)
        return sum(jnp.sum(jnp.sin(output)) for output in outputs)

    gradient = jax.jit(jax.grad(loss), compiler_options=QUICK)
    params = after["params"]
    for _ in range(4):  # ever deeper
        params = jax.tree.map(lambda p, g: p + 1e-3 * jnp.sign(g), params, gradient(params))
    moves = flatten_dict(gradient(params), sep="/")
    assert [name for name, g in moves.items() if not np.abs(g).any()] == []


def test_every_number_of_the_old_network_is_in_the_new_one():
    options = {"num_classes": 1, "pose_size": 9, **SMALL}
    before, after = grown(MultitaskNet(**options), MultitaskNet(**{**options, **WIDER}))
    new = flatten_dict(after["params"], sep="/")
    for name, old in flatten_dict(before["params"], sep="/").items():
        assert np.isin(old, new[name]).all(), name
        if name.endswith("kernel") and "conv" in name:
            # New channels compute something.
            assert np.abs(new[name]).sum((0, 1, 2)).min() > 0, name


@pytest.mark.parametrize(
    ("change", "group"),
    [
        ({"pose_size": 6}, "pose"),  # a smaller representation in a larger one is none
        ({"num_classes": 2}, "face"),
        ({"width": 0.1}, "backbone"),  # the stored one is the larger
        ({"depth": 0.5}, "backbone"),
        ({"version": "v1"}, "face"),
        ({"aggregate": "none"}, "pose"),
        ({"num_classes": 1}, "pose"),  # what the face branch says lies anchor by anchor
    ],
)
def test_what_differs_in_more_than_size_does_not_grow(change, group):
    options = {"num_classes": 3, "pose_size": 9, "aggregate": "boxes", **SMALL}
    fresh = random_variables(MultitaskNet(**options), seed=0)
    if change.get("version") == "v1":
        change = {**change, "aggregate": "none", "pose_blocks": 0}
    stored = random_variables(MultitaskNet(**{**options, **change}), seed=1)
    assert grow(group, fresh, stored) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("frame", "ray"), ("class_names", ("hat", "head")), ("model.pose_activation", "tanh")],
)
def test_weights_whose_numbers_mean_something_else_have_no_mean(option, value):
    found, config = tiny_config(), tiny_config()
    found.class_names = config.class_names = ("head", "hat")
    variables = {"params": dict.fromkeys(GROUPS)}
    check_same(found, config, variables)
    with found.unlocked():
        found.update_from_flattened_dict({option: value})
    assert flatten_config(found) != flatten_config(config)
    with pytest.raises(ValueError, match="no mean"):
        check_same(found, config, variables)


def test_the_mean_of_two_weights():
    """A quarter of the way from one to the other; a smaller one counts with zeros."""
    options = {"num_classes": 1, "pose_size": 9, **SMALL}
    small, large = MultitaskNet(**options), MultitaskNet(**options, pose_width=0.05)
    earlier, later = random_variables(small, seed=0), random_variables(large, seed=1)
    mean = mean_of(later, earlier, 0.25)
    stem = [tree["params"]["backbone"]["stem"]["kernel"] for tree in (mean, later, earlier)]
    np.testing.assert_allclose(stem[0], 0.25 * stem[1] + 0.75 * stem[2], rtol=1e-6)
    says, before, after = (
        tree["params"]["pose"]["scale1"]["kernel"] for tree in (mean, earlier, later)
    )
    old = before.shape[2]
    assert after.shape[2] > old
    np.testing.assert_allclose(
        says[:, :, :old], 0.25 * after[:, :, :old] + 0.75 * before, rtol=1e-5
    )
    np.testing.assert_allclose(says[:, :, old:], 0.25 * after[:, :, old:], rtol=1e-6)
    other = random_variables(MultitaskNet(**{**options, "pose_size": 6}), seed=0)
    with pytest.raises(ValueError, match="pose"):
        mean_of(later, other, 0.5)
