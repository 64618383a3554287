"""What several looks of a network at one image say together, and a teacher beside it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine.fingerprint import source_files
from data_prep.own.teacher import Look, Teacher, Trust, believed, outward
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.places import Place
from mtnet_jax.rotations import (
    angles_apart,
    geodesic_degrees,
    heading_degrees,
    mirror,
    nearest_rotation,
)

_SAME_HEAD = 0.5  # IoU


class Agreement(NamedTuple):
    """When looks agree."""

    score: float = 0.5  # least score in every look
    rotation: float = 15.0  # degrees, furthest look from the mean rotation
    heading: float = 25.0  # degrees, furthest look from the mean heading
    doubtful: float = 0.1  # least score, in the first look, of what is marked to be ignored


@dataclass(frozen=True)
class Trusted:
    """A prediction that the looks were asked about.

    Attributes:
      box: (4,) xyxy pixels, mean of the looks that found it.
      agreed: every look found it with enough score.
      rotation: (3, 3) mean, or None where the looks differ.
      heading: degrees, mean, or None where the looks differ, or the rotation says it.
      taught: "yes" where the rotation is a teacher's, "contradicted" where there is none because
        the network and the teacher differ, "missed" where the teacher alone sees a face, else "no".
    """

    box: np.ndarray
    agreed: bool
    rotation: np.ndarray | None = None
    heading: float | None = None
    taught: str = "no"


def agree(looks: Sequence[Look], options: Agreement) -> list[Trusted]:
    """What several looks at one image say together.

    Args:
      looks: predictions of each look, already moved back into the image ("boxes" (m, 4), "scores"
        (m,), "rotations" (m, 3, 3)). The first one proposes, the others are asked.
      options: when they agree.

    Returns:
      A `Trusted` for each head of the first look of score >= options.doubtful.
    """
    first = looks[0]
    found = []
    for i in np.flatnonzero(first["scores"] >= options.doubtful):
        mine = [same_head(first["boxes"][i], look) for look in looks]
        known = [(look, j) for look, j in zip(looks, mine, strict=True) if j is not None]
        box = np.mean([look["boxes"][j] for look, j in known], axis=0)
        scores = [look["scores"][j] for look, j in known]
        if len(known) < len(looks) or min(scores) < options.score:
            found.append(Trusted(box, agreed=False))
            continue
        rotations = np.array([look["rotations"][j] for look, j in known], np.float64)
        found.append(Trusted(box, True, *_mean_pose(rotations, options)))
    return found


def missed(faces: Look, found: Sequence[Trusted]) -> list[Trusted]:
    """Faces of the teacher (its look at the image as it is) that touch no head of the network."""
    heads = np.array([head.box for head in found]).reshape(-1, 4)
    return [
        Trusted(box, agreed=False, taught="missed")
        for box in faces["boxes"]
        if not touches(box, heads)
    ]


def touches(box: np.ndarray, others: np.ndarray) -> bool:
    """Whether a box (4,) overlaps any of others (m, 4)."""
    return bool((iou_xyxy(box[None].astype(np.float64), others.astype(np.float64)) > 0).any())


def same_head(box: np.ndarray, look: Look) -> int | None:
    """The prediction of a look that overlaps a box most, None where none does enough."""
    if not len(look["boxes"]):
        return None
    overlap = iou_xyxy(box[None].astype(np.float64), look["boxes"].astype(np.float64))
    best = int(np.argmax(overlap))
    return best if overlap[best] >= _SAME_HEAD else None


def _mean_pose(rotations: np.ndarray, options: Agreement) -> tuple[np.ndarray | None, float | None]:
    """The chordal mean of (k, 3, 3) rotations or, failing that, of their headings."""
    mean = nearest_rotation(rotations.sum(axis=0))
    if geodesic_degrees(rotations, mean[None]).max() <= options.rotation:
        return mean, None
    angles = np.deg2rad(heading_degrees(rotations))
    heading = float(np.rad2deg(np.arctan2(np.sin(angles).sum(), np.cos(angles).sum())))
    off = angles_apart(np.rad2deg(angles), heading)
    return None, heading if off.max() <= options.heading else None


@dataclass(frozen=True)
class Labeller:
    """The looks of a network at an image.

    Attributes:
      weights: as `mtnet_jax.Predictor` takes them.
      sizes: sides of the network's input, multiples of 32.
      options: when looks agree.
      teacher: another program that is asked for rotations.
    """

    weights: Place
    sizes: tuple[int, ...]
    options: Agreement
    teacher: Teacher | None = None

    def inputs(self) -> list[Path]:
        """The files of the weights and of the code that runs them, see `engine.fingerprint`."""
        code = source_files("mtnet_jax", "**/*.py").values()
        weights = self.weights.rglob("*") if isinstance(self.weights, Path) else ()
        return sorted(path for path in (*weights, *code) if path.is_file())

    def __call__(self, image: np.ndarray, image_id: str) -> list[Trusted]:
        """(H, W, 3) uint8 RGB and its name -> what the looks say together."""
        looks: list[Look] = []
        for predictor in predictors(self.weights, self.sizes, self.options.doubtful):
            looks.append(_arrays(predictor(image)))
            flipped = _arrays(predictor(np.ascontiguousarray(image[:, ::-1])))
            looks.append(_unflipped(flipped, image.shape[1]))
        found = agree(looks, self.options)
        if self.teacher is None:
            return found
        size = (image.shape[1], image.shape[0])
        theirs, theirs_flipped = self.teacher.sees(image_id, size)
        asked = [theirs, _unflipped(theirs_flipped, image.shape[1])]
        learnt = [taught(head, asked, self.options, self.teacher.trust) for head in found]
        return learnt + missed(asked[0], found)


def taught(head: Trusted, looks: Sequence[Look], options: Agreement, trust: Trust) -> Trusted:
    """A head with the rotation of a teacher, where it is to be believed.

    Args:
      head: what the network says.
      looks: the teacher's predictions ("boxes", "rotations"), already moved back into the image.
      options: when looks agree.
      trust: when the teacher is believed.
    """
    mine = [same_head(head.box, look) for look in looks]
    if not head.agreed or any(j is None for j in mine):
        return head
    theirs = np.array([look["rotations"][j] for look, j in zip(looks, mine, strict=True)])
    if not np.isfinite(theirs).all():  # a face without a pose
        return head
    rotation, _ = _mean_pose(theirs, options)
    network = head.heading if head.rotation is None else float(heading_degrees(head.rotation))
    verdict = believed(rotation, network, trust)
    if verdict == "no":
        return head
    turned = outward(rotation, trust) if verdict == "yes" and rotation is not None else None
    return Trusted(head.box, True, turned, taught=verdict)


@functools.lru_cache(maxsize=1)
def predictors(weights: Place, sizes: tuple[int, ...], score: float) -> list[Any]:
    from mtnet_jax.predict.predictor import Predictor

    return [Predictor(weights, score_threshold=score, size=size) for size in sizes]


def _arrays(heads: list[Any]) -> dict[str, np.ndarray]:
    from mtnet_jax.predict.head import as_arrays

    return as_arrays(heads)


def _unflipped(heads: Look, width: int) -> Look:
    """Heads of a horizontally flipped image, as they are in the image itself."""
    left, top, right, bottom = heads["boxes"].T
    boxes = np.stack([width - right, top, width - left, bottom], axis=1)
    return {**heads, "boxes": boxes, "rotations": mirror(heads["rotations"])}
