"""A head that was found, and heads as JSON and as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(slots=True)  # not frozen: that takes six times as long, which fifty heads would feel
class Head:
    """One head of an image.

    Attributes:
      box: left, top, right, bottom in pixels of the image, 0 at its outer edge.
      score: 0 to 1.
      rotation: (3, 3) head axes to the axes of `frame` (see `mtnet_jax.rotations`); the face looks
        along minus its third column.
      yaw: degrees, canonical: + turns the face to the left of the image; +-180 is the back of a
        head.
      pitch: degrees, canonical: + looks up.
      roll: degrees, canonical: + is clockwise in the image.
      label: name of the class, one of the predictor's `class_names`.
      frame: "camera", or "ray": the axes of a camera that looks at the middle of the box, as a crop
        of the head shows it (`mtnet_jax.camera`).
      rotation_camera: (3, 3) head axes to camera axes; None where the camera is not known.
    """

    box: tuple[float, float, float, float]
    score: float
    rotation: np.ndarray
    yaw: float
    pitch: float
    roll: float
    label: str
    frame: str = "camera"
    rotation_camera: np.ndarray | None = None

    def to_json(self, *, label: bool = False) -> dict[str, Any]:
        """Plain numbers and lists, with the label (where a network knows several) if asked."""
        numbers = {
            "box": [round(v, 2) for v in self.box],
            "score": round(self.score, 4),
            "rotation": rounded_rotation(self.rotation),
            "frame": self.frame,
            "yaw": round(self.yaw, 3),
            "pitch": round(self.pitch, 3),
            "roll": round(self.roll, 3),
        }
        if self.rotation_camera is not None:
            numbers["rotation_camera"] = rounded_rotation(self.rotation_camera)
        return {**numbers, "label": self.label} if label else numbers


def rounded_rotation(rotation: np.ndarray) -> list[list[float]]:
    """A rotation as JSON has it, six digits a number."""
    return [[round(float(v), 6) for v in row] for row in rotation]


def heads_to_json(
    image: np.ndarray, heads: list[Head], class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Size and heads of an image, ready for JSON; heads name their label if there are several."""
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "heads": [head.to_json(label=len(class_names) > 1) for head in heads],
    }


def as_arrays(heads: list[Head]) -> dict[str, np.ndarray]:
    """Heads as the arrays that drawing and metrics take."""
    return {
        "boxes": np.array([h.box for h in heads], np.float32).reshape(-1, 4),
        "scores": np.array([h.score for h in heads], np.float32),
        "rotations": np.array([h.rotation for h in heads], np.float32).reshape(-1, 3, 3),
    }
