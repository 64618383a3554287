"""What `benchmarks/collages.py` makes of records, against the pixels of its images."""

import numpy as np

from benchmarks.collages import CELL, Collages
from tests.batched import record


def photograph(width, height, box):
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 200
    return {**record([box]), "image": image}


def test_boxes_lie_on_the_heads():
    """Of small photographs, and of one that is scaled down to its place."""
    small = [photograph(300, 200, (100 + i, 50, 140 + i, 110)) for i in range(8)]
    large = photograph(2 * CELL, CELL, (400, 100, 600, 300))
    collages = Collages([*small, large], 3)
    assert len(collages) == 1
    whole = collages[0]
    assert whole["image"].shape == (3 * CELL, 3 * CELL, 3)
    assert len(whole["boxes"]) == len(whole["has_pose"]) == 9
    for left, top, right, bottom in whole["boxes"].round().astype(int):
        assert (whole["image"][top + 1 : bottom - 1, left + 1 : right - 1] == 200).all()
    # Every bright pixel is in a box: nothing is drawn elsewhere.
    areas = np.prod(whole["boxes"][:, 2:] - whole["boxes"][:, :2], axis=1)
    assert abs((whole["image"][..., 0] > 150).sum() / areas.sum() - 1) < 0.02
    assert len(Collages([*small, large], 2)) == 2
