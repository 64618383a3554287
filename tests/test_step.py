"""The training step: what is frozen stays, costs nothing, and nothing surprises the compiler."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from benchmarks.accelerator import faults_of
from mtnet_jax.cpu.choice import training_options
from mtnet_jax.network import normalise_images
from mtnet_jax.system import TrainState
from mtnet_jax.training.phases import make_optimizer, read_phases
from mtnet_jax.training.step import make_train_step
from tests.conftest import REPOSITORY
from tests.tiny import EVERYTHING, random_batch, tiny_config, tiny_system


def make_step(config, system, variables, trainable, clip_norm=10.0, frozen_stages=0):
    phase = read_phases(config)[-1]._replace(frozen_stages=frozen_stages)
    weights = phase.weights._replace(alpha=0.5 if "pose" in trainable else 1.0)
    phase = phase._replace(trainable=trainable, weights=weights)
    optimizer = make_optimizer(phase, variables["params"], steps=10, clip_norm=clip_norm)
    state = TrainState(**variables, opt_state=optimizer.init(variables["params"]))
    return make_train_step(system, phase, optimizer), state


def flops(function, *args):
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


@pytest.fixture(scope="module")
def tiny():
    config = tiny_config()
    return config, *tiny_system(config)


@pytest.mark.parametrize("trainable", [("face",), ("backbone", "neck", "face"), ("pose",)])
def test_frozen_groups_stay_bit_identical_and_the_others_move(tiny, trainable):
    config, system, variables = tiny
    step, state = make_step(config, system, variables, trainable)
    step = jax.jit(step)
    after = state
    for seed in range(2):
        after, _ = step(after, random_batch(config, 2, seed))
    for group in state.params:
        for kind in ("params", "batch_stats"):
            old = jax.tree.leaves(getattr(state, kind).get(group))
            new = jax.tree.leaves(getattr(after, kind).get(group))
            same = [
                np.asarray(a).tobytes() == np.asarray(b).tobytes()
                for a, b in zip(old, new, strict=True)
            ]
            if old:  # the face branch has no statistics
                assert all(same) == (group not in trainable), (group, kind)


@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_stages_stay_bit_identical_and_the_rest_of_the_backbone_moves(tiny, stages):
    config, system, variables = tiny
    step, state = make_step(config, system, variables, EVERYTHING, frozen_stages=stages)
    after, _ = jax.jit(step)(state, random_batch(config, 2, 0))
    after, _ = jax.jit(step)(after, random_batch(config, 2, 1))
    frozen = tuple(["stem", *(f"stage{number}_" for number in range(1, stages + 1))])
    for kind in ("params", "batch_stats"):
        old, new = (getattr(s, kind)["backbone"] for s in (state, after))
        assert any(layer.startswith(f"stage{stages + 1}_") for layer in old)
        for layer in old:
            same = [
                np.asarray(a).tobytes() == np.asarray(b).tobytes()
                for a, b in zip(
                    jax.tree.leaves(old[layer]), jax.tree.leaves(new[layer]), strict=True
                )
            ]
            if layer.startswith(frozen):
                assert all(same), (kind, layer)
            else:
                assert not any(same), (kind, layer)


def test_frozen_stages_hold_no_moments(tiny):
    config, system, variables = tiny
    _, all_learn = make_step(config, system, variables, EVERYTHING)
    _, state = make_step(config, system, variables, EVERYTHING, frozen_stages=2)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    backbone = variables["params"]["backbone"]
    frozen = count(
        {k: v for k, v in backbone.items() if k.startswith(("stem", "stage1", "stage2"))}
    )
    assert frozen > 0
    assert count(state.opt_state) == count(all_learn.opt_state) - 2 * frozen


def test_no_backward_pass_through_what_is_frozen():
    # Gradient norm and clipping are on: they read every gradient, frozen ones included.
    config = tiny_config()
    config.model.width = 0.25
    config.input.size = 96
    system, variables = tiny_system(config)
    batch = random_batch(config, 2)
    forward = flops(
        lambda v, x: system.model.apply(v, normalise_images(x)), variables, batch["image"]
    )
    cost = {}
    for trainable in (("face",), ("pose",), ("backbone", "neck", "face"), EVERYTHING):
        step, state = make_step(config, system, variables, trainable)
        cost[trainable] = flops(step, state, batch) / forward
    assert cost[("face",)] < 1.15
    assert cost[("pose",)] < 1.3
    # Forward, weight gradient and data gradient: about three forward passes, less for the first
    # layer.
    assert 2.5 < cost[EVERYTHING] < 3.5
    assert cost[("backbone", "neck", "face")] < cost[EVERYTHING]
    costs = [cost[EVERYTHING]]
    for stages in (1, 2, 3, 4):
        step, state = make_step(config, system, variables, EVERYTHING, frozen_stages=stages)
        costs.append(flops(step, state, batch) / forward)
    # Each stage of the backbone but the last has a tenth of all FLOPs or more: two passes go.
    assert (np.diff(costs) < -0.15).all(), costs


def test_the_same_step_without_stop_gradient_would_cost_the_backward_pass():
    # So the test above can fail: differentiate the same frozen-backbone loss with nothing cut out.
    config = tiny_config()
    config.model.width = 0.25
    config.input.size = 96
    system, variables = tiny_system(config)
    images = normalise_images(random_batch(config, 2)["image"])

    def loss(params):
        outputs = system.model.apply({**variables, "params": params}, images)
        return sum((output**2).sum() for output in outputs)

    forward = flops(lambda v, x: system.model.apply(v, x), variables, images)
    assert flops(jax.grad(loss), variables["params"]) / forward > 2


def test_a_batch_in_parts_has_the_mean_gradient_of_its_parts(tiny):
    """The whole step: every other image is a part of its own, at the same parameters."""
    config, system, variables = tiny
    phase = read_phases(config)[-1]
    keep = optax.trace(decay=0.0)  # its state is the gradient

    def gradient(batch, parts):
        step = make_train_step(system, phase._replace(accumulate=parts), keep)
        state = TrainState(**variables, opt_state=keep.init(variables["params"]))
        after, metrics = jax.jit(step)(state, batch)
        return jax.device_get((after.opt_state.trace, metrics["loss"]))

    batch = random_batch(config, 4)
    found, loss = gradient(batch, 2)
    halves = [gradient({name: x[part::2] for name, x in batch.items()}, 1) for part in range(2)]
    assert loss == pytest.approx(np.mean([half[1] for half in halves]), rel=1e-5)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *(half[0] for half in halves))
    whole, _ = gradient(batch, 1)
    apart = lambda a, b: optax.tree.norm(jax.tree.map(np.subtract, a, b)) / optax.tree.norm(b)  # noqa: E731
    assert apart(found, expected) < 1e-4
    assert apart(whole, expected) > 1e-2  # BatchNorm sees four images there


def test_one_compilation_whatever_the_number_of_heads(tiny):
    config, system, variables = tiny
    step, state = make_step(config, system, variables, ("face",))
    step = jax.jit(step)
    for seed in range(3):
        batch = random_batch(config, 2, seed)
        if seed == 2:
            batch["valid"][:] = False  # images without a head
        state, metrics = step(state, batch)
        assert np.isfinite(float(metrics["loss"]))
    assert step._cache_size() == 1


def test_the_compiled_step_holds_no_callbacks_no_float64_and_donates(tiny):
    config, system, variables = tiny
    step, state = make_step(config, system, variables, EVERYTHING)
    lowered = jax.jit(step, donate_argnums=0).lower(state, random_batch(config, 2))
    text = lowered.as_text()
    assert "f64" not in text
    assert "callback" not in text
    arrays = len(jax.tree.leaves(state))
    assert text.count("tf.aliasing_output") + text.count("jax.buffer_donor") >= arrays
    # What benchmarks/accelerator.py asks of programs for accelerators.
    assert faults_of(lowered.compile().as_text()) == []


def test_faults_of_a_program_are_seen():
    def step(x):
        return jax.pure_callback(np.sin, x, x)

    text = jax.jit(step).lower(np.ones(3, np.float32)).compile().as_text()
    assert faults_of(text) == ["callback", "memory that is not used again"]


@pytest.mark.parametrize(
    "representation",
    [
        "vectors",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("euler", "sixd", "quaternion")),
    ],
)
def test_a_few_steps_on_one_batch_learn_it(representation):
    config = tiny_config()
    config.model.representation = representation
    config.phases.b.learning_rate = 1e-2
    system, variables = tiny_system(config)
    step, state = make_step(config, system, variables, EVERYTHING)
    step = jax.jit(step, compiler_options=training_options())
    batch = random_batch(config, 4)
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.slow
def test_bfloat16_learns_as_float32_does():
    """Computing in bfloat16, which has 8 bits, every loss stays within a few of their steps."""
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = tiny_config()
        config.model.dtype = dtype
        system, variables = tiny_system(config)
        step, state = make_step(config, system, variables, EVERYTHING)
        step = jax.jit(step, compiler_options=training_options())
        losses[dtype] = []
        for seed in range(10):
            state, metrics = step(state, random_batch(config, 4, seed))
            losses[dtype].append(float(metrics["loss"]))
        kinds = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))}
        assert kinds == {np.dtype("float32")}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


TWO_DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tests.test_step import make_step
from tests.tiny import EVERYTHING, random_batch, tiny_config, tiny_system
assert jax.device_count() == 2
config = tiny_config()
system, variables = tiny_system(config)
batch = random_batch(config, 4)
results = []
for devices in (jax.devices()[:1], jax.devices()):
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    step, state = make_step(config, system, variables, EVERYTHING)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    state, metrics = jax.jit(step)(state, batch)
    results.append(jax.device_get((state.batch_stats, metrics)))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), *results)
print("equal")
"""


@pytest.mark.slow
def test_two_devices_compute_what_one_does():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr[-3000:]
