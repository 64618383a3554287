"""Large heads, looked at once more from farther away: when, how, and what comes of all looks."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads
from mtnet_jax.predict.far_look import (
    FAR_LOOK,
    far_views,
    is_worth_it,
    join,
    mean_of_looks,
)
from mtnet_jax.predict.placing import heads_in_image, input_of_views, letterboxed
from mtnet_jax.predict.second_look import with_second_looks
from tests.looks import found

SIZE = 448
SHAPE = (100, 200, 3)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (found(), True),  # none
        (found([0, 0, 40, 56]), False),  # 56 of 200 pixels
        (found([0, 0, 40, 56], [0, 0, 64, 56]), True),
        (found([0, 0, 40, 56], [0, 0, 90, 90], scores=[0.9, 0.1]), False),  # only a guess
        (found([0, 0, 40, 60], scores=[0.1]), True),
        (found([0, 0, 20, 20], [30, 0, 50, 20], scores=[0.6, 0.4]), True),  # leaves may be like it
        (found([0, 0, 20, 20], [30, 0, 50, 20], scores=[0.8, 0.4]), False),
    ],
)
def test_a_large_head_or_none_is_worth_a_second_look(heads, expected):
    assert is_worth_it(heads, SHAPE, SIZE) == expected


def test_what_is_large_is_so_in_pixels_of_the_input():
    """A head of 0.4 of the image has 179 pixels in an input of 448, and the 90 that are read best
    in one of 224."""
    heads = found([0, 0, 80, 80])
    assert is_worth_it(heads, SHAPE, SIZE)
    assert not is_worth_it(heads, SHAPE, 224)
    assert is_worth_it(found([0, 0, 130, 100]), SHAPE, 224)


def test_the_image_lies_twice_side_by_side_the_second_mirrored():
    image = np.zeros(SHAPE, np.uint8)
    image[20:60, 100:180] = 255
    views = far_views(SHAPE, 64)
    network_input = input_of_views([(image, view) for view in views], 64)
    # 200 x 100 pixels become 32 x 16; the first from the left edge on, the second up to the right.
    expected = [[16, 24 + 3.2, 28.8, 24 + 9.6], [32 + 3.2, 24 + 3.2, 32 + 16, 24 + 9.6]]
    for view, box, columns_of in zip(views, expected, ((16, 28), (35, 47)), strict=True):
        (mapped,) = geometry.map_boxes(np.array([[100, 20, 180, 60]]), view.to_input)
        np.testing.assert_allclose(mapped, box, atol=1e-5)
        half = slice(0, 32) if not view.mirrored else slice(32, 64)
        rows, columns = np.nonzero(network_input[:, half, 0] > 140)
        assert (columns.min() + half.start, columns.max() + half.start) == columns_of
        assert (rows.min(), rows.max()) == (27, 33)
    assert (network_input[:24] == geometry.BORDER_GREY).all()


def test_the_second_look_has_its_pixels_in_inputs_of_any_size():
    """Those of the heads that the network knows, not a share of the input; in larger inputs, where
    a head of so many pixels is a smaller part of the image, as much smaller than the first look."""
    for size, side in ((896, 332), (448, 166), (416, 166), (224, 112)):
        for view in far_views(SHAPE, size):
            assert geometry.scale_of(view.to_input) * SHAPE[1] == pytest.approx(side)
            assert 0 <= view.left <= view.left + view.side <= size


def test_what_two_looks_say_of_a_head_is_the_mean_weighted_by_the_scores():
    rotations = Rotation.from_euler("yxz", [[20, 5, 0], [50, -10, 20]], degrees=True)
    looks = [found([10, 10, 50, 60], scores=[0.9]), found([14, 10, 54, 64], scores=[0.3])]
    for look, rotation in zip(looks, rotations, strict=True):
        look["rotations"] = rotation.as_matrix()[None].astype(np.float32)
    (box,), (score,), (rotation,) = (
        mean_of_looks(looks, 0.5)[name] for name in ("boxes", "scores", "rotations")
    )
    np.testing.assert_allclose(box, [11, 10, 51, 61], atol=1e-4)
    assert score == pytest.approx(0.6)
    expected = rotations.mean(weights=[0.9, 0.3]).as_matrix()
    np.testing.assert_allclose(rotation, expected, atol=1e-5)


def test_a_head_that_one_look_alone_sees_has_half_its_score():
    one, both, near_both = [0, 0, 40, 40], [100, 0, 140, 40], [104, 0, 144, 40]
    mean = mean_of_looks([found(both, one, scores=[0.9, 0.8]), found(near_both, scores=[0.7])], 0.5)
    np.testing.assert_allclose(mean["scores"], [0.8, 0.4], atol=1e-6)
    np.testing.assert_allclose(mean["boxes"][1], one)


def test_a_look_counts_each_head_once():
    """Two boxes of one look that overlap: the surer stands for both."""
    mean = mean_of_looks([found([0, 0, 40, 40], [4, 0, 44, 40], scores=[0.9, 0.5]), found()], 0.5)
    np.testing.assert_allclose(mean["boxes"], [[0, 0, 40, 40]])
    np.testing.assert_allclose(mean["scores"], [0.45])
    for values in mean_of_looks([found(), found()], 0.5).values():
        assert len(values) == 0


def test_a_head_is_its_own_member_at_any_threshold():
    mean = mean_of_looks([found([0, 0, 40, 40], [50, 0, 90, 40]), found([1, 0, 40, 40])], 1.0)
    assert len(mean["boxes"]) == 3


def test_small_heads_come_from_the_first_look_and_large_ones_from_the_second():
    small, middle, large = [0, 0, 30, 30], [100, 0, 160, 60], [60, 0, 160, 100]
    near = found(small, middle, large, scores=[0.5, 0.6, 0.99])
    shifted = [[v + 1 for v in box] for box in (small, middle, large)]
    far = found(*shifted, scores=[0.95, 0.7, 0.4])
    joined = join(near, far, SHAPE, SIZE, 0.5)
    by_size = joined["boxes"][np.argsort(joined["boxes"][:, 2] - joined["boxes"][:, 0])]
    np.testing.assert_array_equal(by_size, [small, shifted[1], shifted[2]])


class Network:
    """Sees up to two white rectangles in each input, and counts the inputs it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        boxes = np.zeros((len(inputs), 2, 4), np.float32)
        for row, pixels in enumerate(inputs):
            _, _, stats, _ = cv2.connectedComponentsWithStats(
                (pixels[..., 0] > 250).astype(np.uint8)
            )
            for head, (x, y, width, height, _) in enumerate(stats[1:3]):
                boxes[row, head] = x, y, x + width, y + height
        valid = (boxes[..., 2] > 0) & (boxes[..., 2] - boxes[..., 0] < 0.6 * SIZE)
        ones = np.ones((len(inputs), 2), np.float32)
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
    both = with_second_looks(FAR_LOOK, network, images, first, size=SIZE, iou_threshold=0.5)
    assert network.calls == [3, 1]
    np.testing.assert_allclose(both[1]["boxes"], [[5, 5, 185, 185]], atol=7)
    assert both[0] is first[0]
