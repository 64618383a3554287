"""Draws scenes at random: who stands where, how the heads turn, camera, light, surroundings.

Heads. In the world a head has a heading, a nod and a tilt: R = Ry(heading) Rx(-nod) Rz(tilt). The
heading is uniform over `PoseSpread.yaw_limit`; nod and tilt come from two normal distributions, a
narrow one and, for a share of the heads, a wide one, cut at `limit`. The camera's own tilt and roll
come on top: a head whose nod or tilt as the camera sees it lies beyond `limit` is drawn again. (The
limit is not one of canonical pitch and roll: those grow without bound as a profile tilts.)

Bodies follow the head's heading within what a neck does, and lean where nod and tilt ask for it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.studio.clutter import random_thing
from data_prep.studio.figure import Figure
from data_prep.studio.people import make_person
from data_prep.studio.scene import Camera, Light, PlacedPerson, Scene, Thing
from data_prep.studio.surroundings import Backdrop, Room, random_backdrop, random_room
from mtnet_jax.rotations import axis_rotation

HEAD_HEIGHT = 0.24  # metres, of an average head with hair
_NECK_YAW, _NECK_NOD = 65.0, 38.0  # degrees that a neck does alone
_APART = 0.42  # metres between two heads, at least
_NEAREST = 0.4  # metres from the camera to a head, at least
_TRIES = 40
_RUN, _CAST = 64, 32  # frames that share a cast, people in it


@dataclass(frozen=True)
class PoseSpread:
    """How heads turn; degrees.

    Attributes:
      yaw_limit: headings are uniform between -yaw_limit and yaw_limit; 180 is all the way round, 0
        faces the camera.
      nod, tilt: standard deviations of the narrow and the wide distribution.
      wide_share: share of the heads that draw from the wide one.
      limit: largest |nod| and |tilt|, in the world and as the camera sees them, at most 85.
    """

    yaw_limit: float = 180.0
    nod: tuple[float, float] = (12.0, 35.0)
    tilt: tuple[float, float] = (8.0, 30.0)
    wide_share: float = 0.35
    limit: float = 75.0


@dataclass(frozen=True)
class SceneOptions:
    """What scenes look like.

    Attributes:
      width, height: of the images, pixels.
      people: fewest and most people in an image.
      head_share: smallest and largest head, in parts of the image's smaller side.
      poses: how heads turn.
      backgrounds: images of the user for backdrops.
      background_share: share of the scenes that use them, if there are any.
    """

    width: int = 416
    height: int = 416
    people: tuple[int, int] = (1, 6)
    head_share: tuple[float, float] = (1 / 13, 0.7)
    poses: PoseSpread = PoseSpread()
    backgrounds: tuple[Path, ...] = ()
    background_share: float = 0.5


def random_scene(
    figure: Figure, options: SceneOptions, identities: np.ndarray, seed: int, frame: int
) -> Scene:
    """The scene of a frame: the same arguments give the same scene.

    Args:
      figure: the base figure.
      options: what scenes look like.
      identities: numbers of the people to choose from.
      seed: of the set.
      frame: number of the frame.

    Returns:
      A scene with one camera.
    """
    rng = np.random.default_rng([seed, 2, frame])
    camera = random_camera(options, rng)
    count = int(rng.integers(options.people[0], options.people[1] + 1))
    # A run of frames has a cast that it draws from: people are made once and met several times.
    of_the_run = np.random.default_rng([seed, 4, frame // _RUN])
    most = min(max(_CAST, options.people[1]), len(identities))
    cast = of_the_run.choice(identities, size=most, replace=False)
    chosen = rng.choice(cast, size=min(count, len(cast)), replace=False)
    people: list[PlacedPerson] = []
    for identity in chosen:
        position = _free_position(camera, options, count, people, rng)
        if position is None:
            continue
        head, body = random_pose(options.poses, camera, rng)
        people.append(PlacedPerson(make_person(figure, int(identity), seed), head, position, body))
    draw = rng.random()
    if options.backgrounds and draw < options.background_share:
        surroundings: Room | Backdrop = random_backdrop(rng, options.backgrounds)
    else:
        surroundings = random_room(rng) if rng.random() < 0.6 else random_backdrop(rng)
    lights, ambient = random_lights(rng)
    return Scene(
        people=tuple(people),
        cameras=(camera,),
        lights=lights,
        ambient=ambient,
        surroundings=surroundings,
        things=_clutter(camera, people, rng),
    )


def random_camera(options: SceneOptions, rng: np.random.Generator) -> Camera:
    """A camera over the origin of the floor, looking along +z, mostly level, some from above."""
    # A wide lens would have to be nearer than _NEAREST to show a head as large as asked for.
    smallest = options.head_share[0] * min(options.width, options.height)
    widest = smallest * _NEAREST / HEAD_HEIGHT / max(options.width, options.height)
    lens = np.exp(rng.uniform(np.log(np.clip(widest, 0.7, 3.0)), np.log(3.0)))
    focal = lens * max(options.width, options.height)
    high = rng.random() < 0.25
    height = rng.uniform(2.2, 3.4) if high else rng.uniform(0.9, 2.0)
    down = rng.normal(25, 10) if high else rng.normal(3, 8)  # degrees
    # A camera turned further than the limit of poses would see no head within it.
    most = 0.9 * options.poses.limit
    roll = np.clip(rng.normal(0, 3), -most, most)
    down = np.clip(down, -min(25, most), min(50, most))
    rotation = axis_rotation("z", roll) @ axis_rotation("x", down)
    matrix = np.array([[focal, 0, options.width / 2], [0, focal, options.height / 2], [0, 0, 1.0]])
    position = np.array([0.0, -height, 0.0])
    return Camera(matrix, rotation, -rotation @ position, options.width, options.height)


def random_pose(
    spread: PoseSpread, camera: Camera, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations of a head and of its body, both to the world; see the module."""
    while True:
        heading = rng.uniform(-spread.yaw_limit, spread.yaw_limit)
        wide = int(rng.random() < spread.wide_share)
        nod, tilt = rng.normal(0, spread.nod[wide]), rng.normal(0, spread.tilt[wide])
        head = _turned(heading, nod, tilt)
        if max(abs(nod), abs(tilt), *np.abs(nod_and_tilt(camera.rotation @ head))) <= spread.limit:
            break
    neck = np.clip(rng.normal(0, 28), -_NECK_YAW, _NECK_YAW)
    # The body takes a part of nod and tilt, and all that the neck cannot do.
    lean, bow = (
        rng.uniform(0.1, 0.5) * angle + np.sign(angle) * max(0.0, 0.6 * abs(angle) - _NECK_NOD)
        for angle in (tilt, nod)
    )
    if abs(nod) + abs(tilt) > 50:
        neck *= 0.4
    return head, _turned(heading - neck, bow, lean)


def nod_and_tilt(rotation: np.ndarray) -> tuple[float, float]:
    """The angles n and t, in degrees, of a rotation Ry(h) Rx(-n) Rz(t)."""
    nod = np.rad2deg(np.arcsin(np.clip(rotation[1, 2], -1, 1)))
    return float(nod), float(np.rad2deg(np.arctan2(rotation[1, 0], rotation[1, 1])))


def random_lights(rng: np.random.Generator) -> tuple[tuple[Light, ...], np.ndarray]:
    """A strong light and two weak ones or none, from above and the sides, and ambient light."""
    lights = []
    for number in range(3):
        side, down = rng.uniform(-1.6, 1.6), rng.uniform(0.1, 1.6)
        ahead = rng.uniform(-0.2, 1.2) if number == 0 else rng.uniform(-1.2, 1.2)
        strength = rng.uniform(0.55, 1.25) if number == 0 else max(0.0, rng.uniform(-0.1, 0.4))
        colour = strength * np.clip(1 + rng.normal(0, 0.1, 3), 0.6, 1.4)
        lights.append(Light(np.array([side, down, ahead]), colour))
    return tuple(lights), rng.uniform(0.25, 0.7) * np.clip(1 + rng.normal(0, 0.06, 3), 0.7, 1.3)


def _turned(heading: float, nod: float, tilt: float) -> np.ndarray:
    turn = axis_rotation("y", heading) @ axis_rotation("x", -nod) @ axis_rotation("z", tilt)
    return np.asarray(turn, float)


def _free_position(
    camera: Camera,
    options: SceneOptions,
    count: int,
    people: list[PlacedPerson],
    rng: np.random.Generator,
) -> np.ndarray | None:
    """(3,) in the world, for a head: seen by the camera, over the floor, apart from the others."""
    low, high = options.head_share
    high = max(high / (1 + 0.35 * (count - 1)), 1.5 * low)
    for _ in range(_TRIES):
        share = np.exp(rng.uniform(np.log(low), np.log(high)))
        depth = camera.matrix[0, 0] * HEAD_HEIGHT / (share * min(options.width, options.height))
        pixel = rng.uniform((-0.02, 0.05), (1.02, 0.9)) * [options.width, options.height]
        ray = np.array(
            [
                (pixel[0] - camera.matrix[0, 2]) / camera.matrix[0, 0],
                (pixel[1] - camera.matrix[1, 2]) / camera.matrix[1, 1],
                1.0,
            ]
        )
        place = camera.rotation.T @ (ray * depth - camera.translation)
        apart = all(np.linalg.norm(place - other.head_position) > _APART for other in people)
        if -2.6 < place[1] < -0.4 and depth > _NEAREST and apart:
            return place
    return None


def _clutter(
    camera: Camera, people: list[PlacedPerson], rng: np.random.Generator
) -> tuple[Thing, ...]:
    things = []
    for _ in range(int(rng.integers(0, 6))):
        depth = np.exp(rng.uniform(np.log(1.2), np.log(8)))
        ray = np.array([*(rng.uniform(-0.5, 0.5, 2) * camera.width / camera.matrix[0, 0]), 1.0])
        place = camera.rotation.T @ (ray * depth - camera.translation)
        if all(np.linalg.norm(place - other.head_position) > 0.5 for other in people):
            things.append(random_thing(rng, place))
    if people and rng.random() < 0.2:  # something before one of the heads
        target = people[rng.integers(len(people))].head_position
        share = rng.uniform(0.55, 0.8)
        place = camera.position + share * (target - camera.position) + rng.normal(0, 0.12, 3)
        if np.linalg.norm(place - target) > 0.45:
            things.append(random_thing(rng, place))
    return tuple(things)
