"""Large heads, looked at once more from farther away: when, how, and what comes of both looks."""

import numpy as np
import pytest

from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads
from mtnet_jax.predict.far_look import far_letterboxed, is_worth_it, join, with_far_looks
from mtnet_jax.predict.placing import heads_in_image, letterboxed

SIZE = 64
SHAPE = (100, 200, 3)


def found(*boxes, scores=None):
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array([0.9] * len(boxes) if scores is None else scores, np.float32),
        "labels": np.zeros(len(boxes), np.int64),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (len(boxes), 1, 1)),
    }


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (found(), True),  # none
        (found([0, 0, 40, 56]), False),  # 56 of 200 pixels
        (found([0, 0, 40, 56], [0, 0, 64, 56]), True),
        (found([0, 0, 40, 56], [0, 0, 90, 90], scores=[0.9, 0.1]), False),  # only a guess
        (found([0, 0, 40, 60], scores=[0.1]), True),
    ],
)
def test_a_large_head_or_none_is_worth_a_second_look(heads, expected):
    assert is_worth_it(heads, SHAPE) == expected


def test_the_image_lies_in_the_middle_at_half_the_size():
    image = np.zeros(SHAPE, np.uint8)
    image[20:60, 100:180] = 255
    network_input, matrix = far_letterboxed(image, SIZE)
    (box,) = geometry.map_boxes(np.array([[100, 20, 180, 60]]), matrix)
    # 200 x 100 pixels become 32 x 16, round the middle of 64 x 64.
    np.testing.assert_allclose(box, [16 + 16, 24 + 3.2, 16 + 28.8, 24 + 9.6], atol=1e-5)
    rows, columns = np.nonzero(network_input[..., 0] > 140)
    assert (columns.min(), columns.max()) == (32, 44)
    assert (rows.min(), rows.max()) == (27, 33)
    assert (network_input[:24] == geometry.BORDER_GREY).all()


def test_the_second_look_has_its_pixels_in_inputs_of_any_size():
    """Those of the heads that the network knows, not a share of the input."""
    image = np.zeros(SHAPE, np.uint8)
    for size, side in ((512, 165), (416, 165), (224, 112)):
        _, matrix = far_letterboxed(image, size)
        assert geometry.scale_of(matrix) * SHAPE[1] == pytest.approx(side)


def test_small_heads_come_from_the_first_look_and_large_ones_from_the_second():
    small, middle, large = [0, 0, 30, 30], [100, 0, 160, 60], [60, 0, 160, 100]
    near = found(small, middle, large, scores=[0.5, 0.6, 0.99])
    shifted = [[v + 1 for v in box] for box in (small, middle, large)]
    far = found(*shifted, scores=[0.95, 0.7, 0.4])
    joined = join(near, far, SHAPE, 0.5)
    by_size = joined["boxes"][np.argsort(joined["boxes"][:, 2] - joined["boxes"][:, 0])]
    np.testing.assert_array_equal(by_size, [small, shifted[1], shifted[2]])


class Network:
    """Sees one white rectangle in each input, and counts the inputs it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        boxes = np.zeros((len(inputs), 1, 4), np.float32)
        for row, pixels in enumerate(inputs):
            y, x = np.nonzero(pixels[..., 0] == 255)
            if len(x):
                boxes[row, 0] = x.min(), y.min(), x.max() + 1, y.max() + 1
        valid = (boxes[..., 2] > 0) & (boxes[..., 2] - boxes[..., 0] < 0.6 * SIZE)
        ones = np.ones((len(inputs), 1), np.float32)
        return Heads(
            boxes, ones, 0 * ones.astype(int), np.eye(3)[None, None] * ones[..., None, None], valid
        )


def test_only_images_that_need_it_are_looked_at_again():
    network, images = Network(), []
    for left, right in ((10, 40), (5, 185), (90, 130)):  # the second is too large for the network
        image = np.zeros((200, 200, 3), np.uint8)
        image[left:right, left:right] = 255
        images.append(image)
    inputs, matrices = zip(*(letterboxed(image, SIZE) for image in images), strict=True)
    heads = network(np.stack(inputs))
    first = [heads_in_image(heads, i, m, (200, 200, 3)) for i, m in enumerate(matrices)]
    assert [len(each["boxes"]) for each in first] == [1, 0, 1]
    both = with_far_looks(network, images, first, size=SIZE, iou_threshold=0.5)
    assert network.calls == [3, 1]
    np.testing.assert_allclose(both[1]["boxes"], [[5, 5, 185, 185]], atol=7)
    assert both[0] is first[0]
