"""Heads of a frame, in the dome, from its json of faces or of bodies."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.panoptic.head_fit import (
    COARSE_JOINTS,
    COARSE_POINTS,
    HEAD_AXES,
    REFERENCE_LANDMARKS,
    REFERENCE_POINTS,
    SPHERE_CENTRE,
    fit_similarity,
)
from mtnet_jax.errors import BadInput

LANDMARK_COUNT = 70
JOINT_COUNT = 19
# Of the five joints of a head (nose, eyes, ears).
MIN_JOINTS = 4


@dataclass(frozen=True)
class HeadRule:
    """When landmarks make a head, and how large its sphere is.

    Attributes:
      sphere_radius: centimetres, for a head of the size of the reference; a fit scales it.
      min_score: a landmark counts when its score is above this.
      min_points: landmarks of the reference head that a fit needs.
      max_residual: centimetres; a fit with a greater root mean square distance is none.
    """

    sphere_radius: float = 18.0
    min_score: float = 0.1
    min_points: int = 7
    max_residual: float = np.inf


@dataclass(frozen=True, eq=False)
class Head:
    """A head in the dome.

    Attributes:
      centre: (3,) of its sphere, centimetres; None for a face without any visible landmark.
      radius: of the sphere, centimetres.
      rotation: (3, 3) head axes of the project to the dome; None for a head without a fit.
      fault: why there is no fit; empty for a whole head.
    """

    centre: np.ndarray | None
    radius: float
    rotation: np.ndarray | None
    fault: str = ""


def read_faces(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Landmarks of each face of a faceRecon3D json.

    Returns:
      For each person (70, 3) landmarks in centimetres and (70,) scores.

    Raises:
      ValueError: not JSON (cut short), or not the format.
      FileNotFoundError: no file.
    """
    faces = []
    for number, person in enumerate(_entries(path, "people")):
        place = f"person {number}, face70"
        face = person.get("face70") if isinstance(person, dict) else None
        face = face if isinstance(face, dict) else {}
        landmarks = _numbers(face.get("landmarks"), (LANDMARK_COUNT, 3), f"{place}.landmarks")
        scores = _numbers(face.get("averageScore"), (LANDMARK_COUNT,), f"{place}.averageScore")
        faces.append((landmarks, scores))
    return faces


def read_bodies(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joints of each body of a body3DScene json.

    Returns:
      For each person (19, 3) joints in centimetres and (19,) scores.

    Raises:
      ValueError: not JSON (cut short), or not the format.
      FileNotFoundError: no file.
    """
    bodies = []
    for number, body in enumerate(_entries(path, "bodies")):
        joints = body.get("joints19") if isinstance(body, dict) else None
        values = _numbers(joints, (JOINT_COUNT, 4), f"body {number}, joints19")
        bodies.append((values[:, :3], values[:, 3]))
    return bodies


def head_of_face(landmarks: np.ndarray, scores: np.ndarray, rule: HeadRule) -> Head:
    """The head behind the landmarks of a face.

    Args:
      landmarks: (70, 3) centimetres; those that are not finite count as not seen.
      scores: (70,).
      rule: what counts.

    Returns:
      The head. Without a fit its sphere lies round the mean of the visible landmarks (of all 70).
    """
    return _head(
        landmarks, scores, REFERENCE_LANDMARKS, REFERENCE_POINTS, rule.min_points, "face", rule
    )


def head_of_body(joints: np.ndarray, scores: np.ndarray, rule: HeadRule) -> Head:
    """The coarse head behind nose, eyes and ears of a body; see `head_of_face`.

    Args:
      joints: (19, 3) centimetres.
      scores: (19,).
      rule: what counts; of the five joints at least `MIN_JOINTS` must be seen.
    """
    others = ~np.isin(np.arange(len(joints)), COARSE_JOINTS)
    scores = np.where(others, -1.0, scores)  # without a fit, only joints of the head say where
    return _head(joints, scores, COARSE_JOINTS, COARSE_POINTS, MIN_JOINTS, "body", rule)


def _head(
    points: np.ndarray,
    scores: np.ndarray,
    numbers: np.ndarray,
    reference: np.ndarray,
    needed: int,
    kind: str,
    rule: HeadRule,
) -> Head:
    seen = (scores > rule.min_score) & np.isfinite(points).all(axis=1)
    used = seen[numbers]
    fit = None
    if used.sum() < needed:
        fault = f"{kind} with fewer than {needed} landmarks of the reference head"
    elif (fit := fit_similarity(reference[used], points[numbers[used]])) is None:
        fault = f"{kind} whose landmarks lie on a line"
    elif fit.residual > rule.max_residual:
        fault = f"{kind} whose fit leaves more than {rule.max_residual:g} cm"
    else:
        radius = fit.scale * rule.sphere_radius
        return Head(fit.move(SPHERE_CENTRE), radius, fit.rotation @ HEAD_AXES)
    centre = points[seen].mean(axis=0) if seen.any() else None
    return Head(centre, rule.sphere_radius, None, fault)


def _entries(path: Path, key: str) -> list:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not valid JSON, cut short? ({error})") from error
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BadInput(f"no list {key!r}")
    return entries


def _numbers(values: object, shape: tuple[int, ...], place: str) -> np.ndarray:
    try:
        return np.array(values, np.float64).reshape(shape)
    except (TypeError, ValueError):
        size = int(np.prod(shape))
        raise BadInput(f"{place} must be {size} numbers") from None
