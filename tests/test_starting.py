"""What of other weights a network begins with: what fits in shape and in meaning."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtnet_jax.config import default_config, load_config
from mtnet_jax.errors import BadInput
from mtnet_jax.network import GROUPS, MultitaskNet
from mtnet_jax.training import starting
from mtnet_jax.training.starting import means_otherwise, start_from, start_warnings
from tests.tiny import random_variables

V1 = GROUPS[:3]  # groups of a network whose face branch says the pose


def saved(**options) -> ConfigDict:
    """A configuration as it lies beside weights: tuples are lists there."""
    config = default_config()
    config.update_from_flattened_dict(options)
    return ConfigDict(json.loads(config.to_json()))


def changed(**options) -> ConfigDict:
    config = default_config()
    config.update_from_flattened_dict(options)
    return config


@pytest.mark.parametrize(
    ("there", "here", "groups", "otherwise"),
    [
        ({}, {}, GROUPS, []),
        ({}, {"class_names": ("helmet",)}, GROUPS, []),  # the only class, whatever it is called
        ({"class_names": ("a", "b")}, {"class_names": ("b", "a")}, GROUPS, ["face"]),
        ({}, {"model.box_activation": "tanh"}, GROUPS, ["face"]),
        ({}, {"model.pose_activation": "tanh"}, GROUPS, ["pose"]),
        (
            {"model.aggregate": "boxes"},
            {"model.box_activation": "tanh", "model.aggregate": "boxes"},
            GROUPS,
            ["face", "pose"],
        ),
        ({}, {"model.pose_activation": "tanh"}, V1, ["face"]),
        ({}, {"model.pose_width": 2.0, "input.size": 320, "model.dtype": "bfloat16"}, GROUPS, []),
    ],
)
def test_groups_whose_numbers_mean_something_else(there, here, groups, otherwise):
    found = means_otherwise(saved(**there), changed(**here), groups)
    assert list(found) == otherwise
    for group, why in found.items():
        assert next(iter(here)) in why, group


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("release", "release_416"),
        ("release_416", "release_wide"),
        ("release_wide", "release_fine"),
    ],
)
def test_configurations_that_ship_go_on_with_each_other(there, here):
    found = ConfigDict(json.loads(load_config(there).to_json()))
    config = load_config(here)
    assert means_otherwise(found, config, GROUPS) == {}
    assert start_warnings(found, config) == []


def test_another_frame_and_other_anchors_are_warned_of():
    (warning,) = start_warnings(saved(frame="ray"), default_config())
    assert "in the frame 'ray', those of this training in 'camera'" in warning
    # The same numbers at half the size: half the pixels.
    (warning,) = start_warnings(saved(), changed(**{"input.size": 208}))
    assert "116x90 156x198" in warning
    assert "58x45 78x99" in warning


@pytest.fixture
def networks():
    """Variables of a network, and fresh ones of the same."""
    net = MultitaskNet(num_classes=1, pose_size=9, width=0.02, depth=0.1)
    return random_variables(net, seed=0), random_variables(net, seed=1)


@pytest.mark.parametrize(
    ("differs", "fresh"),
    [
        ("backbone", ["backbone", "neck", "face", "pose"]),
        ("neck", ["neck", "face", "pose"]),
        ("face", ["face"]),
        ("pose", ["pose"]),
    ],
)
def test_what_reads_a_fresh_group_is_fresh_itself(networks, differs, fresh):
    stored, new = networks
    variables, became = start_from(stored, new, [differs])
    assert became.get("fresh") == fresh
    for group in GROUPS:
        expected = new if group in fresh else stored
        jax.tree.map(
            np.testing.assert_array_equal, variables["params"][group], expected["params"][group]
        )


def test_what_became_of_the_groups_is_said_with_the_reason(monkeypatch, networks, capsys):
    stored, new = networks
    found = saved(**{"model.pose_activation": "tanh", "frame": "ray"})
    monkeypatch.setattr(starting, "load_weights", lambda folder: (found, stored))
    config = changed(**{"init.weights": "old"})
    starting._start_from(config, new)
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "from old: backbone, neck, face as they are; pose fresh; "
        "pose: model.pose_activation is 'tanh' there, 'none' here"
    )
    assert second.startswith("WARNING: old: its rotations are in the frame 'ray'")
    del stored["params"]["backbone"]
    found.model.width = 2.0
    with pytest.raises(BadInput, match=r"in old fits .*: config\.model\.width is 2\.0 there, 1\.0"):
        starting._start_from(config, new)


def test_seeds_differ_in_all_their_bits():
    seeds = (0, 7, 2**32, 2**32 + 7, 2**33, 2**62, 2**63 - 1)
    drawn = [tuple(np.asarray(jax.random.bits(starting._key(seed), (4,)))) for seed in seeds]
    assert len(set(drawn)) == len(seeds)
    assert drawn[1] == tuple(np.asarray(jax.random.bits(jax.random.key(7, impl="rbg"), (4,))))
