"""The raw layout of 300W-LP: a face an image, and a .mat beside it.

    OUT/studioS_NNNNNN_0.jpg, .mat       S: the seed, NNNNNN: number of the photo

The .mat holds Pose_Para (pitch, yaw, roll in radians, canonical; then x, y from the bottom of the
image, z, and the scale) and pt2d, the 68 landmarks in the image.

The place of a head in these files is that of a weak perspective: every point of the head lies at
scale (R X)_xy + (x, y), as if all of it were as far away as the origin of the face model. The
studio has true perspective. So the camera has a long focal length, 20 times the image's width,
and stands that far away. R is exact, it has no part in this; x, y and the scale are those of the
origin. Points of the head (100 mm before or behind it, at some 9 m) are then off by about 1 percent
of their distance from the origin. The origin lies where `data_prep.engine.head_model` has it:
between the ears, 132 mm behind the tip of the nose and 6 mm above it.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from data_prep.engine.head_model import FACE_POINTS
from data_prep.sets.mat_faces import DEFAULT_MAX_ANGLE
from data_prep.studio.effects import random_effects
from data_prep.studio.layouts.biwi import NOSE_TIP
from data_prep.studio.layouts.writing import write_jpeg
from data_prep.studio.people import make_person
from data_prep.studio.random_scene import HEAD_HEIGHT, PoseSpread, random_lights, random_pose
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.scene import Camera, PlacedPerson, Scene
from data_prep.studio.surroundings import random_backdrop
from data_prep.studio.truth import head_points
from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import rotation_to_euler

SIZE = 450
POSES = PoseSpread(yaw_limit=90.0, limit=60.0)
FOCAL = 20.0  # of the image's width
_SHARE = (0.4, 0.6)  # of the image's height, an average head
# The origin of the face model from the tip of the nose, metres in head axes.
_ORIGIN = -np.array(min(FACE_POINTS, key=lambda point: point[2])) / 1000
_QUALITY = 95


@dataclass(frozen=True)
class W300Lp:
    """What to write; a `writing.Layout`.

    Attributes:
      assets, targets: see `figure_of`.
      frames: how many images, each of another person.
      seed: of the set.
      size: width and height of the images.
      poses: how heads turn.
      max_angle: no |yaw|, |pitch| or |roll|, in degrees, is beyond it (as in the original: 99).
      backgrounds: images of the user for backdrops.
    """

    assets: Path
    frames: int
    targets: Path | None = None
    seed: int = 0
    size: tuple[int, int] = (SIZE, SIZE)
    poses: PoseSpread = POSES
    max_angle: float = DEFAULT_MAX_ANGLE
    backgrounds: tuple[Path, ...] = ()

    def __post_init__(self):
        if not self.max_angle > 0:
            raise BadInput(f"{self.max_angle} degrees: the largest angle must be above 0")

    def tasks(self) -> range:
        """Numbers of photos."""
        return range(self.frames)

    def name(self, photo: int) -> str:
        """Of the files of a photo, without ending."""
        return f"studio{self.seed}_{photo:06d}_0"

    def write(self, folder: Path, photo: int) -> int:
        """Writes an image and its .mat."""
        scene = self.scene(photo)
        camera = scene.cameras[0]
        rng = np.random.default_rng([self.seed, 41, photo])
        image = random_effects(render(scene, camera).image, rng)
        write_jpeg(folder / f"{self.name(photo)}.jpg", image, _QUALITY)
        (folder / f"{self.name(photo)}.mat").write_bytes(mat(scene.people[0], camera))
        return 1

    def scene(self, photo: int) -> Scene:
        """One person before one far camera, which is the world."""
        rng = np.random.default_rng([self.seed, 40, photo])
        focal = FOCAL * self.size[0]
        matrix = np.array([[focal, 0, self.size[0] / 2], [0, focal, self.size[1] / 2], [0, 0, 1]])
        camera = Camera(matrix, np.eye(3), np.zeros(3), *self.size)
        away = focal * HEAD_HEIGHT / (rng.uniform(*_SHARE) * self.size[1])
        place = np.array([*rng.uniform(-0.05, 0.05, 2), away])
        while True:
            head, body = random_pose(self.poses, camera, rng)
            if np.abs(rotation_to_euler(head, convention="canonical")).max() <= self.max_angle:
                break
        person = make_person(figure_of(self.assets, self.targets), photo, self.seed)
        lights, ambient = random_lights(rng)
        return Scene(
            people=(PlacedPerson(person, head, place, body),),
            cameras=(camera,),
            lights=lights,
            ambient=ambient,
            surroundings=random_backdrop(rng, self.backgrounds),
        )


def pose_para(placed: PlacedPerson, camera: Camera) -> np.ndarray:
    """(1, 7) pitch, yaw, roll, x, y, z, scale of a head; see the module."""
    rotation = camera.rotation @ placed.head_rotation
    yaw, pitch, roll = np.deg2rad(rotation_to_euler(rotation, convention="canonical"))
    in_head = placed.person.landmarks[NOSE_TIP] * [0, 1, 1] + _ORIGIN
    origin = camera.to_camera(placed.to_world(in_head))
    x, y = camera.project(origin)
    scale = camera.matrix[0, 0] / origin[2] / 1e6  # pixels per micrometre
    return np.array([[pitch, yaw, roll, x, camera.height - y, 0.0, scale]])


def mat(placed: PlacedPerson, camera: Camera) -> bytes:
    """The content of a .mat."""
    landmarks = camera.project(head_points(placed, placed.person.landmarks[:68], camera))
    file = io.BytesIO()
    content = {
        "Pose_Para": pose_para(placed, camera),
        "pt2d": landmarks.T,
        "roi": np.array([[0, 0, camera.width, camera.height]]),
    }
    scipy.io.savemat(file, content)
    # The header says when the file was made; the same seed gives the same bytes.
    return b"MATLAB 5.0 MAT-file, written by mtnet studio".ljust(116) + file.getvalue()[116:]
