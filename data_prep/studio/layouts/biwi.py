"""The raw layout of BIWI: one person a sequence before a depth and a colour camera.

    OUT/hpdb/NN/rgb.cal, depth.cal
    OUT/hpdb/NN/frame_FFFFF_rgb.png, frame_FFFFF_depth.bin, frame_FFFFF_pose.txt

As in the original: pose.txt holds the rotation from head to depth camera and a centre, millimetres
in the depth camera, 67 mm behind the tip of the nose on its height; the colour camera stands beside
the depth camera and looks almost the same way; depth reaches as far as the person and not to the
wall; sequences 15, 18, 21, 22 show the people of 03, 05, 02, 01; matrices call the centre of the
first pixel 0. Lenses have no distortion.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.sets.biwi import SAME_PERSON, SEQUENCES
from data_prep.studio.layouts.motion import RATE, random_motion
from data_prep.studio.layouts.writing import photograph, shares, write_png
from data_prep.studio.people import make_person
from data_prep.studio.person import Person
from data_prep.studio.random_scene import PoseSpread, random_lights
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.scene import Camera, PlacedPerson, Scene
from data_prep.studio.surroundings import random_room
from mtnet_jax.errors import BadInput

SIZE = (640, 480)
POSES = PoseSpread(yaw_limit=75.0, limit=60.0)
NOSE_TIP = 30  # of the 68 landmarks
CENTRE_BEHIND_NOSE = 0.067  # metres
_MILLIMETRES = 1000.0
_DEPTH_FOCAL, _COLOUR_FOCAL = 0.9, 0.81  # of the image's width
# Of the depth camera in the colour camera, as cameras of this kind have it.
_TURN = Rotation.from_euler("xyz", [-0.9, 0.5, -0.25], degrees=True).as_matrix()
_SHIFT = np.array([-0.024, 0.006, -0.013])  # metres
_AWAY = (0.8, 1.15)  # metres from the depth camera to the head
_BEHIND = 0.6  # metres behind the head at which the depth ends


@dataclass(frozen=True)
class Biwi:
    """What to write; a `writing.Layout`.

    Attributes:
      assets, targets: see `figure_of`.
      frames: how many in all, spread over the sequences.
      seed: of the set.
      sequences: their numbers.
      size: width and height of both images.
      poses: how heads turn; headings beyond 90 degrees show the back of the head.
      every: frames of the motion between two that are written.
    """

    assets: Path
    frames: int
    targets: Path | None = None
    seed: int = 0
    sequences: tuple[int, ...] = SEQUENCES
    size: tuple[int, int] = SIZE
    poses: PoseSpread = POSES
    every: int = 15

    def __post_init__(self):
        if self.frames < len(self.sequences):
            raise BadInput(
                f"--frames {self.frames}: each of the {len(self.sequences)} sequences of BIWI "
                "needs one at least"
            )

    def tasks(self) -> list[tuple[int, int]]:
        """(sequence, frame)."""
        counts = shares(self.frames, len(self.sequences))
        return [
            (sequence, frame * self.every)
            for sequence, count in zip(self.sequences, counts, strict=True)
            for frame in range(count)
        ]

    def write(self, folder: Path, task: tuple[int, int]) -> int:
        """Writes a frame, and with frame 0 the calibrations of its sequence."""
        sequence, frame = task
        scene = self.scene(sequence, frame)
        depth_camera, colour_camera = scene.cameras
        folder = folder / "hpdb" / f"{sequence:02d}"
        rng = np.random.default_rng([self.seed, 32, sequence, frame])
        image = photograph(render(scene, colour_camera).image, rng)
        stem = f"frame_{frame:05d}"
        write_png(folder / f"{stem}_rgb.png", image)
        if frame == 0:
            for name, camera in (("depth.cal", depth_camera), ("rgb.cal", colour_camera)):
                (folder / name).write_text(calibration_text(camera), encoding="ascii")
        rendering = render(scene, depth_camera, supersample=1)
        depth = millimetres(rendering.depth, scene.people[0].head_position[2] + _BEHIND)
        (folder / f"{stem}_depth.bin").write_bytes(depth_runs(depth))
        text = pose_text(scene.people[0])
        (folder / f"{stem}_pose.txt").write_text(text, encoding="ascii")
        return 1

    def scene(self, sequence: int, frame: int) -> Scene:
        """What the depth camera, then the colour camera see. The world is the depth camera's."""
        rng = np.random.default_rng([self.seed, 30, sequence])
        depth_camera = Camera(_matrix(_DEPTH_FOCAL, self.size), np.eye(3), np.zeros(3), *self.size)
        colour_camera = Camera(_matrix(_COLOUR_FOCAL, self.size), _TURN, _SHIFT, *self.size)
        room = random_room(rng)  # its floor is at 0, the cameras stand at the height of a table
        up = np.array([0, 1.1, 0], np.float32)
        room = dataclasses.replace(room, low=room.low + up, high=room.high + up)
        lights, ambient = random_lights(rng)
        place = np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(*_AWAY)])
        motion = random_motion(place, frame / RATE, self.poses, depth_camera, rng)
        return Scene(
            people=(motion.at(self.person(sequence), frame / RATE),),
            cameras=(depth_camera, colour_camera),
            lights=lights,
            ambient=ambient,
            surroundings=room,
        )

    def person(self, sequence: int) -> Person:
        """Who is seen in a sequence."""
        identity = {second: first for first, second in SAME_PERSON}.get(sequence, sequence)
        return make_person(figure_of(self.assets, self.targets), identity, self.seed)


def _matrix(focal: float, size: tuple[int, int]) -> np.ndarray:
    """Camera matrix in the studio's count of pixels, the focal length in parts of the width."""
    width, height = size
    return np.array(
        [[focal * width, 0, width / 2 + 0.5], [0, focal * width, height / 2 + 0.5], [0, 0, 1]]
    )


def centre_of(placed: PlacedPerson) -> np.ndarray:
    """(3,) metres in the world: the centre that pose.txt gives."""
    in_head = placed.person.landmarks[NOSE_TIP] * [0, 1, 1] + [0, 0, CENTRE_BEHIND_NOSE]
    return placed.to_world(in_head)


def pose_text(placed: PlacedPerson) -> str:
    """The content of a pose.txt of somebody in the depth camera's world."""
    centre = _MILLIMETRES * centre_of(placed)
    return f"{_rows(placed.head_rotation)}\n{_rows(centre[None])}"


def calibration_text(camera: Camera) -> str:
    """The content of a rgb.cal or depth.cal."""
    parts = (
        _rows(camera.matrix_from_centres),
        _rows(np.zeros((1, 4))),
        _rows(camera.rotation),
        _rows(_MILLIMETRES * camera.translation[None]),
    )
    return "\n".join(parts) + f"\n{camera.width} {camera.height}\n"


def _rows(values: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.9g}" for value in row) + " \n" for row in values)


def millimetres(depth: np.ndarray, end: float) -> np.ndarray:
    """(H, W) int16 of a depth in metres; 0 from `end` metres on."""
    near = depth < min(end, np.iinfo(np.int16).max / _MILLIMETRES)
    return np.round(_MILLIMETRES * np.where(near, depth, 0)).astype(np.int16)


def depth_runs(depth: np.ndarray) -> bytes:
    """The content of a depth.bin: width, height, then runs of (empty, full, full depths).

    Args:
      depth: (H, W) int16 millimetres, 0 where there is none.
    """
    values = np.ascontiguousarray(depth, "<i2").ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], values != 0, [False]])))
    starts, ends = edges[::2], edges[1::2]
    content = [np.array(depth.shape[::-1], "<i4").tobytes()]
    last = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        content.append(np.array([start - last, end - start], "<i4").tobytes())
        content.append(values[start:end].tobytes())
        last = end
    if last < len(values):
        content.append(np.array([len(values) - last, 0], "<i4").tobytes())
    return b"".join(content)
