"""From the labels of one image to its record: what every converter does with an image and boxes.

An image that cannot be decoded is left out and named in the report; boxes are clipped to the
image, and a box without area or outside the image is left out and named.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.engine.report import Report
from mtnet_jax.data.images import decode_image, storable
from mtnet_jax.errors import BadRecord
from mtnet_jax.rotations import nearest_rotation, rotation_faults

# A box that reaches less than this far out of the image (pixels) is rounding, not worth a note.
_ROUNDING = 0.51


def read_image(path: Path, report: Report) -> tuple[bytes, tuple[int, int]] | None:
    """The bytes of an image file and its (width, height) as a viewer shows it.

    What is neither JPEG nor a PNG of 8 bits becomes one, pixel by pixel: records hold nothing else,
    and everything reads those. Returns None, after telling the report, where the file is no whole
    image.
    """
    encoded = path.read_bytes()
    try:
        image = decode_image(encoded)
    except BadRecord as error:
        report.drop_image(f"the image cannot be read: {error}", str(path))
        return None
    stored = storable(encoded, image)
    if stored != encoded:
        report.note("images stored anew, pixel by pixel (no JPEG, no PNG of 8 bits)", str(path))
    return stored, (image.shape[1], image.shape[0])


# Why an image goes that would be background.
ONLY_HEAD_DROPPED = "its only head was dropped"
ALL_HEADS_DROPPED = "all of its heads were dropped"


class HeadsOfImage:
    """Collects the heads of one image and makes its record."""

    def __init__(self, image_id: str, size: tuple[int, int], report: Report):
        """Starts an image.

        Args:
          image_id: unique in the record set; the report names drops by it.
          size: width and height of the image in pixels.
          report: is told of every head that is left out, clipped or ignored.
        """
        self._image_id, self._report = image_id, report
        self._limits = (*map(float, size), *map(float, size))
        self._seen: set[tuple] = set()
        self._boxes: list[np.ndarray] = []
        self._rotations: list[np.ndarray | None] = []
        self._headings: list[float | None] = []
        self._ignore: list[bool] = []
        self._labels: list[int] = []
        self._dropped = 0

    @property
    def all_dropped(self) -> bool:
        """Whether heads were given and none could be added: the image would be background."""
        return self._dropped > 0 and not self._boxes

    def add(
        self,
        box: Sequence[float] | np.ndarray,
        rotation: np.ndarray | None = None,
        *,
        heading: float | None = None,
        label: int = 0,
        ignore: str = "",
    ) -> bool:
        """Adds a head, or drops it with a word to the report.

        Args:
          box: (4,) xyxy in pixels; clipped to the image.
          rotation: (3, 3) head to camera (canonical), or None for a head without a pose. One that
            is not a rotation, beyond rounding, drops the head.
          heading: where the face looks, seen from above: degrees within +-180, the canonical yaw of
            a level head; None where that is not known, or the rotation says it.
          label: index into the label names of the record set.
          ignore: why the head is neither to be found nor background; empty for an ordinary head.

        Returns:
          Whether the head was added. One that the image shows all the same counts as background.
        """
        # Python's numbers: for four of them NumPy takes ten times as long.
        whole = [float(number) for number in box]
        if not all(map(math.isfinite, whole)):
            return self._drop("box is not finite")
        if whole[2] <= whole[0] or whole[3] <= whole[1]:
            return self._drop("box has no area")
        inside = [min(max(n, 0.0), end) for n, end in zip(whole, self._limits, strict=True)]
        clipped = np.array(inside, np.float32)
        if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            return self._drop("box is outside the image")
        if rotation is not None:
            rotation = np.asarray(rotation, np.float64)
            if not np.isfinite(rotation).all():
                return self._drop("rotation is not finite")
            if rotation_faults(rotation):
                return self._drop("rotation is not a rotation matrix")
            rotation = nearest_rotation(rotation)  # takes the rounding of text files away
        turned = None if rotation is None else tuple(rotation.ravel().tolist())
        same = (*clipped.tolist(), label, heading, turned)
        if same in self._seen:
            return self._drop("labelled twice, with the same box, label and pose")
        self._seen.add(same)
        if any(abs(a - b) > _ROUNDING for a, b in zip(inside, whole, strict=True)):
            self._report.note("boxes clipped to the image", self._image_id)
        if ignore:
            self._report.ignore_head(ignore, self._image_id)
        self._boxes.append(clipped)
        self._rotations.append(rotation)
        self._headings.append(heading)
        self._ignore.append(bool(ignore))
        self._labels.append(label)
        return True

    def record(self, encoded: bytes, source: str, intrinsics: np.ndarray | None = None) -> dict:
        """The record of the image (see `mtnet_jax.data.records.check_record`).

        Args:
          encoded: the image as JPEG or PNG bytes.
          source: name of the data set it came from.
          intrinsics: fx, fy, cx, cy in pixels, 0 at the outer edge of the first pixel; None where
            the camera is not known.
        """
        count = len(self._boxes)
        unposed = np.eye(3, dtype=np.float32)
        rotations = [unposed if r is None else r for r in self._rotations]
        return {
            "image": encoded,
            "image_id": self._image_id,
            "source": source,
            "intrinsics": np.zeros(4, np.float32)
            if intrinsics is None
            else np.asarray(intrinsics, np.float32),
            "boxes": np.array(self._boxes, np.float32).reshape(count, 4),
            "rotations": np.array(rotations, np.float32).reshape(count, 3, 3),
            "has_pose": np.array([r is not None for r in self._rotations], bool),
            "ignore": np.array(self._ignore, bool),
            "labels": np.array(self._labels, np.int32),
            "headings": np.array([h or 0.0 for h in self._headings], np.float32),
            "has_heading": np.array([h is not None for h in self._headings], bool),
        }

    def _drop(self, reason: str) -> bool:
        self._report.drop_head(reason, self._image_id)
        self._dropped += 1
        return False
