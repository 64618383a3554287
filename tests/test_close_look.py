"""Small heads, looked at once more from close by: which, how large, and what comes of all looks."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads
from mtnet_jax.predict.close_look import MOST, close_inputs, close_view, with_close_looks
from mtnet_jax.predict.placing import View, heads_in_view, input_of_views, shown_part
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.rotations import geodesic_degrees
from tests.conftest import REPOSITORY
from tests.looks import found

SIZE = 448
SHAPE = (900, 1792, 3)  # a quarter of its pixels along a side in the input


def heads_of(boxes, rotation):
    """Heads of an input, all of one rotation."""
    count = len(boxes)
    return Heads(
        np.array(boxes, np.float32)[None],
        np.full((1, count), 0.8, np.float32),
        np.zeros((1, count), np.int32),
        np.tile(np.asarray(rotation, np.float32), (1, count, 1, 1)),
        np.ones((1, count), bool),
    )


def squares_of(heads, shape=SHAPE, size=SIZE):
    """Those of the one input that is needed, if any."""
    inputs = close_inputs(heads, shape, size)
    assert len(inputs) <= 1
    return inputs[0] if inputs else []


def numbers_of(squares):
    return [square.head for square in squares if not square.view.mirrored]


def test_small_heads_that_are_sure_are_looked_at_again():
    """Where a square of a third of the input shows them 1.5 times larger: below 66 pixels."""
    heads = found(
        [0, 0, 240, 200],  # 60 pixels of the input
        [400, 0, 680, 200],  # 70
        [800, 0, 900, 100],
        [1000, 0, 1100, 100],
        scores=[0.9, 0.9, 0.9, 0.2],
    )
    assert numbers_of(squares_of(heads)) == [0, 2]
    assert numbers_of(squares_of(found())) == []
    assert squares_of(found([0, 0, 900, 900])) == []


def test_the_others_are_shown_larger_without_the_largest():
    """Ten have a quarter of the input's side each, 75 pixels: one of 60 gains too little."""
    small = [[160 * i, 0, 160 * i + 100, 100] for i in range(9)]
    squares = squares_of(found(*small, [0, 300, 240, 540]))
    assert numbers_of(squares) == list(range(9))
    assert {square.view.side for square in squares} == {149}
    ten = squares_of(found(*small, [0, 300, 180, 480]))  # 45 pixels become 75
    assert numbers_of(ten) == list(range(10))
    assert {square.view.side for square in ten} == {112}


@pytest.mark.parametrize(("count", "across"), [(1, 3), (9, 3), (10, 4), (16, 4), (30, 6), (49, 7)])
def test_one_input_shows_all_and_what_is_left_over_mirrored(count, across):
    corners = [(20 * (i % 40), 40 * (i // 40)) for i in range(count)]
    boxes = [[left, top, left + 16, top + 20] for left, top in corners]
    heads = found(*boxes)
    squares = squares_of(heads)
    side = SIZE // across
    assert len(squares) == min(2 * count, across**2)
    assert numbers_of(squares) == list(range(count))
    assert [square.head for square in squares[count:]] == list(range(len(squares) - count))
    taken = {(square.view.left, square.view.top) for square in squares}
    assert taken == {(side * (k % across), side * (k // across)) for k in range(len(squares))}
    for square in squares:
        (shown,) = geometry.map_boxes(heads["boxes"][square.head][None], square.view.to_input)
        width, height = shown[2:] - shown[:2]
        assert height == pytest.approx(0.67 * side, rel=1e-4)
        assert width == pytest.approx(0.8 * height, rel=1e-4)
        middle = (shown[:2] + shown[2:]) / 2 - (square.view.left, square.view.top)
        np.testing.assert_allclose(middle, side / 2, atol=1e-2)


@pytest.mark.parametrize("count", [50, 100, 240])
def test_more_have_inputs_of_their_own(count):
    """As many heads in each as may be, in squares of one size."""
    boxes = [
        [16 * (i % 40), 20 * (i // 40), 16 * (i % 40) + 8, 20 * (i // 40) + 10]
        for i in range(count)
    ]
    inputs = close_inputs(found(*boxes), SHAPE, SIZE)
    assert len(inputs) == -(-count // MOST)
    shown = [numbers_of(squares) for squares in inputs]
    assert [number for of in shown for number in of] == list(range(count))
    numbers = list(map(len, shown))
    assert max(numbers) - min(numbers) <= 1
    across = int(np.ceil(np.sqrt(max(numbers))))
    assert {square.view.side for squares in inputs for square in squares} == {SIZE // across}


def test_a_tile_shows_heads_larger_than_the_first_look():
    """Of two heads of 40 pixels in the first look, that from a tile of 2.5 times the scale had 100:
    no square shows it larger."""
    heads = found([0, 0, 160, 160], [400, 0, 560, 160])
    heads["scales"][0] = 2.5 * SIZE / SHAPE[1]
    assert numbers_of(squares_of(heads)) == [1]
    heads["scales"][0] = 1.5 * SIZE / SHAPE[1]
    assert numbers_of(squares_of(heads)) == [0, 1]


@pytest.mark.parametrize(("size", "across"), [(448, 3), (896, 6), (224, 1), (96, 1)])
def test_inputs_of_any_size(size, across):
    """The square that shows a head has the same pixels, where the input has room for it."""
    squares = squares_of(found([0, 0, 16, 20]), size=size)
    assert {square.view.side for square in squares} == {size // across}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.13, 0.4, 1.7])
def test_a_square_shows_what_opencv_cuts_out(scale, mirrored):
    """Against a crop that is cut out by hand, and then resized: smooth noise, inside the image."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 8.0)
    reach = round(45 / scale)  # half of the square's side, in pixels of the image
    left, top = 560 - reach, 450 - reach
    view = View(
        geometry.similarity_map(scale, 0.0, 1.0, np.array([560.0, 450.0]), np.full(2, 45.0)),
        90,
        20,
        10,
        mirrored,
    )
    network_input = input_of_views([(image, view)], 128)
    square = network_input[10:100, 20:110]
    crop = image[max(top, 0) : top + 2 * reach, left : left + 2 * reach]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    expected = cv2.resize(crop, (90, 90), interpolation=method)
    expected = expected[:, ::-1] if mirrored else expected
    assert np.abs(square.astype(int) - expected).mean() < 3
    network_input[10:100, 20:110] = geometry.BORDER_GREY
    assert (network_input == geometry.BORDER_GREY).all()
    part, _ = shown_part(image, view)
    assert part.shape[0] < 2 * reach + 8 / min(scale, 1) + 2


def test_grey_where_the_image_ends():
    image = np.full((100, 100, 3), 200, np.uint8)
    view = close_view(np.array([0, 40, 10, 50], np.float32), 149, 1, 1)
    square = input_of_views([(image, view)], SIZE)[149:298, 149:298]
    assert (square[:, :20] == geometry.BORDER_GREY).all()
    assert (square[:, 30:] == 200).all()


def test_heads_of_a_mirrored_square_come_back_as_they_are():
    rotation = Rotation.from_euler("yxz", [40, 10, 15], degrees=True).as_matrix()
    box = np.array([300, 200, 380, 300], np.float32)
    mirror = np.diag([-1.0, 1, 1])
    view = close_view(box, 149, 1, 2, mirrored=True)
    (seen,) = geometry.map_boxes(box[None], view.to_input)
    elsewhere = seen - [149, 0, 149, 0]  # a head of the neighbouring square
    heads = heads_of([seen, elsewhere], mirror @ rotation @ mirror)
    there = heads_in_view(heads, 0, view, SHAPE)
    np.testing.assert_allclose(there["boxes"], [box], atol=1e-3)
    np.testing.assert_allclose(there["rotations"], [rotation], atol=1e-6)


class Network:
    """Finds a head wherever an input is white, turned as it is told to be."""

    def __init__(self, rotation):
        self.rotation, self.inputs = rotation, []

    def __call__(self, inputs):
        self.inputs.append(inputs)
        heads = []
        for pixels in inputs:
            white = (pixels[..., 0] > 230).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(white)
            boxes = [(x, y, x + width, y + height) for x, y, width, height, _ in stats[1:]]
            boxes += [(0, 0, 0, 0)] * (40 - len(boxes))
            heads.append(heads_of(boxes, self.rotation))
            heads[-1].valid[0] = [box[2] > 0 for box in boxes]
        return Heads(*map(np.concatenate, zip(*heads, strict=True)))


def crowd(count):
    """An image with so many white rectangles, and a first look that is a little off each."""
    image, boxes = np.zeros(SHAPE, np.uint8), []
    for i in range(count):
        left, top = 60 + 160 * (i % 10), 100 + 250 * (i // 10)
        image[top : top + 100, left : left + 80] = 255
        boxes.append([left + 6, top, left + 86, top + 100])
    return image, found(*boxes)


def test_what_a_tile_says_counts_by_the_size_that_it_shows():
    """A tile that shows heads twice as large as the first look: 50 pixels; squares have 100."""
    image, near = crowd(9)  # none is shown mirrored
    near["scales"][:] = 2 * SIZE / SHAPE[1]
    seen = Rotation.from_euler("y", 40, degrees=True)
    network = Network(seen.as_matrix())
    (refined,) = with_close_looks(network, [image], [near], size=SIZE, iou_threshold=0.5)
    weights = [50 / (0.67 * 149), 1.0]
    expected = Rotation.concatenate([Rotation.identity(), seen]).mean(weights=weights).as_matrix()
    np.testing.assert_allclose(refined["rotations"], np.tile(expected, (9, 1, 1)), atol=1e-3)


@pytest.mark.parametrize(("count", "side"), [(1, 149), (4, 149), (7, 149), (12, 112), (25, 89)])
def test_what_the_looks_say_is_the_mean_weighted_by_the_size_of_the_head(count, side):
    """The first look shows heads 25 pixels large."""
    image, near = crowd(count)
    seen = Rotation.from_euler("y", 40, degrees=True)
    network = Network(seen.as_matrix())
    (refined,) = with_close_looks(network, [image], [near], size=SIZE, iou_threshold=0.5)
    assert [len(inputs) for inputs in network.inputs] == [1]
    assert len(refined["boxes"]) == count
    mirror = Rotation.from_euler("y", -40, degrees=True)
    first = 25 / (0.67 * side)
    twice = (SIZE // side) ** 2 - count  # so many are shown mirrored too
    for i, (box, rotation) in enumerate(zip(refined["boxes"], refined["rotations"], strict=True)):
        weights, rotations = [first, 1.0], [Rotation.identity(), seen]
        if i < twice:  # the network says of the mirrored head what it says of the other
            weights, rotations = [*weights, 1.0], [*rotations, mirror]
        expected = Rotation.concatenate(rotations).mean(weights=weights).as_matrix()
        np.testing.assert_allclose(rotation, expected, atol=1e-3)
        share = first / sum(weights)
        assert near["boxes"][i][0] - box[0] == pytest.approx(6 * (1 - share), abs=1.0)


def test_several_images_are_looked_at_as_each_alone():
    """No call has more inputs than there are images: JAX compiles for each number."""
    images, near = zip(*(crowd(count) for count in (12, 0, 3, 20)), strict=True)
    network = Network(Rotation.from_euler("y", 40, degrees=True).as_matrix())
    refined = with_close_looks(network, images, near, size=SIZE, iou_threshold=0.5)
    assert [len(inputs) for inputs in network.inputs] == [3]  # one each, but for the empty one
    assert [len(each["boxes"]) for each in refined] == [12, 0, 3, 20]
    assert refined[1] is near[1]
    for image, before, each in zip(images, near, refined, strict=True):
        (alone,) = with_close_looks(network, [image], [before], size=SIZE, iou_threshold=0.5)
        for name, values in alone.items():
            np.testing.assert_array_equal(values, each[name])
    for each, before in zip(refined, near, strict=True):
        moved = before["boxes"][:, 0] - each["boxes"][:, 0]
        assert ((moved > 3) & (moved < 7)).all()


def test_a_head_that_is_not_seen_again_stays():
    image, near = crowd(3)
    image[:] = 0
    (kept,) = with_close_looks(Network(np.eye(3)), [image], [near], size=SIZE, iou_threshold=0.5)
    for name, values in near.items():
        np.testing.assert_array_equal(kept[name], values)


@pytest.fixture(scope="module")
def photographs():
    """The people of the demo, each alone, and what the weights that ship say of them."""
    paths = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))
    return [read_image(path) for path in paths]


def test_it_helps_on_the_people_of_the_demo(photographs):
    """In a large image where each is small: nearer to what is said of each alone."""
    alone = Predictor("release", runtime="onnxruntime")
    expected = [alone(image)[0] for image in photographs]
    side = 400
    large = np.full((2100, 3200, 3), geometry.BORDER_GREY, np.uint8)
    places = [(300 + 1000 * (i % 3), 300 + 1000 * (i // 3)) for i in range(len(photographs))]
    for image, (left, top) in zip(photographs, places, strict=True):
        scale = side / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        large[top : top + small.shape[0], left : left + small.shape[1]] = small
    errors, off = {}, {}
    for second_look in (False, True):
        options = {"runtime": "onnxruntime", "second_look": second_look, "tile": None}
        heads = Predictor("release", **options)(large)
        errors[second_look], off[second_look] = [], []
        for truth, image, (left, top) in zip(expected, photographs, places, strict=True):
            scale = side / max(image.shape[:2])
            box = scale * np.array(truth.box) + [left, top, left, top]
            nearest = min(heads, key=lambda head: np.abs(np.array(head.box) - box).max())
            errors[second_look].append(geodesic_degrees(nearest.rotation, truth.rotation))
            off[second_look].append(np.abs(np.array(nearest.box) - box).max())
    print(errors, off)
    assert np.mean(errors[True]) < 0.7 * np.mean(errors[False])
    assert np.mean(off[True]) < np.mean(off[False])
