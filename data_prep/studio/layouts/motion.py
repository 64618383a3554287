"""People who move: heads that turn smoothly from pose to pose.

Poses are those of `random_scene.random_pose`. Between two of them the angles, not the matrices, are
interpolated: heading, nod and tilt (R = Ry(heading) Rx(-nod) Rz(tilt)) stay within the limits of
their spread, and the head turns the shorter way round.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.studio.figure import smooth_step
from data_prep.studio.person import Person
from data_prep.studio.random_scene import PoseSpread, nod_and_tilt, random_pose
from data_prep.studio.scene import Camera, PlacedPerson

RATE = 30.0  # frames a second
_HOLD, _TURN = (0.3, 1.2), 150.0  # seconds between poses beside the turning; degrees a second
_SWAY = 0.05  # metres, standard deviation


@dataclass(frozen=True)
class Motion:
    """How a person moves.

    Attributes:
      times: (k,) seconds of the poses, from 0 on, ascending.
      head: (k, 3) heading, nod and tilt of the head in the world, degrees; headings do not wrap.
      body: (k, 3) the same of the body.
      places: (k, 3) of the origin of the head axes in the world, metres.
    """

    times: np.ndarray
    head: np.ndarray
    body: np.ndarray
    places: np.ndarray

    def at(self, person: Person, seconds: float) -> PlacedPerson:
        """The person at a time; before the first pose and after the last one he stands still."""
        after = int(np.clip(np.searchsorted(self.times, seconds), 1, len(self.times) - 1))
        start, end = self.times[after - 1 : after + 1]
        share = float(smooth_step((seconds - start) / (end - start)))
        head, body, place = (
            values[after - 1] + share * (values[after] - values[after - 1])
            for values in (self.head, self.body, self.places)
        )
        return PlacedPerson(person, rotation_of(head), place, rotation_of(body))


def random_motion(
    place: np.ndarray,
    seconds: float,
    spread: PoseSpread,
    camera: Camera,
    rng: np.random.Generator,
) -> Motion:
    """A motion that lasts `seconds` or a little longer; a longer one begins in the same way.

    Args:
      place: (3,) about where the head is, metres.
      seconds: how long.
      spread: how heads turn.
      camera: whose view the limit of the spread holds for, too; see `random_pose`.
      rng: source of the draw.
    """
    time = 0.0
    times: list[float] = []
    heads: list[np.ndarray] = []
    bodies: list[np.ndarray] = []
    places: list[np.ndarray] = []
    while len(times) < 2 or times[-1] < seconds:
        head, body = map(angles_of, random_pose(spread, camera, rng))
        if heads:
            head[0] += 360 * np.round((heads[-1][0] - head[0]) / 360)
            time += rng.uniform(*_HOLD) + np.abs(head - heads[-1]).max() / _TURN
        body[0] += 360 * np.round((head[0] - body[0]) / 360)
        times.append(time)
        heads.append(head)
        bodies.append(body)
        places.append(place + np.clip(rng.normal(0, _SWAY, 3), -0.1, 0.1) * [1, 0.3, 1])
    return Motion(*map(np.array, (times, heads, bodies, places)))


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """(3,) heading, nod and tilt in degrees of a rotation Ry(heading) Rx(-nod) Rz(tilt)."""
    heading = np.rad2deg(np.arctan2(rotation[0, 2], rotation[2, 2]))
    return np.array([heading, *nod_and_tilt(rotation)])


def rotation_of(angles: np.ndarray) -> np.ndarray:
    """(3, 3) of heading, nod and tilt in degrees."""
    heading, nod, tilt = angles
    return Rotation.from_euler("YXZ", [heading, -nod, tilt], degrees=True).as_matrix()
