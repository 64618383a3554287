"""A face of a known surface, drawn and meshed as MediaPipe would: for tests of turned faces."""

import cv2
import numpy as np

from data_prep.own.face_turning import (
    DEPTH,
    FACE_OVAL,
    LANDMARKS,
    LEFT_EAR,
    MODEL_NOSE_TIP,
    NOSE_TIP,
    RIGHT_EAR,
)

SIZE = (440, 400)  # height, width
ORIGIN = np.array([200.0, 230.0, 0.0])  # of the head axes; a pixel is a millimetre
BOX = np.array([112.0, 80.0, 288.0, 330.0])


def surface(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 3) points in head axes, mm: a paraboloid with its tip at the nose."""
    nose = MODEL_NOSE_TIP
    return np.stack([x, y, nose[2] + 110 * ((x / 76) ** 2 + ((y - nose[1]) / 95) ** 2)], axis=-1)


def mesh() -> np.ndarray:
    """(468, 3) landmarks in head axes, mm."""
    rng = np.random.default_rng(0)
    radius, angle = np.sqrt(rng.uniform(0, 0.95, LANDMARKS)), rng.uniform(0, 2 * np.pi, LANDMARKS)
    radius[NOSE_TIP] = 0
    # From the crown over the subject's left ear, the right one in the image.
    angle[list(FACE_OVAL)] = 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    radius[list(FACE_OVAL)] = 1
    x, y = 76.157 * radius * np.sin(angle), MODEL_NOSE_TIP[1] - 95 * radius * np.cos(angle)
    points = surface(x, y)
    assert abs(np.linalg.norm(points[LEFT_EAR] - points[RIGHT_EAR]) - 150) < 0.01
    return points


def landmarks(rotation: np.ndarray) -> np.ndarray:
    """(468, 3) as the mesh says them of a head with this rotation: its depths are too small."""
    points = mesh() @ rotation.T + ORIGIN
    points[:, 2] = points[NOSE_TIP, 2] + (points[:, 2] - points[NOSE_TIP, 2]) / DEPTH
    return points.astype(np.float32)


def drawing(rotation: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """The image of the head: grey, with a spot of another colour at each of (n, 3) points, mm."""
    image = np.full((*SIZE, 3), 90, np.uint8)
    for number, (x, y, _) in enumerate(spots @ rotation.T + ORIGIN):
        cv2.circle(image, (round(8 * x), round(8 * y)), 8 * 3, colour(number), -1, cv2.LINE_AA, 3)
    return image


def colour(number: int) -> tuple[int, int, int]:
    """Of a spot: one of six."""
    return (255 * (number % 2), 255 * (number // 2 % 2), 255 * (number % 3 == 0))


def where(image: np.ndarray, number: int) -> np.ndarray | None:
    """The middle (x, y) of a spot in an image, None where there is none."""
    near = np.abs(image.astype(int) - colour(number)).sum(axis=-1) < 120
    rows, columns = np.nonzero(near)
    return np.array([columns.mean(), rows.mean()]) if len(rows) > 3 else None
