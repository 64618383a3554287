"""Rooms and backdrops, painted by NumPy: no mesh, but a room has true perspective and depth."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.studio.scene import Camera
from data_prep.studio.wear import random_colour
from mtnet_jax.data.images import decode_image
from mtnet_jax.errors import BadInput, BadRecord

_TILE = 128  # pixels of a painted wall tile
_WALL_SHADES = np.array([0.85, 0.9, 0.95, 0.8, 1.0, 1.0], np.float32)


@dataclass(frozen=True)
class Room:
    """A box of six painted walls round the camera and the people.

    Attributes:
      low, high: (3,) its corners in the world, metres.
      walls: six images (H, W, 3) float32 from 0 to 255: low and high x, y (ceiling, floor) and z.
      sizes: metres that each image covers before it repeats.
      light: (3,) RGB by which walls are multiplied at most.
      blur: standard deviation in parts of the image's width: walls out of focus.
    """

    low: np.ndarray
    high: np.ndarray
    walls: tuple[np.ndarray, ...]
    sizes: tuple[float, ...]
    light: np.ndarray
    blur: float

    def paint(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """See `scene.Surroundings`."""
        (fx, _, cx), (_, fy, cy) = camera.matrix[0], camera.matrix[1]
        x = (np.arange(camera.width) + 0.5 - cx)[None, :] / fx
        y = (np.arange(camera.height) + 0.5 - cy)[:, None] / fy
        eye, turn = camera.position, camera.rotation
        # Rays in the world, with z = 1 in the camera, and how far along them each wall stands.
        rays, walls_ahead, distances = [], [], []
        for k in range(3):
            ray = (x * turn[0, k] + y * turn[1, k] + turn[2, k]).astype(np.float32)
            ray[abs(ray) < 1e-9] = 1e-9  # along a wall: it is far ahead, never behind
            positive = ray > 0
            to_wall = np.where(positive, self.high[k] - eye[k], self.low[k] - eye[k])
            rays.append(ray)
            walls_ahead.append(2 * k + positive)
            distances.append((to_wall / ray).astype(np.float32))
        depth = np.minimum(np.minimum(distances[0], distances[1]), distances[2])
        nearest = [distance <= depth for distance in distances]
        wall = np.where(nearest[0], walls_ahead[0], np.where(nearest[1], *walls_ahead[1:]))
        hits = [eye[k].astype(np.float32) + rays[k] * depth for k in range(3)]
        canvas = np.zeros((camera.height, camera.width, 3), np.float32)
        for number, (image, size) in enumerate(zip(self.walls, self.sizes, strict=True)):
            here = wall == number
            if not here.any():
                continue
            across, down = [(2, 1), (0, 2), (0, 1)][number // 2]
            place = [
                np.mod(hits[k][here], size) * (side / size)
                for k, side in ((across, image.shape[1]), (down, image.shape[0]))
            ]
            canvas[here] = _remap(image, place[0], place[1]) * _WALL_SHADES[number]
        # Corners are darker.
        room = [np.minimum(hits[k] - self.low[k], self.high[k] - hits[k]) for k in range(3)]
        least = np.minimum(np.minimum(room[0], room[1]), room[2])
        most = np.maximum(np.maximum(room[0], room[1]), room[2])
        second = room[0] + room[1] + room[2] - least - most
        shade = 0.7 + 0.3 * np.clip(second / 1.2, 0, 1)
        return _finish(canvas * shade[..., None] * self.light.astype(np.float32), self.blur), depth


@dataclass(frozen=True)
class Backdrop:
    """An image far behind everything, made for one camera.

    Attributes:
      image: (h, w, 3) uint8, stretched over the image.
      blur: standard deviation in parts of the image's width.
    """

    image: np.ndarray
    blur: float

    def paint(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """See `scene.Surroundings`."""
        size = (camera.width, camera.height)
        image = cv2.resize(self.image, size, interpolation=cv2.INTER_LINEAR)
        return _finish(image, self.blur), np.full(size[::-1], np.inf, np.float32)


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 3) of an image, repeated without end, at n places.

    OpenCV wants them on a grid of less than 2^15 columns.
    """
    rows = -(-len(x) // 1024)
    map_x, map_y = (np.resize(values, (rows, 1024)).astype(np.float32) for values in (x, y))
    found = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return found.reshape(-1, 3)[: len(x)]


def random_room(rng: np.random.Generator) -> Room:
    """A room with its floor at y = 0, the camera near the middle of its front wall."""
    width, height = rng.uniform(4.0, 12.0), rng.uniform(2.5, 5.0)
    left = rng.uniform(0.3, 0.7) * width
    low = np.array([-left, -height, -rng.uniform(1.0, 4.0)], np.float32)
    high = np.array([width - left, 0.0, rng.uniform(4.0, 14.0)], np.float32)
    paper, paper_size = _pattern(rng), rng.uniform(0.4, 4.0)
    walls, sizes = [], []
    for number in range(6):
        own = number in (2, 3) or rng.random() < 0.4
        walls.append(_pattern(rng) if own else paper)
        sizes.append(float(rng.uniform(0.4, 4.0) if own else paper_size))
    light = rng.uniform(0.5, 1.3) * (1 + rng.normal(0, 0.06, 3))
    return Room(low, high, tuple(walls), tuple(sizes), light, _random_blur(rng))


def random_backdrop(rng: np.random.Generator, images: tuple[Path, ...] = ()) -> Backdrop:
    """A backdrop without perspective: a part of one of the images, or painted.

    Raises:
      ValueError: a file is not an image.
    """
    if images:
        path = images[rng.integers(len(images))]
        try:
            image = decode_image(path.read_bytes())
        except BadRecord as error:
            raise BadInput(f"{path}: {error}: take it out of --backgrounds") from error
        height, width = image.shape[:2]
        side = rng.uniform(0.5, 1.0) * min(width, height)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        part = image[int(top) : int(top + side) + 1, int(left) : int(left + side) + 1]
        if rng.random() < 0.5:
            part = part[:, ::-1]
        return Backdrop(np.ascontiguousarray(part), _random_blur(rng))
    return Backdrop(_painted(rng), _random_blur(rng))


def _random_blur(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.002, 0.025)) if rng.random() < 0.45 else 0.0


def _finish(image: np.ndarray, blur: float) -> np.ndarray:
    if blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), max(blur * image.shape[1], 0.3))
    return np.clip(image, 0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, size: int, roughness: float) -> np.ndarray:
    """(size, size) float32 with mean 0 and deviation about 1: noise of all scales, that tiles."""
    total = np.zeros((size, size), np.float32)
    cells, weight = 4, 1.0
    while cells <= size:
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        grid = np.pad(grid, 1, mode="wrap")
        step = size // cells
        large = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += weight * large[step : step + size, step : step + size]
        cells, weight = cells * 2, weight * roughness
    return total / max(float(total.std()), 1e-6)


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """(128, 128, 3) float32 from 0 to 255 that tiles: a wall, a floor, a shelf."""
    size = _TILE
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    one, two = random_colour(rng) * 255, random_colour(rng) * 255
    if rng.random() < 0.6:  # most walls are quiet
        one = 128 + 0.5 * (one - 128) + rng.uniform(0, 60)
        two = one + rng.normal(0, 25, 3)
    kind = rng.random()
    if kind < 0.25:
        mask = np.zeros((size, size), np.float32)
    elif kind < 0.4:
        count = rng.integers(1, 9)
        mask = ((x if rng.random() < 0.7 else y) * count % 1 < rng.uniform(0.05, 0.6)).astype(
            np.float32
        )
    elif kind < 0.5:
        mask = ((np.floor(x * 4) + np.floor(y * 4)) % 2).astype(np.float32)
    elif kind < 0.65:  # bricks, tiles, planks
        rows, columns, gap = rng.integers(3, 9), rng.integers(1, 6), rng.uniform(0.03, 0.1)
        shifted = x * columns + 0.5 * (np.floor(y * rows) % 2)
        mask = ((shifted % 1 < gap) | (y * rows % 1 < gap)).astype(np.float32)
    elif kind < 0.8:
        spots = (clouds(rng, size, 0.6) > rng.uniform(-0.5, 0.8)).astype(np.float32)
        mask = np.asarray(cv2.GaussianBlur(spots, (0, 0), 2))
    else:
        return _shelf(rng, one)
    image = one + (two - one) * mask[..., None]
    image = image * (1 + rng.uniform(0, 0.12) * clouds(rng, size, 0.7))[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


def _shelf(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Boards with things of many colours, some of them round and as light as a face."""
    image = np.empty((_TILE, _TILE, 3), np.float32)
    image[:] = ground * 0.5
    rows = int(rng.integers(2, 5))
    for row in range(rows):
        bottom = (row + 1) * _TILE // rows - 3
        x = 2
        while x < _TILE - 8:
            width = int(rng.integers(3, 16))
            height = int(rng.uniform(0.3, 0.85) * _TILE / rows)
            colour = (random_colour(rng) * 255).tolist()
            if rng.random() < 0.3:
                cv2.ellipse(
                    image,
                    (x + width // 2, bottom - height // 2),
                    (width // 2, height // 2),
                    0,
                    0,
                    360,
                    colour,
                    -1,
                    cv2.LINE_AA,
                )
            else:
                cv2.rectangle(image, (x, bottom - height), (x + width - 1, bottom), colour, -1)
            x += width + int(rng.integers(0, 4))
        cv2.rectangle(image, (0, bottom), (_TILE, bottom + 4), (ground * 0.8).tolist(), -1)
    return image


def _painted(rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) uint8: a gradient, clouds, and shapes of all sizes."""
    size = 256
    one, two = random_colour(rng) * 255, random_colour(rng) * 255
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    ramp = np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0, 1)[..., None]
    image = (one * ramp + two * (1 - ramp)).astype(np.float32)
    image += (rng.uniform(0, 30) * clouds(rng, size, rng.uniform(0.4, 0.9)))[..., None]
    for _ in range(int(rng.integers(0, 25))):
        colour = (random_colour(rng) * 255).tolist()
        centre = tuple(int(value) for value in rng.integers(0, size, 2))
        axes = tuple(int(value) for value in np.exp(rng.uniform(np.log(3), np.log(70), 2)))
        if rng.random() < 0.5:
            cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((centre, axes, float(rng.uniform(0, 90)))).astype(np.int32)
            cv2.fillPoly(image, [corners], colour, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)
