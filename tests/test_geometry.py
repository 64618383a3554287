"""Image, boxes and rotations under one map: against drawn dots and rectangles, and scipy."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions, random_map
from tests.augmentation import NO_AUGMENTATION

GREY, RED = (114, 114, 114), (255, 0, 0)
MIRROR = np.diag([-1.0, 1, 1])
SHAPES = [(64, 64), (300, 200), (200, 300), (1, 1), (5, 3000), (3000, 5), (1003, 777), (37, 641)]


def grey_image(width: int, height: int) -> np.ndarray:
    """Of the colour of the border, so that only what is drawn on it shows up in `redness`."""
    return np.full((height, width, 3), GREY, np.uint8)


def redness(image: np.ndarray) -> np.ndarray:
    """(H, W) share of `RED` in each pixel; linear, so resampling keeps sums and centroids."""
    return (image[..., 0].astype(float) - image[..., 1]) / 255


def centroid(image: np.ndarray) -> np.ndarray:
    """Middle of what is red, x and y with 0 at the outer edge of the first pixel."""
    weights = redness(image)
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()


def drawn_extent(image: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of one red upright rectangle, to a fraction of a pixel."""
    weights = redness(image)
    height, width = weights.sum(axis=0).max(), weights.sum(axis=1).max()
    x, y = centroid(image)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def random_rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    return Rotation.random(count, rng=rng).as_matrix().astype(np.float32)


def some_maps(rng: np.random.Generator, width: int, height: int, size: int) -> list[np.ndarray]:
    """Every kind of change: by turns up to a half circle, flips, both directions of scale."""
    options = NO_AUGMENTATION._replace(
        flip=0.5, turn=180.0, scale_min=0.5, scale_max=1.3, shift=0.1
    )
    letterbox = geometry.letterbox_map(width, height, size)
    return [geometry.compose(letterbox, random_map(rng, size, options)) for _ in range(24)]


# --- the maps ------------------------------------------------------------------------------------


def test_maps_do_what_they_say_to_points():
    def at(matrix, *point):
        return (matrix @ [*point, 1]).round(12).tolist()

    assert at(np.eye(2, 3), 3, 4) == [3, 4]
    assert at(geometry.shift_map(2, -1), 3, 4) == [5, 3]
    assert at(geometry.scale_map(2), 3, 4) == [6, 8]
    assert at(geometry.mirror_map(10), 3, 4) == [7, 4]
    # Clockwise as seen, with y down: from the right to below.
    assert at(geometry.turn_map(90), 1, 0) == [0, 1]


def test_compose_applies_the_first_map_first():
    first, then = geometry.scale_map(2), geometry.shift_map(5, 0)
    assert (geometry.compose(first, then) @ [1, 1, 1]).tolist() == [7, 2]
    assert (geometry.compose(then, first) @ [1, 1, 1]).tolist() == [12, 2]


def test_invert_undoes_any_map(rng):
    for matrix in some_maps(rng, 320, 200, 96):
        there_and_back = geometry.compose(matrix, geometry.invert(matrix))
        np.testing.assert_allclose(there_and_back, np.eye(2, 3), atol=1e-9)


def test_flip_twice_is_nothing(rng):
    flip = geometry.mirror_map(48)
    np.testing.assert_array_equal(geometry.compose(flip, flip), np.eye(2, 3))
    image = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    once = geometry.map_image(image, flip, 48)
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(geometry.map_image(once, flip, 48), image)
    boxes = np.array([[3, 4, 20, 31], [-5, 0, 48, 48]], np.float32)
    np.testing.assert_array_equal(geometry.map_boxes(geometry.map_boxes(boxes, flip), flip), boxes)
    rotations = random_rotations(rng, 50)
    twice = geometry.map_rotations(geometry.map_rotations(rotations, flip), flip)
    np.testing.assert_allclose(twice, rotations, atol=1e-6)


@pytest.mark.parametrize("degrees", [1, 15, -37.5, 90, 180])
def test_turn_and_back_is_nothing(rng, degrees):
    middle = geometry.shift_map(-50, -50)

    def about_middle(angle):
        turned = geometry.compose(middle, geometry.turn_map(angle))
        return geometry.compose(turned, geometry.shift_map(50, 50))

    there, back = about_middle(degrees), about_middle(-degrees)
    np.testing.assert_allclose(geometry.compose(there, back), np.eye(2, 3), atol=1e-12)

    rotations = random_rotations(rng, 50)
    again = geometry.map_rotations(geometry.map_rotations(rotations, there), back)
    np.testing.assert_allclose(again, rotations, atol=1e-6)

    squares = np.array([[10, 20, 50, 60], [0, 0, 100, 100]], np.float32)  # inscribed: circles
    again = geometry.map_boxes(geometry.map_boxes(squares, there), back)
    np.testing.assert_allclose(again, squares, atol=1e-4)

    smooth = cv2.GaussianBlur(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8), (0, 0), 4)
    again = geometry.map_image(geometry.map_image(smooth, there, 100), back, 100)
    inside = np.hypot(*(np.mgrid[:100, :100] + 0.5 - 50)) < 46
    assert np.abs(again.astype(int) - smooth)[inside].max() <= 3


# --- the image ---------------------------------------------------------------------------------


def test_identity_and_whole_shifts_are_exact(rng):
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(geometry.map_image(image, np.eye(2, 3), 40), image)
    shifted = geometry.map_image(image, geometry.shift_map(7, -3), 40)
    np.testing.assert_array_equal(shifted[:37, 7:], image[3:, :33])
    assert (shifted[37:] == geometry.BORDER_GREY).all()
    assert (shifted[:, :7] == geometry.BORDER_GREY).all()


def test_quarter_turn_is_exact(rng):
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    turned = geometry.compose(geometry.turn_map(90), geometry.shift_map(40, 0))
    expected = np.rot90(image, -1)  # clockwise
    np.testing.assert_array_equal(geometry.map_image(image, turned, 40), expected)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(640, 480, 416), (480, 640, 416), (1280, 720, 224), (384, 288, 224), (96, 96, 96)],
)
def test_images_that_land_on_whole_pixels_are_resized(monkeypatch, rng, width, height, size):
    """The quick way for common sizes gives the image of the general one, but for rounding."""
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    letterbox = geometry.letterbox_map(width, height, size)
    with monkeypatch.context() as quick:
        quick.setattr(cv2, "warpAffine", None)
        found = geometry.map_image(image, letterbox, size)
    monkeypatch.setattr(geometry, "_whole_pixels", lambda *_: None)
    expected = geometry.map_image(image, letterbox, size)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert found.flags.c_contiguous


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shrinking_averages(rng, factor):
    """No pixel of the source is passed over: each output pixel is the mean of its block."""
    image = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    size = 96 // factor
    blocks = image.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    small = geometry.map_image(image, geometry.letterbox_map(96, 96, size), size)
    np.testing.assert_allclose(small, blocks, atol=0.5001)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (64, 64, 64),
        (640, 480, 416),
        (480, 640, 224),
        (1024, 1024, 128),  # 8 times smaller
        (1003, 777, 96),  # 10.4 times, and sides that no factor divides
        (777, 1003, 64),
        (40, 31, 416),  # 10 times larger
        (400, 100, 64),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_box_round_a_drawn_rectangle_still_bounds_it(width, height, size, flip):
    box = np.array([width // 4, height // 3, width * 5 // 8, height * 4 // 5])
    image = grey_image(width, height)
    image[box[1] : box[3], box[0] : box[2]] = RED
    matrix = geometry.letterbox_map(width, height, size)
    if flip:
        matrix = geometry.compose(matrix, geometry.mirror_map(size))
    found = drawn_extent(geometry.map_image(image, matrix, size))
    np.testing.assert_allclose(found, geometry.map_boxes(box, matrix)[0], atol=0.15)


def test_negative_strides_and_read_only_images_are_taken(rng):
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image.flags.writeable = False
    for size in (32, 200):  # with and without averaging
        matrix = geometry.letterbox_map(120, 90, size)
        other_order = geometry.map_image(image[..., ::-1], matrix, size)
        np.testing.assert_array_equal(
            other_order, geometry.map_image(image, matrix, size)[..., ::-1]
        )


# --- letterbox -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("size", [64, 416])
def test_letterbox_fits_the_whole_image_centred(width, height, size):
    matrix = geometry.letterbox_map(width, height, size)
    left, top, right, bottom = geometry.map_boxes([0, 0, width, height], matrix)[0]
    assert max(right - left, bottom - top) == pytest.approx(size, rel=1e-5)
    assert left + right == pytest.approx(size, rel=1e-5)
    assert top + bottom == pytest.approx(size, rel=1e-5)
    assert (right - left) * height == pytest.approx((bottom - top) * width, rel=1e-3)
    assert geometry.scale_of(matrix) == pytest.approx(size / max(width, height))
    image = geometry.map_image(np.zeros((height, width, 3), np.uint8), matrix, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    outside = np.ones((size, size), bool)
    outside[int(max(top - 1, 0)) : int(bottom + 2), int(max(left - 1, 0)) : int(right + 2)] = False
    assert (image[outside] == geometry.BORDER_GREY).all()
    fade = 2 + int(geometry.scale_of(matrix))  # the border fades in within half a source pixel
    inside = image[int(top) + fade : int(bottom) - fade, int(left) + fade : int(right) - fade]
    assert (inside == 0).all()


# --- boxes ---------------------------------------------------------------------------------------


def test_boxes_hold_the_mapped_ellipse(rng):
    """Against points all round the ellipse inscribed in each box."""
    angle = np.linspace(0, 2 * np.pi, 3600)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (P, 2)
    low = rng.uniform(0, 200, (10, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 100, (10, 2))], axis=1)
    for matrix in some_maps(rng, 320, 200, 96):
        for box, mapped in zip(boxes, geometry.map_boxes(boxes, matrix), strict=True):
            points = (box[:2] + box[2:]) / 2 + circle * (box[2:] - box[:2]) / 2
            points = points @ matrix[:, :2].T + matrix[:, 2]
            expected = [*points.min(axis=0), *points.max(axis=0)]
            np.testing.assert_allclose(mapped, expected, atol=1e-3)


def test_boxes_without_a_turn_are_their_mapped_corners(rng):
    boxes = np.array([[1, 2, 30, 50], [-4, 0, 3, 9]], np.float32)
    matrix = geometry.compose(geometry.scale_map(0.3), geometry.shift_map(11, -2))
    np.testing.assert_allclose(
        geometry.map_boxes(boxes, matrix), boxes * 0.3 + [11, -2, 11, -2], atol=1e-5
    )


def test_no_boxes_and_no_rotations():
    turn = geometry.turn_map(10)
    assert geometry.map_boxes(np.zeros((0, 4), np.float32), turn).shape == (0, 4)
    assert geometry.map_rotations(np.zeros((0, 3, 3), np.float32), turn).shape == (0, 3, 3)
    assert geometry.map_headings(np.zeros(0, np.float32), turn).shape == (0,)


# --- rotations -----------------------------------------------------------------------------------


def test_rotations_against_scipy_step_by_step(rng):
    """R' = M R M for each flip and Rz(t) R for each clockwise turn, in any order; no more."""
    start = Rotation.random(20, rng=rng)
    for _ in range(50):
        matrix, expected = np.eye(2, 3), start.as_matrix()
        for step in rng.integers(0, 4, 6):
            amount = rng.uniform(-180, 180)
            if step == 0:
                matrix = geometry.compose(matrix, geometry.mirror_map(amount))
                expected = MIRROR @ expected @ MIRROR
            elif step == 1:
                matrix = geometry.compose(matrix, geometry.turn_map(amount))
                turned = Rotation.from_euler("z", amount, degrees=True)
                expected = (turned * Rotation.from_matrix(expected)).as_matrix()
            elif step == 2:
                matrix = geometry.compose(matrix, geometry.scale_map(np.exp(amount / 180)))
            else:
                matrix = geometry.compose(matrix, geometry.shift_map(amount, -amount))
        mapped = geometry.map_rotations(start.as_matrix().astype(np.float32), matrix)
        assert mapped.dtype == np.float32
        np.testing.assert_allclose(mapped, expected, atol=1e-5)


# --- headings ------------------------------------------------------------------------------------

HEADINGS = np.array([0, 20, -75, 90, -90, 135, -179, 180], np.float32)


def assert_same_headings(found, expected):
    """Within a hundredth of a degree, where -180 and 180 are one."""
    assert np.abs((found - expected + 180) % 360 - 180).max() < 0.01


def test_a_flip_negates_headings():
    flipped = geometry.map_headings(HEADINGS, geometry.mirror_map(48))
    assert_same_headings(flipped, -HEADINGS)
    twice = geometry.map_headings(flipped, geometry.mirror_map(70))
    assert_same_headings(twice, HEADINGS)


def test_scale_and_shift_change_no_heading():
    for matrix in (
        np.eye(2, 3),
        geometry.shift_map(30, -4),
        geometry.scale_map(0.2),
        geometry.letterbox_map(300, 200, 96),
    ):
        assert_same_headings(geometry.map_headings(HEADINGS, matrix), HEADINGS)


def test_a_turn_leaves_the_cosine_of_what_looks_sideways():
    """By hand: cos 60 = 1/2, so tan h becomes half of it; a quarter turn leaves no sideways."""
    turned = geometry.map_headings(np.array([45, -45, 135, 0, 180, 90]), geometry.turn_map(60))
    expected = [26.565, -26.565, 153.435, 0, 180, 90]  # the arc tangent of 1/2
    np.testing.assert_allclose(turned, expected, atol=1e-3)
    np.testing.assert_allclose(
        geometry.map_headings(np.array([30, -150]), geometry.turn_map(-90)), [0, -180], atol=1e-9
    )
    # To the other side by the same amount; half a turn more, and sideways changes its side.
    for degrees in (25.0, 130.0):
        there, back = (
            geometry.map_headings(HEADINGS, geometry.turn_map(d)) for d in (degrees, -degrees)
        )
        assert_same_headings(there, back)
    assert_same_headings(geometry.map_headings(HEADINGS, geometry.turn_map(180)), -HEADINGS)


def test_headings_are_those_of_mapped_level_heads(rng):
    """Any chain of maps of scipy's Ry(h), and its heading atan2(R02, R22) afterwards."""
    headings = rng.uniform(-180, 180, 40).astype(np.float32)
    rotations = Rotation.from_euler("Y", headings[:, None], degrees=True).as_matrix()
    for matrix in some_maps(rng, 320, 200, 96):
        mapped = geometry.map_rotations(rotations, matrix).astype(float)
        expected = np.degrees(np.arctan2(mapped[:, 0, 2], mapped[:, 2, 2]))
        assert_same_headings(geometry.map_headings(headings, matrix), expected)


def test_drawn_axes_stay_on_the_head(rng):
    """Dots at a head's centre and at the ends of its axes, found again in the mapped image.

    The axes are the columns of R (subject's left, down, and the nose against the third). After a
    flip the subject's left lies where the right was; nose and chin stay.
    """
    width, height, size, length = 320, 240, 192, 60
    centre = np.array([170.0, 115.0])
    box = [*(centre - [30, 40]), *(centre + [30, 40])]
    for matrix in some_maps(rng, width, height, size):
        rotation = random_rotations(rng, 1)
        axes = length * rotation[0] * [1, 1, -1]  # columns
        ends = [centre, *(centre + axes[:2, i] for i in range(3))]

        new_box = geometry.map_boxes(box, matrix)[0]
        new_rotation = geometry.map_rotations(rotation, matrix)[0]
        new_centre = (new_box[:2] + new_box[2:]) / 2
        side = -1 if np.linalg.det(matrix[:, :2]) < 0 else 1
        new_axes = length * geometry.scale_of(matrix) * new_rotation * [side, 1, -1]
        predicted = [new_centre, *(new_centre + new_axes[:2, i] for i in range(3))]

        for end, expected in zip(ends, predicted, strict=True):
            image = grey_image(width, height)
            # OpenCV's 0 is the middle of the first pixel; 4 fractional bits.
            place = np.round((end - 0.5) * 16).astype(int).tolist()
            cv2.circle(image, place, 5 * 16, RED, -1, cv2.LINE_AA, 4)
            found = centroid(geometry.map_image(image, matrix, size))
            np.testing.assert_allclose(found, expected, atol=0.3)


def test_default_augmentation_keeps_rotations_proper(rng):
    rotations = random_rotations(rng, 30)
    for _ in range(20):
        matrix = random_map(rng, 96, AugmentOptions())
        mapped = geometry.map_rotations(rotations, matrix).astype(float)
        np.testing.assert_allclose(np.linalg.det(mapped), 1, atol=1e-5)
        gram = mapped @ mapped.swapaxes(1, 2)
        np.testing.assert_allclose(gram, np.tile(np.eye(3), (30, 1, 1)), atol=1e-5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
