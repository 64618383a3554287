"""A record's heads, moved into the network's input together with its image."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mtnet_jax.data import geometry
from mtnet_jax.errors import BadRecord

# After a crop, a head of which less than this share of its box is left is marked to be ignored.
MIN_VISIBLE = 0.4
# Turned by more than 60 degrees, whose cosine this is, a head shows its heading less than its nod.
_UPRIGHT = 0.5

Record = Mapping[str, Any]


class Records(Protocol):
    """Decoded records by number, as `RecordSource` and lists of records are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@contextlib.contextmanager
def naming_image(record: Record) -> Iterator[None]:
    """What cannot be decoded in this block is said with the record's image and source."""
    try:
        yield
    except BadRecord as error:
        name = f"image {record['image_id']!r} of {record['source']!r}"
        raise BadRecord(f"{name}: {error}") from error


def fit_heads(record: Record, matrix: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Moves a record's heads into the network's input.

    Boxes are clipped to the input. A head left mostly outside is marked ignored; one left wholly
    outside is taken away, it is no longer in the image. A head without a pose keeps the identity;
    one that comes to lie loses its heading.

    Args:
      record: its heads; the image is not looked at.
      matrix: the map (2, 3) from the image to the input.
      size: side of the input.

    Returns:
      `boxes`, `rotations`, `has_pose`, `ignore`, `labels`, `headings`, `has_heading`.
    """
    has_pose = record["has_pose"]
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (len(has_pose), 3, 3))
    if has_pose.any():
        moved = geometry.map_rotations(record["rotations"], matrix)
        rotations = np.where(has_pose[:, None, None], moved, rotations)
    boxes = geometry.map_boxes(record["boxes"], matrix)
    clipped = np.clip(boxes, 0, size)
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    heads = {
        "boxes": clipped,
        "rotations": rotations,
        "has_pose": has_pose,
        "ignore": record["ignore"] | (visible_share(boxes, (0, 0, size, size)) < MIN_VISIBLE),
        "labels": record["labels"],
        "headings": np.where(
            record["has_heading"], geometry.map_headings(record["headings"], matrix), 0.0
        ).astype(np.float32),
        "has_heading": record["has_heading"] & (math.cos(geometry.turn_of(matrix)) > _UPRIGHT),
    }
    return {name: values[inside] for name, values in heads.items()}


def visible_share(boxes: np.ndarray, area: Sequence[float]) -> np.ndarray:
    """The part of each box (n, 4) xyxy that lies in an area, xyxy: (n,), 0 to 1."""
    inside = np.minimum(boxes[:, 2:], area[2:]) - np.maximum(boxes[:, :2], area[:2])
    whole = boxes[:, 2:] - boxes[:, :2]
    return inside.clip(0).prod(axis=1) / np.maximum(whole.prod(axis=1), 1e-9)
