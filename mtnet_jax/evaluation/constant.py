"""The constant predictor: what any network has to beat."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.figures import labels_of
from mtnet_jax.rotations import nearest_rotation


class ConstantPredictor(NamedTuple):
    """Says the same of every image: what any network has to beat.

    Attributes:
      box: (4,) xyxy as fractions of the width and height of the image.
      rotation: (3, 3) chordal mean of the training poses.
      label: the most frequent class of the training truths.
    """

    box: np.ndarray
    rotation: np.ndarray
    label: int

    def heads(self, width: int, height: int) -> dict[str, np.ndarray]:
        """One head of score 1: the mean box and mean pose, for an image of the given size."""
        box = self.box[None] * [width, height, width, height]
        return _constant_heads(box, np.array([self.label]), self.rotation)

    def on_boxes(self, boxes: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """The mean pose on given boxes (n, 4) of classes (n,): to compare the pose error alone."""
        return _constant_heads(boxes, labels, self.rotation)


def constant_predictor(train_truths: Iterable[dict]) -> ConstantPredictor:
    """The mean box and the mean pose of training images; ignored truths are left out.

    Args:
      train_truths: records with the "width" and "height" of their image, read once.

    Returns:
      The predictor. The mean pose is the rotation nearest to the sum of the rotations, which is
      the one of least mean squared chordal (Frobenius) distance.

    Raises:
      ValueError: no box, or no pose, in any truth.
    """
    box_sum, rotation_sum, poses = np.zeros(4), np.zeros((3, 3)), 0
    classes: Counter[int] = Counter()
    for truth in train_truths:
        width, height = truth["width"], truth["height"]
        keep = ~np.asarray(truth["ignore"], bool)
        kept = np.asarray(truth["boxes"], np.float64).reshape(-1, 4)[keep]
        box_sum += (kept / [width, height, width, height]).sum(axis=0)
        classes.update(labels_of(truth, len(keep))[keep].tolist())
        posed = keep & np.asarray(truth["has_pose"], bool)
        rotations = np.asarray(truth["rotations"], np.float64).reshape(-1, 3, 3)
        rotation_sum += rotations[posed].sum(axis=0)
        poses += int(posed.sum())
    boxes = classes.total()
    if boxes == 0 or poses == 0:
        raise BadInput(f"A mean box and pose need training truths: got {boxes} and {poses}.")
    label = classes.most_common(1)[0][0]
    return ConstantPredictor(box_sum / boxes, nearest_rotation(rotation_sum), label)


def _constant_heads(
    boxes: np.ndarray, labels: np.ndarray, rotation: np.ndarray
) -> dict[str, np.ndarray]:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return {
        "boxes": boxes,
        "scores": np.ones(len(boxes), np.float32),
        "labels": np.asarray(labels),
        "rotations": np.tile(rotation.astype(np.float32), (len(boxes), 1, 1)),
    }
