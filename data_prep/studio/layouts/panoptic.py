"""The raw layout of CMU Panoptic: people in a dome, seen by HD cameras all round.

    OUT/SEQUENCE/calibration_SEQUENCE.json
    OUT/SEQUENCE/hdFace3d/faceRecon3D_hdXXXXXXXX.json
    OUT/SEQUENCE/hdImgs/00_CC/00_CC_XXXXXXXX.jpg      or hdVideos/hd_00_CC.mp4

As in the originals: world and landmarks in centimetres, y down; one calibration a sequence; the
same numbers of frames in json, images and video; camera matrices that call the centre of the
first pixel 0. Lenses have no distortion. Faces have the 70 landmarks of the mesh. Some are lost, as
happens in the originals: most of their landmarks have a score of -1.

Each sequence has people, room and light of its own. They move at 30 frames a second. `hdImgs` hold
every n-th frame only, a video holds all.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.panoptic import layout as names
from data_prep.panoptic.head_fit import REFERENCE_LANDMARKS
from data_prep.studio.layouts.motion import RATE, Motion, random_motion
from data_prep.studio.layouts.writing import photograph, shares, write_jpeg
from data_prep.studio.people import make_person
from data_prep.studio.person import Person
from data_prep.studio.random_scene import PoseSpread, random_lights
from data_prep.studio.records import TEST_IDENTITIES, figure_of
from data_prep.studio.render import render
from data_prep.studio.scene import Camera, Light, Scene
from data_prep.studio.surroundings import Room, random_room
from mtnet_jax.errors import BadInput, Unavailable

SPLITS = ("train", "test")
SIZE = (1920, 1080)
POSES = PoseSpread()
_CENTIMETRES = 100.0
_MIDDLE = np.array([0.0, -1.4, 0.0])  # of the dome, at which the cameras look
_DOME = (2.55, 2.85)  # metres from the middle to a camera
_FOCAL = 0.8  # of the image's width
_STAND, _APART = 1.0, 0.6  # metres: how far from the middle people stand, and from each other
_WALL = (3.3, 5.0)  # metres from the middle
_GOLDEN = np.pi * (3 - np.sqrt(5))
_QUALITY = 95
_LANDMARKS_LEFT = 5  # of a lost face, of those that a fit can use


@dataclass(frozen=True)
class Cast:
    """What a sequence shows.

    Attributes:
      people: who.
      motions: how each of them moves.
      cameras: number -> camera.
      lights, ambient, room: see `Scene`.
    """

    people: tuple[Person, ...]
    motions: tuple[Motion, ...]
    cameras: dict[int, Camera]
    lights: tuple[Light, ...]
    ambient: np.ndarray
    room: Room


@dataclass(frozen=True)
class Panoptic:
    """What to write; a `writing.Layout`.

    Attributes:
      assets, targets: see `figure_of`.
      frames: of the splits "train" and "test", how many frames the converter can keep. Each of them
        is seen by every camera.
      seed: of the set.
      cameras: how many HD cameras, numbered from 0.
      size: width and height of the images.
      people: fewest and most people of a sequence.
      poses: how heads turn in the world.
      every: distance of frames that are kept.
      sequence_frames: most kept frames of a sequence.
      identities: how many people each split chooses from.
      lost_share: of the faces, lost ones.
      video: write all frames as a video rather than the kept ones as images.
    """

    assets: Path
    frames: tuple[int, int]
    targets: Path | None = None
    seed: int = 0
    cameras: int = 5
    size: tuple[int, int] = SIZE
    people: tuple[int, int] = (1, 6)
    poses: PoseSpread = POSES
    every: int = 60
    sequence_frames: int = 60
    identities: int = 2000
    lost_share: float = 0.03
    video: bool = False

    def __post_init__(self):
        if not 1 <= self.cameras <= names.CAMERA_COUNT:
            raise BadInput(f"--cameras {self.cameras}: choose 1 to {names.CAMERA_COUNT}")
        if not 1 <= self.identities <= TEST_IDENTITIES:
            raise BadInput(f"--identities {self.identities}: choose 1 to {TEST_IDENTITIES}")

    def sequences(self) -> dict[str, int]:
        """Name of each sequence -> how many frames are kept of it."""
        found = {}
        for split, total in zip(SPLITS, self.frames, strict=True):
            parts = -(-total // self.sequence_frames)
            for number, count in enumerate(shares(total, parts) if parts else ()):
                found[f"studio{self.seed}_{split}{number}"] = count
        return found

    def frame_numbers(self, sequence: str) -> range:
        """The frames that have a json: the kept ones, with a video all."""
        end = self.every * (self.sequences()[sequence] - 1) + 1
        return range(0, end, 1 if self.video else self.every)

    def tasks(self) -> list[tuple[str, int, bool]]:
        """(sequence, number, whether it is that of a camera, whose video is wanted, or a frame)."""
        found = []
        for sequence in self.sequences():
            found += [(sequence, frame, False) for frame in self.frame_numbers(sequence)]
            if self.video:
                found += [(sequence, camera, True) for camera in range(self.cameras)]
        return found

    def write(self, folder: Path, task: tuple[str, int, bool]) -> int:
        """Writes a frame (json, images unless there is a video), or the video of a camera."""
        sequence, number, is_camera = task
        if is_camera:
            return self._write_video(folder, sequence, number)
        if number == 0:
            path = names.calibration_path(folder, sequence)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(calibration(self.cast(sequence).cameras)), encoding="utf-8")
        scene = self.scene(sequence, number)
        path = names.face_path(folder, sequence, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._faces(scene, sequence, number)), encoding="utf-8")
        if self.video:
            return 0
        for camera in self.cast(sequence).cameras:
            path = names.image_path(folder, sequence, camera, number)
            write_jpeg(path, self.image(scene, sequence, camera, number), _QUALITY)
        return self.cameras

    def cast(self, sequence: str) -> Cast:
        """People, room, light and cameras of a sequence."""
        seconds = (self.frame_numbers(sequence)[-1]) / RATE
        return _cast(self, sequence, seconds)

    def scene(self, sequence: str, frame: int) -> Scene:
        """What the cameras of a sequence, in the order of their numbers, see in a frame."""
        cast = self.cast(sequence)
        pairs = zip(cast.motions, cast.people, strict=True)
        return Scene(
            people=tuple(motion.at(person, frame / RATE) for motion, person in pairs),
            cameras=tuple(cast.cameras.values()),
            lights=cast.lights,
            ambient=cast.ambient,
            surroundings=cast.room,
        )

    def image(self, scene: Scene, sequence: str, camera: int, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a camera."""
        rng = self._rng(sequence, 3, camera, frame)
        return photograph(render(scene, self.cast(sequence).cameras[camera]).image, rng)

    def lost(self, sequence: str, frame: int) -> np.ndarray:
        """(n,) whether the face of each person is lost in a frame."""
        count = len(self.cast(sequence).people)
        return self._rng(sequence, 4, frame).random(count) < self.lost_share

    def _faces(self, scene: Scene, sequence: str, frame: int) -> dict:
        rng = self._rng(sequence, 5, frame)
        people = []
        lost = self.lost(sequence, frame)
        for number, (placed, is_lost) in enumerate(zip(scene.people, lost, strict=True)):
            points = placed.to_world(placed.person.landmarks)
            scores = rng.uniform(0.4, 0.95, len(points))
            if is_lost:
                left = rng.permutation(REFERENCE_LANDMARKS)[:_LANDMARKS_LEFT]
                scores[~np.isin(np.arange(len(scores)), left)] = -1
            people.append(face(number, _CENTIMETRES * points, scores))
        return {
            "version": 0.5,
            "univTime": 1000 * frame / RATE,
            "fpsType": "hd_29_97",
            "people": people,
        }

    def _write_video(self, folder: Path, sequence: str, camera: int) -> int:
        path = names.video_path(folder, sequence, camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, RATE, self.size)
        if not writer.isOpened():
            raise Unavailable(f"{path}: OpenCV cannot write this video (built without FFmpeg?)")
        frames = self.frame_numbers(sequence)
        for frame in frames:
            image = self.image(self.scene(sequence, frame), sequence, camera, frame)
            writer.write(np.ascontiguousarray(image[..., ::-1]))
        writer.release()
        return len(frames)

    def _rng(self, sequence: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 20, *sequence.encode(), *numbers])


@functools.lru_cache(maxsize=2)  # tasks come sequence by sequence
def _cast(options: Panoptic, sequence: str, seconds: float) -> Cast:
    rng = options._rng(sequence, 1)
    lights, ambient = random_lights(rng)
    room = random_room(rng)
    floor = rng.uniform(*_WALL, 4)
    room = dataclasses.replace(
        room,
        low=np.array([-floor[0], -rng.uniform(4.3, 5.5), -floor[1]], np.float32),
        high=np.array([floor[2], 0, floor[3]], np.float32),
    )
    first = TEST_IDENTITIES if "test" in sequence else 0
    count = min(int(rng.integers(options.people[0], options.people[1] + 1)), options.identities)
    identities = first + rng.choice(options.identities, size=count, replace=False)
    figure = figure_of(options.assets, options.targets)
    people, motions = [], []
    places: list[np.ndarray] = []
    level = Camera(np.eye(3), np.eye(3), np.zeros(3), *options.size)
    for identity, person_rng in zip(identities, rng.spawn(count), strict=True):
        place = _free_place(places, person_rng)
        if place is None:
            continue
        places.append(place)
        people.append(make_person(figure, int(identity), options.seed))
        motions.append(random_motion(place, seconds, options.poses, level, person_rng))
    cameras = {n: dome_camera(n, options.size, rng) for n in range(options.cameras)}
    return Cast(tuple(people), tuple(motions), cameras, lights, ambient, room)


def _free_place(places: list[np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """(3,) for a head, apart from the others; None where there is no room."""
    for _ in range(100):
        x, z = rng.uniform(-_STAND, _STAND, 2)
        apart = all(np.hypot(x - other[0], z - other[2]) > _APART for other in places)
        if apart and np.hypot(x, z) < _STAND:
            return np.array([x, -rng.uniform(1.2, 1.8), z])  # some sit
    return None


def dome_camera(number: int, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """A camera of the dome: any number of them stand evenly all round, at several heights."""
    turn = _GOLDEN * number
    rise = np.deg2rad((-5, 12, 30, 20, 5, 40)[number % 6] + rng.uniform(-3, 3))
    away = np.array([np.cos(rise) * np.cos(turn), -np.sin(rise), np.cos(rise) * np.sin(turn)])
    position = _MIDDLE + rng.uniform(*_DOME) * away
    forward = _MIDDLE + rng.uniform(-0.15, 0.15, 3) - position
    forward /= np.linalg.norm(forward)
    right = np.cross([0.0, 1.0, 0.0], forward) + rng.uniform(-0.04, 0.04, 3)
    right -= forward * (right @ forward)
    right /= np.linalg.norm(right)
    rotation = np.array([right, np.cross(forward, right), forward])
    focal = _FOCAL * size[0] * rng.uniform(0.97, 1.03)
    centre = np.array(size) * rng.uniform(0.48, 0.52, 2)
    matrix = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    return Camera(matrix, rotation, -rotation @ position, *size)


def calibration(cameras: dict[int, Camera]) -> dict:
    """The content of a calibration file."""
    entries = []
    for number, camera in cameras.items():
        entries.append(
            {
                "name": f"00_{number:02d}",
                "type": "hd",
                "resolution": [camera.width, camera.height],
                "panel": 0,
                "node": number,
                "K": camera.matrix_from_centres.tolist(),
                "distCoef": [0.0] * 5,
                "R": camera.rotation.tolist(),
                "t": (_CENTIMETRES * camera.translation)[:, None].tolist(),
            }
        )
    return {"calibDataSource": "studio", "cameras": entries}


def face(number: int, landmarks: np.ndarray, scores: np.ndarray) -> dict:
    """An entry of "people": (70, 3) landmarks in centimetres and their (70,) scores."""
    return {
        "id": number,
        "face70": {
            "landmarks": landmarks.ravel().tolist(),
            "averageScore": scores.tolist(),
            "averageReproError": np.where(scores > 0, 0.0, -1.0).tolist(),
        },
    }
