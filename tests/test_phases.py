"""Phases: read from the configuration, errors that name the option, freezing by multi_transform."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtnet_jax.config import default_config, load_config, phase
from mtnet_jax.errors import BadInput
from mtnet_jax.training.phases import (
    check_devices,
    group_labels,
    learning_rate,
    make_optimizer,
    read_phases,
    warmup_warning,
)


def test_the_phases_of_the_paper():
    phases = read_phases(load_config("paper"))
    rows = [(p.trainable, p.epochs, p.batch_size, p.learning_rate, p.weights.alpha) for p in phases]
    assert rows == [
        (("face",), 50, 64, 1e-3, 1.0),
        (("backbone", "neck", "face"), 50, 16, 1e-4, 1.0),
        (("backbone", "neck", "face", "pose"), 50, 16, 1e-4, 0.5),
    ]


def test_any_list_of_phases_works_in_the_order_of_names():
    config = default_config()
    config.phases["phase4"] = phase(("pose",), epochs=30, batch_size=8, learning_rate=1e-5)
    assert [p.name for p in read_phases(config)] == ["phase1", "phase2", "phase3", "phase4"]


def test_steps_of_an_epoch():
    config = default_config()
    config.phases.phase1.epochs = 2.5
    assert read_phases(config)[0].steps(images=640) == 25


def test_what_is_asked_for_more_often_than_every_step_comes_with_every_step():
    config = default_config()
    config.phases.phase1.epochs = 2.5
    first = read_phases(config)[0]
    found = [first.steps_between(epochs, steps=25) for epochs in (5.0, 1.0, 0.1, 0.01, 0.0)]
    assert found == [50, 10, 1, 1, 0]


def test_a_phase_in_which_nothing_learns_is_refused():
    config = default_config()
    config.phases.phase4 = phase(("pose",), epochs=1, batch_size=8, learning_rate=1e-5, alpha=1)
    with pytest.raises(BadInput, match=r"phase4 trains the pose branch alone.*loss\.alpha below 1"):
        read_phases(config)
    config.phases.phase4.loss.alpha = 0.9
    read_phases(config)
    config.model.version = "v1"
    with pytest.raises(BadInput, match=r"phase4.*or give the phase 0 epochs"):
        read_phases(config)
    config.phases.phase4.epochs = 0.0
    read_phases(config)


def test_unknown_groups_schedules_and_lost_pose_losses_are_named():
    config = default_config()
    config.phases.phase1.trainable = ("last_layers",)
    with pytest.raises(ValueError, match=r"phase1.*last_layers.*backbone"):
        read_phases(config)
    config = default_config()
    config.phases.phase2.schedule = "step"
    with pytest.raises(ValueError, match=r"phase2.*'step'"):
        read_phases(config)
    config = default_config()
    config.phases.phase2.loss.alpha = 0.5
    with pytest.raises(ValueError, match=r"phase2 freezes the pose branch"):
        read_phases(config)


@pytest.mark.parametrize(
    ("phase", "change", "said"),
    [
        ("phase3", {"frozen_stages": 5}, r"phase3\.frozen_stages is 5: it must be from 0 to 4"),
        ("phase3", {"frozen_stages": -1}, r"phase3\.frozen_stages is -1"),
        ("phase1", {"frozen_stages": 2}, r"phase1\.frozen_stages is 2, but .* set it to 0"),
    ],
)
def test_frozen_stages_that_cannot_be(phase, change, said):
    config = default_config()
    config.phases[phase].update(change)
    with pytest.raises(ValueError, match=said):
        read_phases(config)


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(ValueError, match=r"\['head'\]\['kernel'\]"):
        group_labels({"face": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}})


def test_frozen_groups_hold_no_moments_and_get_no_update():
    params = {"backbone": {"w": jnp.ones(7)}, "face": {"w": jnp.ones(5)}}
    frozen_backbone = read_phases(default_config())[0]
    optimizer = make_optimizer(frozen_backbone, params, steps=10, clip_norm=1.0)
    state = optimizer.init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape]
    assert shapes == [(5,), (5,)]  # first and second moment of the face branch alone
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_array_equal(updates["backbone"]["w"], np.zeros(7))
    assert np.all(np.asarray(updates["face"]["w"]) < 0)


def test_the_first_update_of_adam_is_the_learning_rate():
    params = {"face": {"w": jnp.zeros(3)}}
    optimizer = make_optimizer(read_phases(default_config())[0], params, steps=10, clip_norm=0.0)
    gradient = {"face": {"w": jnp.array([2.0, -0.1, 5.0])}}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["face"]["w"], [-1e-3, 1e-3, -1e-3], rtol=1e-4)


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1e-3), ("cosine", 1e-5)])
def test_learning_rate_rises_and_falls(schedule, last):
    config = default_config()
    config.phases.phase1.update(schedule=schedule, warmup_steps=10)
    rate = learning_rate(read_phases(config)[0], steps=110)
    values = [float(rate(step)) for step in (0, 5, 10, 110)]
    np.testing.assert_allclose(values, [0, 5e-4, 1e-3, last], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("warmup", "steps"), [(10, 10), (40, 10), (9, 10), (10, 0), (0, 10)])
def test_a_warm_up_that_is_cut_off_is_said(warmup, steps):
    config = default_config()
    config.phases.phase1.warmup_steps = warmup
    paper = read_phases(config)[0]
    highest = max(float(learning_rate(paper, steps)(step)) for step in range(steps or 100))
    warning = warmup_warning(paper, steps)
    assert bool(warning) == (highest < paper.peak_rate * 0.9999 and steps > 0)
    if warning:
        assert f"config.phases.phase1.warmup_steps is {warmup}" in warning
        assert f"comes to {highest:g} of 0.001" in warning


def test_a_phase_in_which_nothing_would_learn():
    config = default_config()
    config.model.version = "v1"
    read_phases(config)
    config.phases.phase3.trainable = ("pose",)
    with pytest.raises(ValueError, match=r"phase3.*the face branch says the pose"):
        read_phases(config)


def test_optax_masked_alone_would_not_freeze():
    # Why multi_transform: masked passes the raw gradient of what it masks.
    params = {"face": jnp.ones(1), "backbone": jnp.ones(1)}
    masked = optax.masked(optax.adam(1e-3), {"face": True, "backbone": False})
    updates, _ = masked.update(params, masked.init(params), params)
    assert float(updates["backbone"][0]) == 1.0


@pytest.mark.parametrize(("rule", "peak"), [("none", 1e-4), ("sqrt", 8e-4), ("linear", 64e-4)])
def test_the_learning_rate_grows_with_the_batch_by_its_rule(rule, peak):
    config = default_config()
    config.phases.phase3.update(
        {"batch_size": 1024, "rate_batch": 16, "rate_rule": rule, "warmup_steps": 10}
    )
    rate = learning_rate(read_phases(config)[-1], steps=100)
    assert float(rate(0)) == 0.0
    assert float(rate(5)) == pytest.approx(peak / 2)
    assert float(rate(10)) == pytest.approx(peak)


def test_rules_of_the_learning_rate_that_cannot_be_are_named():
    config = default_config()
    config.phases.phase1.rate_rule = "cubic"
    with pytest.raises(ValueError, match=r"phase1\.rate_rule is 'cubic': one of none, sqrt"):
        read_phases(config)
    config.phases.phase1.rate_rule = "linear"
    with pytest.raises(ValueError, match=r"phase1\.rate_rule is 'linear', but rate_batch"):
        read_phases(config)


def test_a_batch_is_split_over_devices_and_parts():
    config = default_config()
    config.phases.phase1.batch_size = 6
    config.phases.phase1.accumulate = 4
    with pytest.raises(ValueError, match=r"phase1\.batch_size is 6.*times accumulate, 4"):
        check_devices(read_phases(config), 1)


def test_weight_decay_is_of_kernels_that_learn_alone():
    """Beside AdamW by hand (Loshchilov and Hutter 2019, algorithm 2, with a rate a step)."""
    config, steps, b2 = default_config(), 4, 0.95
    config.phases = {
        "only": phase(
            ("face",),
            epochs=1,
            batch_size=8,
            learning_rate=0.1,
            warmup_steps=2,
            weight_decay=0.5,
            b2=b2,
            alpha=1,
        )
    }
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,), "scale": (2,)}
    params = {
        group: {"layer": {name: rng.normal(size=shape) for name, shape in shapes.items()}}
        for group in ("backbone", "face")
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    optimizer = make_optimizer(read_phases(config)[0], params, steps=steps, clip_norm=0.0)
    gradients = [jax.tree.map(lambda x, n=n: jnp.cos((n + 2) * x), params) for n in range(steps)]
    state, moved = optimizer.init(params), params
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, moved)
        moved = optax.apply_updates(moved, updates)
    jax.tree.map(np.testing.assert_array_equal, moved["backbone"], params["backbone"])
    for name in shapes:
        w = np.asarray(params["face"]["layer"][name], np.float64)
        m = v = np.zeros_like(w)
        for t, gradient in enumerate(gradients, start=1):
            g = np.asarray(gradient["face"]["layer"][name], np.float64)
            m, v = 0.9 * m + 0.1 * g, b2 * v + (1 - b2) * g**2
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
            rate = 0.1 * min((t - 1) / 2, 1)
            w = w - rate * (step + (0.5 * w if name == "kernel" else 0))
        np.testing.assert_allclose(moved["face"]["layer"][name], w, rtol=1e-5, atol=1e-6)


def test_without_weight_decay_the_state_is_that_of_adam():
    """So that checkpoints of before the option are read."""
    params = {"face": {"layer": {"kernel": jnp.ones((3, 2))}}}
    config = default_config()
    found = make_optimizer(read_phases(config)[0], params, steps=3, clip_norm=0.0).init(params)
    rate = optax.constant_schedule(1e-3)
    labels = {"face": {"layer": {"kernel": "face"}}}
    transforms = dict.fromkeys(("backbone", "neck", "pose"), optax.set_to_zero())
    transforms["face"] = optax.adam(rate)
    before = optax.chain(optax.identity(), optax.multi_transform(transforms, labels)).init(params)
    assert jax.tree.structure(found) == jax.tree.structure(before)
