"""Another program's rotations for heads that a network found.

A face mesh reads frontal faces better than a network of this size, and reads nothing else: from
behind it sees no face, and towards profile it says too little. So its two looks at an image, as it
is and flipped, give the rotation of a head where both lie on the head, agree, look no further to
the side than it can be trusted, and the network does not contradict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.foreign import Seen, read_predictions
from mtnet_jax.places import Place
from mtnet_jax.rotations import angles_apart, axis_rotation, heading_degrees

# "boxes" (m, 4), "rotations" (m, 3, 3), NaN without a pose; of a network, "scores" (m,) too.
Look = Mapping[str, np.ndarray]


class Trust(NamedTuple):
    """When the other program is believed."""

    heading: float = 45.0  # degrees from the front, furthest that it is asked for
    outward: float = 1.0  # what its headings are multiplied by, for one that says too little
    contradiction: float = 35.0  # degrees from the network's heading, beyond which neither is right


TRUST = Trust()


@dataclass(frozen=True)
class Teacher:
    """What another program saw in images, and in the same images flipped horizontally.

    Attributes:
      plain: image_id -> heads, and the size of what was looked at.
      flipped: image_id -> heads of the flipped image, in its pixels.
      trust: when it is believed.
    """

    plain: Mapping[str, Seen]
    flipped: Mapping[str, Seen]
    trust: Trust

    def sees(self, image_id: str, size: tuple[int, int]) -> tuple[Look, Look]:
        """Both looks at an image of this width and height, the second one still flipped.

        Raises:
          BadInput: the program looked at an image of another size, such as a copy made smaller.
        """
        return self.plain[image_id].in_image(size), self.flipped[image_id].in_image(size)


def read_teacher(
    files: Sequence[Place], image_ids: Sequence[str], frame: str, trust: Trust
) -> Teacher:
    """Reads the predictions of a program: of the images, and of the images flipped.

    Args:
      files: two JSON files in the format of `mtnet_jax.evaluation.foreign`.
      image_ids: the images that will be asked for.
      frame: "ray" or "camera", that of the network's rotations.
      trust: when the program is believed.

    Raises:
      MissingFile: no such file.
      BadInput: not of the format, an image is missing, the frame is another one, or angles look
        like radians.
    """
    looks = []
    for file in files:
        predictions = read_predictions(file)
        if predictions.frame != frame:
            cure = (
                'If they come from a crop round the head, write "frame": "ray" into the file'
                if frame == "ray"
                else "Take --weights of the other frame"
            )
            raise BadInput(
                f"{file} has rotations in the frame {predictions.frame!r} and the network in "
                f"{frame!r}. {cure} (docs/conventions.md)."
            )
        if predictions.warning:  # what it says becomes labels
            raise BadInput(f"{file}: {predictions.warning}")
        looks.append(dict(zip(image_ids, predictions.seen(image_ids), strict=True)))
    return Teacher(looks[0], looks[1], trust)


def outward(rotation: np.ndarray, trust: Trust) -> np.ndarray:
    """A rotation (3, 3) of the program, turned about the vertical by what its heading lacks."""
    return axis_rotation("y", (trust.outward - 1) * heading_degrees(rotation)) @ rotation


def believed(rotation: np.ndarray | None, network: float | None, trust: Trust) -> str:
    """Whether a rotation on which both looks agree is taken: "yes", "no" or "contradicted".

    Args:
      rotation: (3, 3), None where the looks do not agree.
      network: heading of the network in degrees, None where it knows none.
      trust: when the program is believed.
    """
    if rotation is None or abs(heading_degrees(rotation)) > trust.heading:
        return "no"
    if network is None:
        return "yes"
    off = angles_apart(heading_degrees(rotation), network)
    return "contradicted" if off > trust.contradiction else "yes"
