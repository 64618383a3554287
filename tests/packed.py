"""Records of the tests of packing."""

from functools import cache

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from mtnet_jax.data.packing import PackOptions
from tests.batched import record

PLAIN = PackOptions(share=1.0, occlude=0.0)
SIDE = 44  # of the square head boxes, pixels
WHITE = np.array([255, 255, 255])
BACKGROUND = (40, 40, 40)


def colour_of(label: int) -> np.ndarray:
    """Of 24 colours that are far from each other, from white and from what lies behind them."""
    hsv = np.array(
        [[[label * 15 % 180, 255 - label // 12 * 110, 220 - label // 12 * 70]]], np.uint8
    )
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(int)


def nose_of(rotation: np.ndarray) -> np.ndarray:
    """Where the nose points in the image, right and down: against the third column."""
    return -rotation[:2, 2]


def paint(pixels: np.ndarray, left: int, top: int, label: int, rotation: np.ndarray) -> None:
    """A flat square, with a white dot where the nose of such a head is."""
    pixels[top : top + SIDE, left : left + SIDE] = colour_of(label)
    middle = np.array([left, top]) + SIDE / 2 + 0.4 * SIDE * nose_of(rotation)
    cv2.circle(pixels, np.round(middle - 0.5).astype(int).tolist(), 4, WHITE.tolist(), -1)


class Painted:
    """Images of four heads each; the label, and so the colour, tells one head from all others.

    Even ones have a pose, odd ones a heading alone; all look to a side, so that the dot shows.
    """

    def __init__(self, images: int = 6, suffix: str = ".png", scale: int = 1):
        rng = np.random.default_rng(4)
        self._records, self.rotations, self.headings = [], [], []
        for number in range(images):
            pixels = np.full((180, 200, 3), BACKGROUND, np.uint8)
            boxes, headings, labels = [], [], []
            for cell in range(4):
                label = 4 * number + cell
                heading = rng.choice([-1, 1]) * (90 + rng.choice([-1, 1]) * rng.uniform(15, 40))
                nod = rng.uniform(-40, 40) * (label % 2 == 0)
                rotation = Rotation.from_euler("XY", [-nod, heading], degrees=True).as_matrix()
                left, top = 10 + 100 * (cell % 2), 12 + 84 * (cell // 2)
                left, top = np.array([left, top]) + rng.integers(0, 24, 2)
                paint(pixels, left, top, label, rotation)
                boxes.append([left, top, left + SIDE, top + SIDE])
                headings.append(heading)
                labels.append(label)
                self.rotations.append(rotation)
                self.headings.append(heading)
            pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            posed = np.array(labels) % 2 == 0
            rotations = np.where(posed[:, None, None], self.rotations[-4:], np.eye(3))
            self._records.append(
                record(
                    np.array(boxes) * scale,
                    image=cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes(),
                    rotations=rotations.astype(np.float32),
                    has_pose=posed,
                    labels=np.array(labels, np.int32),
                    headings=np.where(posed, 0, headings).astype(np.float32),
                    has_heading=~posed,
                )
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        return self._records[index]


@cache
def plain(side: int) -> bytes:
    return cv2.imencode(".png", np.full((side, side, 3), 90, np.uint8))[1].tobytes()


def one_head_each(headings, *, box=(10, 10, 30, 34), side=40, posed=False, **fields) -> list[dict]:
    """Records of one head each; None is a head of which neither pose nor heading is known."""
    records = []
    for heading in headings:
        turn = Rotation.from_euler("Y", [[heading or 0]], degrees=True).as_matrix()
        known = heading is not None
        labels = {
            "has_pose": np.array([known and posed]),
            "rotations": turn.astype(np.float32) if posed else np.eye(3, dtype=np.float32)[None],
            "has_heading": np.array([known and not posed]),
            "headings": np.array([0 if posed else heading or 0], np.float32),
        }
        records.append(record([box], image=plain(side), **labels, **fields))
    return records
