"""Shadows of the studio's people against rays that are followed step by step."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.studio.scene import Light, Scene
from data_prep.studio.shadows import shade, with_shadows
from data_prep.studio.surroundings import Room
from tests.studio_scenes import camera, stand

DOWN_RIGHT = np.array([0.6, 1.0, 0.3])
PLACE = np.array([0.2, -1.6, 3.0])


def followed(point, direction):
    """The least distance from the ray to the lamp to points of a body, head to floor."""
    towards = -direction / np.linalg.norm(direction)
    ray = point + np.arange(0.01, 6, 0.01)[:, None] * towards
    body = PLACE + np.linspace(0, 1.6, 161)[:, None] * [0, 1, 0]
    return np.linalg.norm(ray[:, None] - body, axis=-1).min()


def test_what_is_dark_is_where_rays_to_the_lamp_meet_the_body(people):
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-1, 3, 400), np.zeros(400), rng.uniform(2, 5, 400)], axis=-1)
    dark = shade(points, stand(people[0], position=PLACE), DOWN_RIGHT)
    gaps = np.array([followed(point, DOWN_RIGHT) for point in points])
    assert (dark[gaps < 0.05] > 0.7).all()
    assert (dark[gaps > 0.6] == 0).all()
    assert 5 < (gaps < 0.05).sum() < 200


def test_nothing_is_dark_between_lamp_and_person_or_nowhere(people):
    person = stand(people[0], position=PLACE)
    before = PLACE - DOWN_RIGHT
    assert shade(before[None], person, DOWN_RIGHT) == 0
    assert shade(np.full((1, 3), np.inf), person, DOWN_RIGHT) == 0
    assert shade((PLACE + [0, 0.5, 0] + DOWN_RIGHT * 0.9)[None], person, DOWN_RIGHT) > 0.9


def test_a_room_is_darker_beside_a_person_on_the_side_away_from_the_lamp(people):
    """By the share of the light that the lamp gives, and nowhere lighter."""
    wall = np.full((8, 8, 3), 200, np.uint8)
    low, high = np.array([-4.0, -3, -1]), np.array([4.0, 0, 6])
    room = Room(low, high, (wall,) * 6, (1.0,) * 6, np.ones(3), 0.0)
    tilt = Rotation.from_euler("x", 25, degrees=True).as_matrix()
    eye = camera(320, 0.8, tilt, (0.0, -1.6, 0.0))
    lights = (Light(DOWN_RIGHT, np.full(3, 0.6)), Light(np.array([-1.0, 1, 0]), np.full(3, 0.1)))
    scene = Scene((stand(people[0], position=PLACE),), (eye,), lights, np.full(3, 0.3), room)
    plain, depth = room.paint(eye)
    drawn = with_shadows(plain, depth, scene, eye)
    share = drawn[..., 0] / plain[..., 0]
    assert share.max() <= 1
    assert share.min() == pytest.approx(1 - 0.6 / 1.0, abs=0.02)
    columns = np.nonzero(share < 0.6)[1]
    feet = eye.project(eye.to_camera(PLACE * [1, 0, 1]))
    assert columns.mean() > feet[0] + 5  # the light comes from the left
    empty = Scene((), (eye,), lights, np.full(3, 0.3), room)
    np.testing.assert_array_equal(with_shadows(plain, depth, empty, eye), plain)
