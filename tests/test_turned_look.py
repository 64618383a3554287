"""Heads of people who lie: the turn in which the network is surest."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads
from mtnet_jax.predict.placing import View, input_of_views
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.predict.second_look import with_second_looks
from mtnet_jax.predict.turned_look import TURNED_LOOK, is_doubtful, turned_views
from mtnet_jax.rotations import geodesic_degrees
from tests.conftest import REPOSITORY
from tests.looks import found

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))[:3]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("release", runtime="onnxruntime")


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_a_head_is_the_same_however_the_image_is_turned(predictor, path, quarters):
    image = read_image(path)
    upright = predictor(image)[0]
    height, width = image.shape[:2]
    head = predictor(np.ascontiguousarray(np.rot90(image, -quarters)))[0]
    matrix = geometry.quarter_turn_map(width, height, quarters)
    (box,) = geometry.map_boxes(np.array([upright.box]), matrix)
    assert iou_xyxy(box, np.array(head.box)) > 0.75
    turn = Rotation.from_euler("z", 90 * quarters, degrees=True).as_matrix()
    assert geodesic_degrees(head.rotation, turn @ upright.rotation) < 12


def test_an_upright_head_is_looked_at_no_more_than_before():
    """Only where there is no head, or a large one that is not very sure."""
    shape = (100, 100, 3)
    large, small = [10, 10, 60, 60], [10, 10, 20, 20]
    assert is_doubtful(found(), shape, 448)
    assert is_doubtful(found(large, scores=[0.9]), shape, 448)
    assert not is_doubtful(found(large, scores=[0.999]), shape, 448)
    assert not is_doubtful(found(small, scores=[0.8]), shape, 448)


def test_views_turn_the_image_and_lie_in_the_input():
    """The pixel that a view's map names is the one that its square shows."""
    image = np.zeros((60, 90, 3), np.uint8)
    image[10:30, 50:80] = 255
    views = turned_views(image.shape, 448)
    shown = input_of_views([(image, view) for view in views], 448)
    for view in views:
        x, y = view.to_input @ [65, 20, 1]
        assert shown[int(y), int(x)].min() > 250
        x, y = view.to_input @ [20, 50, 1]
        assert shown[int(y), int(x)].max() < 5
    assert len({(view.left, view.top) for view in views}) == 4


def test_a_view_that_is_mirrored_and_turned_is_mirrored_first():
    view = View(geometry.shift_map(0, 0), 40, 5, 7, mirrored=True, quarters=1)
    np.testing.assert_allclose(view.to_input @ [0, 0, 1], [5 + 40, 7 + 40])
    np.testing.assert_allclose(view.to_input @ [40, 0, 1], [5 + 40, 7])


def test_the_surest_turn_says_how_a_head_lies_and_others_stay():
    """A stand-in network that is sure of the second view alone, and of a small head in all."""
    image = np.zeros((100, 100, 3), np.uint8)
    near = found([20, 20, 70, 70], [80, 80, 90, 90], scores=[0.7, 0.95])
    asked = []

    def detect(inputs):
        asked.append(len(inputs))
        return heads_of([0.7, 0.999, 0.9985, 0.3], [20, 20, 70, 70], image.shape)

    (joined,) = with_second_looks(TURNED_LOOK, detect, [image], [near], size=448, iou_threshold=0.5)
    assert asked == [1]
    np.testing.assert_allclose(joined["scores"], [0.999, 0.95], atol=1e-6)
    np.testing.assert_allclose(joined["boxes"][0], [20, 20, 70, 70], atol=0.5)
    # Upright in an input turned clockwise: it lies turned the other way in the image.
    expected = Rotation.from_euler("z", -90, degrees=True).as_matrix()
    np.testing.assert_allclose(joined["rotations"][0], expected, atol=1e-5)
    sure = found([20, 20, 70, 70], scores=[0.999])
    (same,) = with_second_looks(TURNED_LOOK, detect, [image], [sure], size=448, iou_threshold=0.5)
    assert same is sure
    assert asked == [1]


def test_a_head_that_lies_is_one():
    """What the looks before took it for may lie half beside it; a small neighbour stays."""
    image = np.zeros((100, 100, 3), np.uint8)
    beside, neighbour = [45, 20, 95, 70], [66, 66, 76, 76]

    def detect(inputs):
        return heads_of([0.7, 0.999, 0.9, 0.3], [20, 20, 70, 70], image.shape)

    near = [found(beside, neighbour, scores=[0.68, 0.95])]
    (joined,) = with_second_looks(TURNED_LOOK, detect, [image], near, size=448, iou_threshold=0.5)
    np.testing.assert_allclose(joined["boxes"], [[20, 20, 70, 70], neighbour], atol=0.5)


@pytest.mark.parametrize(("score", "roll"), [(0.9985, 0), (0.9995, 180)])
def test_a_head_on_its_head_must_be_surer_than_one_that_lies(score, roll):
    image = np.zeros((100, 100, 3), np.uint8)
    box = [20, 20, 70, 70]

    def detect(inputs):
        return heads_of([0.7, 0.5, score, 0.3], box, image.shape)

    near = [found(box, scores=[0.7])]
    (joined,) = with_second_looks(TURNED_LOOK, detect, [image], near, size=448, iou_threshold=0.5)
    expected = Rotation.from_euler("z", roll, degrees=True).as_matrix()
    np.testing.assert_allclose(joined["rotations"], [expected], atol=1e-5)


def heads_of(scores, box, shape):
    """Heads of an input that shows one box in each of the views, upright in all."""
    views = turned_views(shape, 448)
    boxes = [geometry.map_boxes(np.array([box]), view.to_input)[0] for view in views]
    count = len(scores)
    return Heads(
        boxes=np.array([boxes]),
        scores=np.array([scores]),
        labels=np.zeros((1, count), int),
        rotations=np.tile(np.eye(3), (1, count, 1, 1)),
        valid=np.ones((1, count), bool),
    )
