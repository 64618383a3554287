"""Rotations against scipy's, the fixture of a BIWI file, and stated behaviour at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax import rotations

# BIWI 01/frame_00501, canonical angles as published with it.
BIWI_ROTATION = np.array(
    [
        [0.45684, -0.404949, -0.792031],
        [-0.103806, 0.860022, -0.499587],
        [0.883471, 0.310449, 0.350856],
    ]
)
BIWI_ANGLES = np.array([-52.3757, -54.9199, 41.5542])  # yaw, pitch, roll

# scipy: upper case letters are intrinsic rotations, multiplied from left to right.
SCIPY = {
    "canonical": lambda y, p, r: Rotation.from_euler("XYZ", [-p, y, r], degrees=True),
    "paper": lambda y, p, r: Rotation.from_euler("XYZ", [r, p, y], degrees=True),
    "sixdrepnet": lambda y, p, r: Rotation.from_euler("ZYX", [r, y, p], degrees=True),
    "opal": lambda y, p, r: Rotation.from_euler("XYZ", [-p, -y, r], degrees=True),
}


def scipy_degrees(a, b):
    return np.rad2deg((Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude())


@pytest.fixture(scope="module")
def random_rotations():
    return Rotation.random(5000, random_state=1).as_matrix()


def test_every_convention_is_tested():
    assert set(SCIPY) == set(rotations.CONVENTIONS)


@pytest.mark.parametrize("convention", SCIPY)
def test_encode_equals_scipy(convention):
    angles = np.random.default_rng(0).uniform(-180, 180, (500, 3))
    expected = np.stack([SCIPY[convention](*a).as_matrix() for a in angles])
    actual = rotations.euler_to_rotation(angles, convention=convention)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("convention", SCIPY)
def test_decode_then_scipy_gives_the_same_rotation(convention, random_rotations):
    angles = rotations.rotation_to_euler(random_rotations, convention=convention)
    back = np.stack([SCIPY[convention](*a).as_matrix() for a in angles])
    assert scipy_degrees(back, random_rotations).max() < 1e-5


@pytest.mark.parametrize("convention", ["canonical", "sixdrepnet", "opal"])
def test_decode_returns_the_angles_of_upright_heads_over_the_full_circle(convention):
    yaw, pitch, roll = np.meshgrid(
        np.arange(-179, 180, 7.0), np.arange(-80, 81, 20.0), np.arange(-80, 81, 20.0)
    )
    angles = np.stack([yaw, pitch, roll], axis=-1).reshape(-1, 3)
    matrices = np.stack([SCIPY[convention](*a).as_matrix() for a in angles])
    decoded = rotations.rotation_to_euler(matrices, convention=convention)
    np.testing.assert_allclose(decoded, angles, atol=1e-9)


def test_decode_returns_the_angles_of_the_paper_convention():
    yaw, pitch, roll = np.meshgrid(
        np.arange(-170, 171, 20.0), np.arange(-80, 81, 20.0), np.arange(-170, 171, 20.0)
    )
    angles = np.stack([yaw, pitch, roll], axis=-1).reshape(-1, 3)
    matrices = np.stack([SCIPY["paper"](*a).as_matrix() for a in angles])
    decoded = rotations.rotation_to_euler(matrices, convention="paper")
    np.testing.assert_allclose(decoded, angles, atol=1e-9)


def test_biwi_fixture():
    decoded = rotations.rotation_to_euler(BIWI_ROTATION, convention="canonical")
    np.testing.assert_allclose(decoded, BIWI_ANGLES, atol=1e-4)


@pytest.mark.parametrize("convention", ["canonical", "sixdrepnet", "opal"])
@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_profiles_keep_their_rotation_and_stay_upright(convention, yaw):
    for pitch in np.arange(-60, 61, 15.0):
        for roll in np.arange(-60, 61, 15.0):
            matrix = SCIPY[convention](yaw, pitch, roll).as_matrix()
            angles = rotations.rotation_to_euler(matrix, convention=convention)
            assert np.all(np.abs(angles[1:]) <= 90)
            assert scipy_degrees(SCIPY[convention](*angles).as_matrix(), matrix) < 1e-4


def test_upside_down_heads_are_reported_with_roll_beyond_90():
    matrix = SCIPY["canonical"](30, 10, 170).as_matrix()
    np.testing.assert_allclose(
        rotations.rotation_to_euler(matrix, convention="canonical"), [30, 10, 170], atol=1e-9
    )


def test_the_border_between_the_two_solutions_is_stable_under_rounding():
    # A profile that nods: Ry(90) Rx(-30). Both solutions lie on the border, yaw 60 and yaw 120.
    nodding = Rotation.from_euler("YX", [90, -30], degrees=True).as_matrix()
    noise = np.random.default_rng(0).normal(0, 1e-7, (100, 3, 3))
    angles = rotations.rotation_to_euler(nodding + noise, convention="canonical")
    np.testing.assert_allclose(angles[:, 0], 60, atol=1e-3)


def test_signs_of_the_canonical_convention():
    def normal(yaw, pitch, roll):  # out of the face, camera axes x right, y down, z forward
        return -rotations.euler_to_rotation(np.array([yaw, pitch, roll]), convention="canonical")[
            :, 2
        ]

    assert normal(30.0, 0, 0)[0] < -0.4  # +yaw: to the left of the image
    assert normal(0.0, 30, 0)[1] < -0.4  # +pitch: up
    chin = rotations.euler_to_rotation(np.array([0.0, 0, 30]), convention="canonical")[:, 1]
    assert chin[0] < -0.4  # +roll: clockwise, the chin swings to the left of the image


def test_jit_float32_agrees_with_float64(random_rotations):
    decode = jax.jit(lambda r: rotations.rotation_to_euler(r, convention="canonical"))
    angles = np.asarray(decode(random_rotations.astype(np.float32)), np.float64)
    back = np.stack([SCIPY["canonical"](*a).as_matrix() for a in angles])
    assert scipy_degrees(back, random_rotations).max() < 1e-3


def test_unknown_convention_is_named():
    with pytest.raises(ValueError, match=r"'hopenet'.*canonical"):
        rotations.euler_to_rotation(np.zeros(3), convention="hopenet")


def test_nearest_rotation_equals_scipys_projection(random_rotations):
    rng = np.random.default_rng(3)
    noisy = random_rotations[:500] * rng.uniform(0.2, 3) + rng.normal(0, 0.3, (500, 3, 3))
    # scipy's align_vectors solves the same problem (Kabsch) from the columns.
    expected = np.stack([Rotation.align_vectors(m.T, np.eye(3))[0].as_matrix() for m in noisy])
    np.testing.assert_allclose(rotations.nearest_rotation(noisy), expected, atol=1e-6)


def test_nearest_rotation_of_a_rotation_is_itself_where_the_printed_formula_reflects():
    matrix = SCIPY["canonical"](20, 10, 5).as_matrix()
    np.testing.assert_allclose(rotations.nearest_rotation(matrix), matrix, atol=1e-12)
    u, _, vt = np.linalg.svd(matrix)
    assert np.linalg.det(u @ np.diag([1, 1, -1]) @ vt) == pytest.approx(-1)


def test_nearest_rotation_of_reflections_is_a_rotation(random_rotations):
    reflected = random_rotations[:200] @ np.diag([1, 1, -1])
    nearest = rotations.nearest_rotation(reflected)
    assert not rotations.rotation_faults(nearest, 1e-9).any()


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 3)),
        np.ones((3, 3)),
        np.outer([1, 2, 3], [1, 0, 0]),
        np.full((3, 3), 1e-30),
        np.full((3, 3), 1e30),
        -np.eye(3),
    ],
)
def test_nearest_rotation_of_degenerate_matrices_is_a_rotation(matrix):
    nearest = jax.jit(rotations.nearest_rotation)(matrix.astype(np.float32))
    assert not rotations.rotation_faults(np.asarray(nearest), 1e-5)


def test_nearest_rotation_of_nan_is_nan_and_spares_its_neighbours():
    batch = np.stack([np.eye(3), np.eye(3)]).astype(np.float32)
    batch[1, 2, 2] = np.nan
    nearest = np.asarray(jax.jit(rotations.nearest_rotation)(batch))
    np.testing.assert_array_equal(nearest[0], np.eye(3))
    assert np.isnan(nearest[1]).all()


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_geodesic_equals_scipy(random_rotations, kind):
    a, b = random_rotations[:-1], random_rotations[1:]
    tolerance = 1e-9 if kind is np.asarray else 2e-3
    np.testing.assert_allclose(
        rotations.geodesic_degrees(kind(a), kind(b)), scipy_degrees(a, b), atol=tolerance
    )


def test_geodesic_is_exact_at_both_ends():
    quarter_turns = [Rotation.from_rotvec([0, 0, t]).as_matrix() for t in (0, 1e-6, np.pi)]
    distances = rotations.geodesic_degrees(np.stack(quarter_turns), np.eye(3)[None])
    np.testing.assert_allclose(distances, np.rad2deg([0, 1e-6, np.pi]), atol=1e-9)


def test_mirror_negates_yaw_and_roll():
    angles = np.random.default_rng(5).uniform(-89, 89, (200, 3))
    matrices = np.stack([SCIPY["canonical"](*a).as_matrix() for a in angles])
    expected = np.stack([SCIPY["canonical"](-y, p, -r).as_matrix() for y, p, r in angles])
    np.testing.assert_allclose(rotations.mirror(matrices), expected, atol=1e-12)


def test_turn_is_clockwise_in_the_image():
    # The face normal of a head that looks up swings to the right when the image turns clockwise.
    up = SCIPY["canonical"](0, 40, 0).as_matrix()
    turned = rotations.turn(up, 90.0)
    np.testing.assert_allclose(-turned[:, 2][:2], [np.sin(np.deg2rad(40)), 0], atol=1e-12)


def test_rotation_faults_finds_each_kind():
    good = np.eye(3)
    bad = [np.diag([1, 1, -1]), np.eye(3) * 1.01, np.full((3, 3), np.nan), np.zeros((3, 3))]
    assert rotations.rotation_faults(np.stack([good, *bad])).tolist() == [False] + [True] * 4
