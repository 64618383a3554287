"""The four representations behind one interface: inverse, losses by hand, degenerate outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax import rotations
from mtnet_jax.representations import VECTOR_LOSSES, make_representation

NAMES = ("euler", "vectors", "sixd", "quaternion")
SIZES = {"euler": 3, "vectors": 9, "sixd": 6, "quaternion": 4}


def scipy_degrees(a, b):
    return np.rad2deg((Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude())


@pytest.fixture(scope="module")
def truths():
    """Random rotations, profiles, backs of heads and upside-down heads."""
    special = [[90, 0, 0], [-90, 10, 0], [180, 0, 0], [-179, 20, 5], [0, 0, 180], [0, 80, 0]]
    angles = np.array(special, np.float64)[:, [1, 0, 2]] * [-1, 1, 1]
    euler = Rotation.from_euler("XYZ", angles, degrees=True).as_matrix()
    random = Rotation.random(3000, random_state=2).as_matrix()
    return np.concatenate([euler, random]).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_decode_inverts_encode(name, truths):
    representation = make_representation(name)
    target = jax.jit(representation.encode)(truths)
    assert target.shape == (len(truths), representation.size) == (len(truths), SIZES[name])
    decoded = np.asarray(jax.jit(representation.decode)(target), np.float64)
    assert scipy_degrees(decoded, truths.astype(np.float64)).max() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_zero_at_the_truth_and_positive_beside_it(name, truths):
    representation = make_representation(name)
    target = representation.encode(truths)
    np.testing.assert_allclose(representation.loss(target, truths), 0, atol=1e-9)
    assert np.all(np.asarray(representation.loss(target + 0.1, truths)) > 1e-3)


def test_quaternion_equals_scipy_up_to_sign(truths):
    expected = Rotation.from_matrix(truths).as_quat(scalar_first=True)
    actual = np.asarray(make_representation("quaternion").encode(truths))
    np.testing.assert_allclose(np.abs(np.sum(expected * actual, axis=-1)), 1, atol=1e-5)


def test_quaternion_loss_ignores_the_sign(truths):
    representation = make_representation("quaternion")
    target = representation.encode(truths)
    np.testing.assert_allclose(representation.loss(-target, truths), 0, atol=1e-9)


def test_vectors_are_the_columns(truths):
    target = np.asarray(make_representation("vectors").encode(truths))
    np.testing.assert_array_equal(target[:, 3:6], truths[:, :, 1])


def test_euler_loss_wraps_yaw():
    representation = make_representation("euler")
    truth = rotations.euler_to_rotation(np.array([179.0, 9.0, -18.0]), convention="canonical")
    raw = jnp.array([-179.0 / 180, 0.0, 0.0])
    expected = (2 / 180) ** 2 + (9 / 90) ** 2 + (18 / 90) ** 2
    assert float(representation.loss(raw, jnp.asarray(truth))) == pytest.approx(expected, rel=1e-4)


def test_euler_loss_wraps_roll():
    """Heads upside down: rolls of 178 and -179 degrees are 3 degrees apart."""
    representation = make_representation("euler")
    truth = rotations.euler_to_rotation(np.array([18.0, 9.0, 178.0]), convention="canonical")
    raw = jnp.array([0.0, 0.0, -179.0 / 90])
    loss, gradient = jax.value_and_grad(representation.loss)(raw, jnp.asarray(truth, jnp.float32))
    expected = (18 / 180) ** 2 + (9 / 90) ** 2 + (3 / 90) ** 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    # Downhill goes on through 180 degrees, to -182.
    assert float(gradient[2]) == pytest.approx(2 * 3 / 90, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_turns_that_are_near_have_small_losses(name):
    """A loss of what is a degree beside the truth, all the way round (179.5 too), is as small."""
    representation = make_representation(name)
    turned = Rotation.from_euler("z", np.arange(3.5, 360, 8)[:, None], degrees=True)
    beside = Rotation.from_euler("z", 1, degrees=True) * turned
    raw = representation.encode(jnp.asarray(beside.as_matrix(), jnp.float32))
    losses = representation.loss(raw, jnp.asarray(turned.as_matrix(), jnp.float32))
    assert float(losses.max()) < 1e-3


@pytest.mark.parametrize("kind", VECTOR_LOSSES)
@pytest.mark.parametrize("orthogonality", [1.0, 2.0])
def test_vectors_loss_equals_a_slow_loop(kind, orthogonality):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=9)
    truth = Rotation.random(random_state=4).as_matrix()
    vectors = [raw[0:3], raw[3:6], raw[6:9]]
    expected = 0.0
    if kind == "geodesic":
        x = vectors[0] / np.linalg.norm(vectors[0])
        y = vectors[1] - (vectors[1] @ x) * x
        y /= np.linalg.norm(y)
        made = np.stack([x, y, np.cross(x, y)], axis=1)
        expected += np.deg2rad(scipy_degrees(made, truth))
        expected += sum((vectors[2][i] - made[i, 2]) ** 2 for i in range(3))
    else:
        for column, vector in enumerate(vectors):
            squared = sum((vector[i] - truth[i, column]) ** 2 for i in range(3))
            expected += squared if kind == "squared" else squared**0.5
    for i in range(3):
        for j in range(i):
            expected += orthogonality * float(vectors[i] @ vectors[j]) ** 2
    loss = make_representation("vectors", vector_loss=kind, orthogonality=orthogonality).loss
    assert float(loss(jnp.asarray(raw, jnp.float32), jnp.asarray(truth, jnp.float32))) == (
        pytest.approx(expected, rel=1e-5)
    )


@pytest.mark.parametrize("kind", VECTOR_LOSSES)
def test_what_has_a_small_loss_decodes_to_the_truth(kind):
    """The decoder reads all three vectors, so the loss must teach all three."""
    representation = make_representation("vectors", vector_loss=kind)
    truths = jnp.asarray(Rotation.random(40, random_state=5).as_matrix(), jnp.float32)
    raw = np.asarray(representation.encode(truths)).copy()
    for wrong in (0.0, -0.5, -1.2):
        raw[:, 6:] = wrong * np.asarray(truths)[..., 2]
        assert np.asarray(representation.loss(raw, truths)).min() > 0.5

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    gradient = jax.grad(lambda raw: representation.loss(raw, truths).mean())

    def step(carry, _):
        raw, state = carry
        updates, state = optimizer.update(gradient(raw), state)
        return (optax.apply_updates(raw, updates), state), None

    start = jnp.asarray(np.random.default_rng(0).normal(0, 0.3, (40, 9)), jnp.float32)
    (raw, _), _ = jax.jit(
        lambda raw: jax.lax.scan(step, (raw, optimizer.init(raw)), None, length=400)
    )(start)
    decoded = np.asarray(representation.decode(raw), np.float64)
    errors = scipy_degrees(decoded, np.asarray(truths, np.float64))
    assert np.median(errors) < 1
    assert np.mean(errors < 5) > 0.9  # the geodesic loss has a saddle at half a turn


DEGENERATE = {
    "zeros": np.zeros,
    "ones (parallel vectors)": np.ones,
    "tiny": lambda n: np.full(n, 1e-20),
    "huge": lambda n: np.where(np.arange(n) % 2, 1e25, -1e25),
    "almost parallel": lambda n: np.ones(n) + 1e-7 * np.arange(n),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_outputs_decode_to_rotations(name, kind):
    representation = make_representation(name)
    if name == "euler" and kind == "huge":
        pytest.skip("an angle of 1e27 degrees has no meaning in float32")
    raw = DEGENERATE[kind](representation.size).astype(np.float32)
    decoded = np.asarray(jax.jit(representation.decode)(raw))
    assert not rotations.rotation_faults(decoded, 1e-4), decoded


@pytest.mark.parametrize("name", NAMES)
def test_zeros_are_the_identity(name):
    representation = make_representation(name)
    np.testing.assert_allclose(representation.decode(jnp.zeros(representation.size)), np.eye(3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_outputs_are_nan_and_spare_their_neighbours(name, bad):
    representation = make_representation(name)
    raw = np.tile(np.asarray(representation.encode(jnp.eye(3))), (2, 1))
    raw[1, -1] = bad
    decoded = np.asarray(jax.jit(representation.decode)(raw))
    np.testing.assert_allclose(decoded[0], np.eye(3), atol=1e-6)
    assert np.isnan(decoded[1]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", VECTOR_LOSSES)
def test_gradients_are_finite_at_the_truth_and_at_zero(name, kind):
    representation = make_representation(name, vector_loss=kind)
    gradient = jax.grad(lambda raw: representation.loss(raw, jnp.eye(3)))
    for raw in (representation.encode(jnp.eye(3)), jnp.zeros(representation.size)):
        assert np.isfinite(np.asarray(gradient(raw))).all()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'axis_angle'"):
        make_representation("axis_angle")
    with pytest.raises(ValueError, match="'l1'"):
        make_representation("vectors", vector_loss="l1")


@pytest.mark.parametrize("name", NAMES)
def test_accelerators_multiply_rotations_in_float32(name):
    """Where no precision is asked for, TPUs round the factors of a product to bfloat16."""
    representation = make_representation(name)

    def everything(raw, rotation):
        gradient = jax.grad(lambda raw: representation.loss(raw, rotation).sum())(raw)
        return gradient, representation.decode(raw), representation.encode(rotation)

    shapes = ((2, representation.size), (2, 3, 3))
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    program = jax.export.export(jax.jit(everything), platforms=["tpu"])(*arguments).mlir_module()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line] == []
    assert bool(products) == (name in ("euler", "vectors"))  # the others have none
