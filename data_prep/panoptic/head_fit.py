"""From landmarks to a head in the dome: position, size and rotation.

Reference axes: x to the subject's left, y up, z out of the face, centimetres. A similarity fit
(Horn's closed form, the determinant corrected) takes the reference points to the landmarks,

    landmark = scale R_fit reference + translation,

and R_fit diag(1, -1, -1) takes the project's head axes (x to the subject's left, y down, z to the
back of the head) to the dome. The camera's rotation before it gives the rotation of a record.
"""

from dataclasses import dataclass

import numpy as np

# Number of the landmark (of the 70 of a face, iBUG 68 and two pupils) -> where it lies in the
# reference head: 14 points of the common anthropometric head of 58.
REFERENCE_HEAD = {
    17: (-6.825897, 6.760612, 4.402142),  # right eyebrow, outer end
    21: (-1.330353, 7.122144, 6.903745),  # right eyebrow, inner end
    26: (6.825897, 6.760612, 4.402142),  # left eyebrow, outer end
    22: (1.330353, 7.122144, 6.903745),  # left eyebrow, inner end
    45: (5.311432, 5.485328, 3.987654),  # left eye, outer corner
    42: (1.789930, 5.393625, 4.413414),  # left eye, inner corner
    39: (-1.789930, 5.393625, 4.413414),  # right eye, inner corner
    36: (-5.311432, 5.485328, 3.987654),  # right eye, outer corner
    35: (1.930245, 0.424351, 5.914376),  # nose, left wing
    31: (-1.930245, 0.424351, 5.914376),  # nose, right wing
    54: (2.774015, -2.080775, 5.048531),  # mouth, left corner
    48: (-2.774015, -2.080775, 5.048531),  # mouth, right corner
    57: (0.000000, -3.116408, 6.097667),  # lower lip, middle of its lower edge
    8: (0.000000, -7.415691, 4.070434),  # chin
}
LEAST_POINTS = 3  # that have a rotation
REFERENCE_LANDMARKS = np.array(list(REFERENCE_HEAD))
REFERENCE_POINTS = np.array(list(REFERENCE_HEAD.values()))

# Number of the joint (coco19) -> where it lies in the same axes. Distances between the points are
# means over the published joints of two sequences; the zero of the pitch is an estimate, good to
# some ten degrees: hence "coarse".
COARSE_HEAD = {
    1: (0.0, 2.38, 7.19),  # nose
    15: (3.24, 5.34, 4.79),  # left eye
    16: (8.0, 2.86, -3.88),  # left ear
    17: (-3.24, 5.34, 4.79),  # right eye
    18: (-8.0, 2.86, -3.88),  # right ear
}
COARSE_JOINTS = np.array(list(COARSE_HEAD))
COARSE_POINTS = np.array(list(COARSE_HEAD.values()))

# Middle of the sphere that stands for the head, in reference axes.
SPHERE_CENTRE = np.array([0.0, 5.0, -5.0])
# Head axes of the project in reference axes: x stays, y and z turn round.
HEAD_AXES = np.diag([1.0, -1.0, -1.0])

# Points whose second extent is below this share of the first lie on a line: any turn about it fits.
_LINE = 1e-3


@dataclass(frozen=True, eq=False)
class Fit:
    """A similarity: point -> scale rotation point + translation, and how well it fits.

    Attributes:
      rotation: (3, 3).
      scale: a number.
      translation: (3,), in the unit of the data.
      residual: root mean square distance between moved and true points, in the unit of the data.
    """

    rotation: np.ndarray
    scale: float
    translation: np.ndarray
    residual: float

    def move(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the reference, moved to the data."""
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(reference: np.ndarray, data: np.ndarray) -> Fit | None:
    """The similarity that takes reference points nearest to data points (Horn 1987, by SVD).

    Args:
      reference: (n, 3).
      data: (n, 3), finite.

    Returns:
      The fit with the least sum of squared distances; None where the points are too few or lie on
      a line, which leaves the rotation open.
    """
    if len(reference) < LEAST_POINTS:
        return None
    reference_mean, data_mean = reference.mean(axis=0), data.mean(axis=0)
    a, b = reference - reference_mean, data - data_mean
    for points in (a, b):
        extents = np.linalg.svd(points, compute_uv=False)
        if extents[1] <= _LINE * extents[0]:
            return None
    u, singular, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])  # never a reflection
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (a * a).sum())
    translation = data_mean - scale * rotation @ reference_mean
    errors = scale * a @ rotation.T - b
    residual = float(np.sqrt((errors**2).sum(axis=1).mean()))
    return Fit(rotation, scale, translation, residual)
