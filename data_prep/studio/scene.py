"""What a scene is: people in a world, cameras that look at them, light and surroundings."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_prep.studio.person import Person


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    A world point X lies at X_cam = rotation X + translation, and in the image at
    (fx x / z + cx, fy y / z + cy). Pixels count as in boxes: from 0 at the outer edge of the first
    pixel to the width at the outer edge of the last. (The centre of the first pixel is 0.5; data
    sets that call it 0 have a principal point that is smaller by 0.5.)

    Attributes:
      matrix: (3, 3) [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels.
      rotation: (3, 3) world -> camera.
      translation: (3,) metres.
      width, height: of the image, pixels.
    """

    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    width: int
    height: int

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points in camera axes, metres, of (..., 3) points in the world."""
        return points @ self.rotation.T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of (..., 3) points in camera axes; they must lie in front (z > 0)."""
        return points[..., :2] / points[..., 2:] @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    @property
    def intrinsics(self) -> np.ndarray:
        """(4,) fx, fy, cx, cy, as records have them."""
        return self.matrix[[0, 1, 0, 1], [0, 1, 2, 2]]

    @property
    def matrix_from_centres(self) -> np.ndarray:
        """(3, 3) `matrix` as data sets have it that call the centre of the first pixel 0."""
        return self.matrix - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])

    @property
    def position(self) -> np.ndarray:
        """(3,) where the camera stands in the world."""
        return -self.rotation.T @ self.translation


@dataclass(frozen=True)
class Light:
    """Light from far away.

    Attributes:
      direction: (3,) in the world, from the light to the scene; any length.
      colour: (3,) RGB, 1 is white of strength 1.
    """

    direction: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class PlacedPerson:
    """A person in the world.

    Attributes:
      person: who.
      head_rotation: (3, 3) head axes -> world.
      head_position: (3,) of the origin of the head axes in the world, metres.
      body_rotation: (3, 3) of the body, which in its zero pose has the axes of the head.
    """

    person: Person
    head_rotation: np.ndarray
    head_position: np.ndarray
    body_rotation: np.ndarray

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points in the world of (..., 3) points in head axes, metres."""
        return points @ self.head_rotation.T + self.head_position


@dataclass(frozen=True)
class Thing:
    """A body without a head: furniture, a ball, a lamp.

    Attributes:
      points: (n, 3) in the world, metres.
      triangles: (m, 3) indices.
      colours: (n, 3) uint8.
      gloss: 0 dull to 1 shiny.
    """

    points: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    gloss: float = 0.2


class Surroundings(Protocol):
    """What is seen where nobody and nothing stands."""

    def paint(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) float32 depth in metres (infinite: not known)."""


@dataclass(frozen=True)
class Scene:
    """Everything that an image shows.

    Attributes:
      people: any number.
      cameras: one or several, all looking at the same people.
      lights: far lights.
      ambient: (3,) RGB of the light from everywhere.
      surroundings: room or backdrop. A backdrop is made for one camera.
      things: clutter.
    """

    people: tuple[PlacedPerson, ...]
    cameras: tuple[Camera, ...]
    lights: tuple[Light, ...]
    ambient: np.ndarray
    surroundings: Surroundings
    things: tuple[Thing, ...] = ()


@dataclass(frozen=True)
class Rendering:
    """A rendered image.

    Attributes:
      image: (H, W, 3) uint8 RGB.
      depth: (H, W) float32, metres along the optical axis (z); infinite where nothing is known.
      ids: (H, W) uint8, 1 + index in `Scene.people` of the person seen, 0 for everything else.
    """

    image: np.ndarray
    depth: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class HeadTruth:
    """What is true of one head in one image.

    Attributes:
      person: index in `Scene.people`.
      identity: number of the person, the same in every scene.
      rotation: (3, 3) head axes -> camera axes (canonical).
      position: (3,) origin of the head axes in camera axes, metres.
      box: (4,) xyxy pixels, clipped to the image.
      visible: share of the head's outline, parts outside the image included, in which this person
        is what is seen.
      ignore: whether too little is visible to ask for this head.
      landmarks: (70, 3) in camera axes, metres, in the order of the 68 points of iBUG, then the
        pupils of the right and the left eye of the subject (CMU Panoptic's face70).
    """

    person: int
    identity: int
    rotation: np.ndarray
    position: np.ndarray
    box: np.ndarray
    visible: float
    ignore: bool
    landmarks: np.ndarray
