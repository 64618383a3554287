"""A face turned in its photograph is where that turn takes its points, by plain geometry."""

import cv2
import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial.transform import Rotation

from data_prep.own.face_turning import HEAD, face_in_space, mesh_depths, turn_face
from tests.faces import BOX, ORIGIN, drawing, landmarks, surface, where

SCALE = HEAD / 250  # of the drawn image: its head is 250 pixels long
# In the face, away from the rim, each of another colour.
SPOTS = surface(np.array([0.0, 30, -30, 25, -25]), np.array([6.0, -25, -25, 50, 50]))


def euler(x: float, y: float) -> np.ndarray:
    """A turn about the camera's x axis, then about its y axis, in degrees."""
    return Rotation.from_euler("xy", [x, y], degrees=True).as_matrix()


@pytest.mark.parametrize(
    ("base", "turn"),
    [
        (euler(0, 0), euler(0, 25)),
        (euler(0, 0), euler(0, -25)),
        (euler(5, 15), euler(0, 20)),
        (euler(0, 0), euler(18, 0)),
        (euler(-5, -8), euler(-10, -10)),
    ],
)
def test_points_of_the_face_are_where_the_turn_takes_them(base, turn):
    found = turn_face(face_in_space(drawing(base, SPOTS), landmarks(base), base, BOX), turn)
    expected = (SPOTS @ (turn @ base).T + ORIGIN)[:, :2] * SCALE
    moved = np.linalg.norm(expected - (SPOTS @ base.T + ORIGIN)[:, :2] * SCALE, axis=1)
    assert moved.max() > 10
    for number, place in enumerate(expected):
        spot = where(found.image, number)
        assert spot is not None, number
        # Colours of a spot are mixed with those round it, more on the side that shrinks.
        np.testing.assert_allclose(spot, place, atol=1.6)
    assert found.unseen < 0.06


def test_what_a_turn_hides_is_hidden():
    base, turn = np.eye(3), euler(0, -40)
    # Beside the nose, and near the rims, where the surface falls off by 70 degrees.
    spots = surface(np.array([0.0, 70, -70]), np.array([30.0, 6, 6]))
    found = turn_face(face_in_space(drawing(base, spots), landmarks(base), base, BOX), turn)
    turned = spots @ turn.T
    near, far = (1, 2) if turned[1, 2] < turned[2, 2] else (2, 1)
    assert where(found.image, 0) is not None
    assert where(found.image, near) is not None
    assert where(found.image, far) is None


def test_no_turn_is_the_image_itself_enlarged_or_reduced():
    rng = np.random.default_rng(0)
    rough = cv2.resize(rng.integers(0, 256, (22, 20, 3), np.uint8), (400, 440))
    found = turn_face(face_in_space(rough, landmarks(np.eye(3)), np.eye(3), BOX), np.eye(3))
    plain = cv2.resize(rough, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    assert found.image.shape == plain.shape
    assert np.abs(found.image.astype(int) - plain).mean() < 2
    np.testing.assert_allclose(found.box, BOX * SCALE, atol=1.5)


def test_far_from_the_head_nothing_moves():
    rng = np.random.default_rng(1)
    wide = np.pad(drawing(np.eye(3), SPOTS), ((0, 0), (300, 300), (0, 0)))
    wide[:, :280] = rng.integers(0, 256, (440, 280, 3), np.uint8)
    mesh, box = landmarks(np.eye(3)) + [300, 0, 0], BOX + [300, 0, 300, 0]
    found = turn_face(face_in_space(wide, mesh, np.eye(3), box), euler(10, 45))
    plain = cv2.resize(wide, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    end = int(200 * SCALE)
    np.testing.assert_array_equal(found.image[:, :end], plain[:, :end])


def test_the_box_goes_with_the_head():
    """Chin and crown of a head that nods, in the measure of an average one."""
    face = face_in_space(drawing(np.eye(3), SPOTS), landmarks(np.eye(3)), np.eye(3), BOX)
    down, up = turn_face(face, euler(20, 0)), turn_face(face, euler(-20, 0))
    for found in (down, up):
        spots = [where(found.image, number) for number in range(len(SPOTS))]
        for spot in (s for s in spots if s is not None):
            assert (found.box[:2] < spot).all()
            assert (spot < found.box[2:]).all()
    # In camera axes a turn about x by a positive angle lifts what lies in front: the face looks up.
    nose = surface(np.array([0.0]), np.array([6.0]))
    lifted = (nose @ euler(20, 0).T)[0, 1] < nose[0, 1]
    assert (down.box[3] < up.box[3]) == lifted


def test_depths_between_the_points_of_a_mesh_are_those_of_scipy():
    """Within half a pixel of the edge of a triangle either of its neighbours may be asked."""
    points = landmarks(Rotation.from_euler("y", 12, degrees=True).as_matrix()).astype(float)
    low, high = points[:, :2].min(axis=0).astype(int), points[:, :2].max(axis=0).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(float)
    shifted = points - [*low, 0]
    ours = mesh_depths(x - low[0], y - low[1], shifted)
    theirs = LinearNDInterpolator(points[:, :2], points[:, 2])(x, y)
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.mean() > 0.99 * np.isfinite(theirs).mean()
    difference = np.abs(ours - theirs)[both]
    assert np.median(difference) < 1e-6 * np.ptp(points[:, 2])
    assert np.percentile(difference, 99) < 0.03 * np.ptp(points[:, 2])
