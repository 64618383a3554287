"""Shadows that people cast on the room behind them.

A person stands in the light as a capsule from the head to the floor. What the strongest lamp would
light behind it is darker, with an edge that grows softer with the way from the person.
"""

import cv2
import numpy as np

from data_prep.studio.scene import Camera, PlacedPerson, Scene

_STEP = 4  # pixels between the points that are asked
_RADIUS = 0.17  # metres, of a person
_SOFT = 0.02, 0.12  # metres, half of the edge's width beside the person, and a metre further


def with_shadows(image: np.ndarray, depth: np.ndarray, scene: Scene, camera: Camera) -> np.ndarray:
    """The painted surroundings with the shadows of a scene's people.

    Args:
      image: (H, W, 3) uint8.
      depth: (H, W) metres along the optical axis, infinite where nothing is known.
      scene: people and lights.
      camera: whose image it is.

    Returns:
      (H, W, 3) float32 from 0 to 255.
    """
    if not scene.people or not scene.lights or not np.isfinite(depth).any():
        return image.astype(np.float32)
    lamp = max(scene.lights, key=lambda light: float(np.sum(light.colour)))
    light = sum(float(np.mean(each.colour)) for each in scene.lights)
    darkest = float(np.mean(lamp.colour)) / (light + float(np.mean(scene.ambient)))
    points = _points(depth, camera)
    lit = np.ones(points.shape[:2], np.float32)
    for person in scene.people:
        lit = np.minimum(lit, 1 - darkest * shade(points, person, lamp.direction))
    size = (camera.width, camera.height)
    return image * cv2.resize(lit, size, interpolation=cv2.INTER_LINEAR)[..., None]


def shade(points: np.ndarray, person: PlacedPerson, direction: np.ndarray) -> np.ndarray:
    """How far a person stands between a lamp and points: 0 not at all, 1 wholly.

    Args:
      points: (..., 3) in the world, metres; infinite ones are in the light.
      person: whose capsule goes from the middle of the head straight down to the floor, y = 0.
      direction: (3,) of the light, from the lamp to the scene.
    """
    towards = -np.asarray(direction, np.float64) / np.linalg.norm(direction)
    # Seen along the light the capsule is a line, a point is in it where it lies near the line.
    across = np.linalg.svd(towards[None])[2][1:]  # (2, 3), at right angles to the light
    head = person.head_position
    down = np.array([0.0, max(-head[1], 0.0), 0.0])
    line, start = across @ down, across @ head
    with np.errstate(invalid="ignore"):
        aside = points @ across.T - start
        along = np.clip(aside @ line / max(float(line @ line), 1e-12), 0, 1)
        gap = np.linalg.norm(aside - along[..., None] * line, axis=-1)
        way = (head + along[..., None] * down - points) @ towards  # to the person, metres
        soft = _SOFT[0] + _SOFT[1] * np.maximum(way, 0)
        inside = np.clip((_RADIUS + soft - gap) / (2 * soft), 0, 1)
        return np.where(np.isfinite(gap) & (way > 0), inside, 0).astype(np.float32)


def _points(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(h, w, 3) in the world, of every fourth pixel and row."""
    small = (-(-camera.width // _STEP), -(-camera.height // _STEP))
    coarse = cv2.resize(depth, small, interpolation=cv2.INTER_NEAREST)
    columns = (np.arange(small[0]) + 0.5) * camera.width / small[0]
    rows = (np.arange(small[1]) + 0.5) * camera.height / small[1]
    pixels = np.stack(np.broadcast_arrays(columns, rows[:, None], 1.0), axis=-1)
    with np.errstate(invalid="ignore"):
        seen = pixels @ np.linalg.inv(camera.matrix).T * coarse[..., None]
        return (seen - camera.translation) @ camera.rotation
