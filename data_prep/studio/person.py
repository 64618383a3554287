"""What a person is: meshes in head axes, and how they follow head and body.

Zero pose. Head axes stand in the base mesh of MakeHuman as x, -y, -z of its file: it looks straight
ahead with level eyes (the line from the middle of each eye to its target in the file rises by less
than 2 degrees), symmetric about x = 0. The origin is the middle of the skull.
"""

from dataclasses import dataclass

import numpy as np

SHINY = 0.4  # gloss; meshes without texture are drawn as one dull and one shiny mesh
# Of the neck in its zero pose, head axes, metres: where it leaves the body, where the head begins.
NECK_BASE = np.array([0.0, 0.155, 0.045])
NECK_TOP = np.array([0.0, 0.045, 0.02])


@dataclass(frozen=True)
class Part:
    """One mesh of a person, at rest.

    Attributes:
      points: (n, 3) head axes, metres.
      normals: (n, 3) unit, outward.
      triangles: (m, 3) indices.
      head_share: (n,) how far each point follows the head rather than the body, 0 to 1.
      colours: (n, 3) uint8, or None for white; a texture is multiplied by it.
      uv: (n, 2) place in the texture, v up, or None.
      texture: name for `Assets.texture`, or None.
      gloss: 0 dull to 1 shiny.
    """

    points: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    head_share: np.ndarray
    colours: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture: tuple | None = None
    gloss: float = 0.1


@dataclass(frozen=True)
class Person:
    """An identity.

    Attributes:
      identity: number that says who it is.
      parts: all meshes.
      landmarks: (70, 3) head axes, metres; see `scene.HeadTruth`.
      outline: (n, 3) head axes, metres: the points of the whole head that its box holds, rule
        `head` (see truth.py).
      outline_triangles: (m, 3) indices into `outline`; they cover the head from every side.
      sphere_centre: (3,) head axes, metres, of the sphere of CMU Panoptic's box rule.
    """

    identity: int
    parts: tuple[Part, ...]
    landmarks: np.ndarray
    outline: np.ndarray
    outline_triangles: np.ndarray
    sphere_centre: np.ndarray
