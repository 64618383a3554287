"""What `benchmarks/turned.py` makes of a record, against the pixels of its image."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.turned import Turned
from tests.batched import record


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_boxes_and_rotations_follow_the_pixels(quarters):
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:15, 30:50] = 200
    upright = Rotation.from_euler("yx", [40, 10], degrees=True).as_matrix().astype(np.float32)
    one = {**record([[30, 5, 50, 15]], rotations=upright[None]), "image": image}
    turned = Turned([one], quarters)[0]
    (left, top, right, bottom) = turned["boxes"][0].round().astype(int)
    inside = turned["image"][top:bottom, left:right]
    assert inside.size == 3 * 200
    assert (inside == 200).all()
    # Clockwise in the image, whose y points down, is about +z, away from the eye.
    expected = Rotation.from_euler("z", 90 * quarters, degrees=True).as_matrix() @ upright
    np.testing.assert_allclose(turned["rotations"][0], expected, atol=1e-6)
    assert len(Turned([one], quarters)) == 1
