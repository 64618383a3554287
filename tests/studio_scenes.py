"""Scenes of the studio that tests place by hand: a camera, people, a light, nothing behind them."""

import numpy as np
import pytest

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.studio.people import make_person
from data_prep.studio.person import Person
from data_prep.studio.scene import Camera, Light, PlacedPerson, Scene
from mtnet_jax.rotations import euler_to_rotation


class Grey:
    """Surroundings without a mark."""

    def paint(self, camera):
        size = (camera.height, camera.width)
        return np.full((*size, 3), 90, np.uint8), np.full(size, np.inf, np.float32)


def camera(size=320, focal=1.5, rotation=None, position=(0, 0, 0)) -> Camera:
    matrix = np.array(
        [[focal * size, 0, 0.47 * size], [0, 1.1 * focal * size, 0.54 * size], [0, 0, 1]]
    )
    rotation = np.eye(3) if rotation is None else rotation
    return Camera(matrix, rotation, -rotation @ np.asarray(position, float), size, size)


def scene_of(*placed: PlacedPerson, eye: Camera | None = None, things=()) -> Scene:
    lights = (Light(np.array([0.4, 1.0, 1.0]), np.array([0.8, 0.8, 0.8])),)
    return Scene(placed, (eye or camera(),), lights, np.full(3, 0.3), Grey(), tuple(things))


def stand(person, angles=(0, 0, 0), position=(0, 0, 1.0), body=None) -> PlacedPerson:
    rotation = euler_to_rotation(np.array(angles, float), convention="canonical")
    heading = euler_to_rotation(np.array([angles[0], 0, 0.0]), convention="canonical")
    return PlacedPerson(
        person, rotation, np.array(position, float), heading if body is None else body
    )


def twelve(figure) -> list[Person]:
    """Twelve people, all different."""
    return [make_person(figure, identity, seed=5) for identity in range(12)]
