"""Overlays: where pixels of which colour end up."""

import re

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.predict import draw
from mtnet_jax.predict.draw import contact_sheet, draw_heads, line_width

GREY = np.full((240, 320, 3), 128, np.uint8)


def canonical(yaw, pitch=0.0, roll=0.0):
    """R = Rx(-pitch) Ry(yaw) Rz(roll) by scipy."""
    return Rotation.from_euler("XYZ", [-pitch, yaw, roll], degrees=True).as_matrix()


def one_head(rotation, box=(110, 70, 210, 170), **more):
    return {"boxes": np.array([box], np.float32), "rotations": rotation[None], **more}


def pixels(image, colour):
    """(k, 2) x and y of the pixels of exactly this colour."""
    y, x = np.nonzero((image == np.array(colour, np.uint8)).all(axis=-1))
    return np.stack([x, y], axis=1)


CENTRE = np.array([160, 120])


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll", "direction"),
    [
        (45, 0, 0, (-1, 0)),
        (-45, 0, 0, (1, 0)),
        (0, 45, 0, (0, -1)),
        (0, -45, 0, (0, 1)),
        (135, 0, 90, (-1, 0)),  # turned away; the roll keeps nearer axes off the blue one
    ],
)
def test_the_blue_axis_points_where_the_face_looks(yaw, pitch, roll, direction):
    head = one_head(canonical(yaw, pitch, roll))
    blue = pixels(draw_heads(GREY, head, label=False), draw.BLUE)
    furthest = blue[np.argmax(np.linalg.norm(blue - CENTRE, axis=1))] - CENTRE
    length = 0.62 * 100 * np.sin(np.pi / 4)
    assert furthest == pytest.approx(length * np.array(direction), abs=4)


def test_red_points_to_the_subjects_left_and_green_down():
    image = draw_heads(GREY, one_head(np.eye(3)), label=False)
    red, green = pixels(image, draw.RED), pixels(image, draw.GREEN)
    assert red[:, 0].max() > CENTRE[0] + 50
    assert np.abs(red[:, 1] - CENTRE[1]).max() <= 3
    assert green[:, 1].max() > CENTRE[1] + 50
    assert np.abs(green[:, 0] - CENTRE[0]).max() <= 3


def test_roll_turns_clockwise():
    red = pixels(draw_heads(GREY, one_head(canonical(0, 0, 45)), label=False), draw.RED)
    assert (red.max(axis=0) - CENTRE > 30).all()  # to the right and down


@pytest.mark.parametrize(("yaw", "covers"), [(30, True), (150, False)])
def test_the_nearer_axis_covers_the_further_one(yaw, covers):
    # At the shared start only the nearest axis shows: blue if the face looks towards the camera.
    image = draw_heads(GREY, one_head(canonical(yaw)), label=False)
    assert (tuple(int(c) for c in image[119, 158]) == draw.BLUE) == covers


def test_box_lies_where_it_should():
    image = draw_heads(GREY, one_head(np.full((3, 3), np.nan)), label=False)
    box = pixels(image, draw.BOX_COLOUR)
    assert box.min(axis=0) == pytest.approx([110, 70], abs=1)
    assert box.max(axis=0) == pytest.approx([209, 169], abs=1)
    inside = image[80:160, 120:200]
    assert (inside == 128).all()  # no rotation, no axes


def test_the_image_given_is_not_changed_and_no_heads_change_nothing():
    nothing = {"boxes": np.zeros((0, 4)), "rotations": np.zeros((0, 3, 3)), "scores": np.zeros(0)}
    image = GREY.copy()
    drawn = draw_heads(image, nothing)
    assert drawn is not image
    assert (drawn == GREY).all()
    draw_heads(image, one_head(np.eye(3)))
    assert (image == GREY).all()


@pytest.mark.parametrize("cube", [False, True])
def test_odd_heads(cube):
    boxes = np.array(
        [
            [-50, -50, 40, 40],  # partly outside
            [400, 300, 500, 400],  # outside
            [100, 100, 101, 101],  # tiny
            [50, 50, 50, 50],  # empty
            [-1e30, 0, 1e30, 9],  # absurd
            [np.nan] * 4,
        ]
    )
    heads = {"boxes": boxes, "rotations": np.tile(np.eye(3), (6, 1, 1)), "scores": np.ones(6)}
    for image in (GREY, np.zeros((3, 5, 3), np.uint8)):
        drawn = draw_heads(image, heads, truth=heads, cube=cube)
        assert drawn.shape == image.shape
        assert drawn.dtype == np.uint8


@pytest.mark.parametrize(
    "box", [(110, 70, 210, 170), (110, 0, 210, 100), (0, 0, 320, 200), (220, 10, 320, 240)]
)
def test_labels_do_not_cover_the_head(box):
    rotation = np.full((3, 3), np.nan)
    plain = draw_heads(GREY, one_head(rotation, box, scores=np.array([0.5])), label=False)
    labelled = draw_heads(GREY, one_head(rotation, box, scores=np.array([0.5])))
    y, x = np.nonzero((plain != labelled).any(axis=-1))
    assert len(x) > 50
    inside = (x > box[0] + 1) & (x < box[2] - 2) & (y > box[1] + 1) & (y < box[3] - 2)
    assert not inside.any()


@pytest.mark.parametrize(("width", "words"), [(300, 1), (64, 1), (18, 0)])
def test_labels_are_not_cut_off(width, words):
    """Where not all words have room the score has to do, and where not even that, none."""
    image = np.full((60, width, 3), 128, np.uint8)
    head = one_head(np.eye(3), (width / 2 - 4, 30, width / 2 + 4, 50), scores=np.ones(1))
    changed = draw_heads(image, head) != draw_heads(image, head, label=False)
    assert changed.any() == bool(words)
    assert not changed[:, -1].any()  # the label's ground ends within the image


def test_cube_shows_the_front_face_on_the_side_the_face_looks_to():
    image = draw_heads(GREY, one_head(canonical(60)), label=False, cube=True)
    assert pixels(image, draw.BLUE)[:, 0].max() < CENTRE[0]
    filled = image[120, 120].astype(int)  # within the front face: tinted blue
    assert filled[2] > filled[0] + 30


def filled_slowly(canvas, points, colour, opacity):
    """As `_fill`, on a copy of the whole image, and not rounded."""
    filled = canvas.copy()
    cv2.fillPoly(filled, [draw._fixed(points)], colour, cv2.LINE_AA, draw._SHIFT)
    return opacity * filled.astype(float) + (1 - opacity) * canvas


@pytest.mark.parametrize("reach", [3, 30, 300, 1e6])
def test_a_polygon_is_filled_where_it_lies_and_looks_as_on_the_whole_image(reach):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (83, 101, 3), dtype=np.uint8)
    changed = 0
    for _ in range(80):
        points = rng.uniform([-20, -20], [121, 103]) + rng.uniform(-reach, reach, (4, 2))
        canvas, colour, opacity = image.copy(), draw.BLUE, rng.choice([0.12, 0.3])
        draw._fill(canvas, points, colour, opacity)
        expected = filled_slowly(image, points, colour, opacity)
        assert np.abs(canvas - expected).max() < 0.5001  # OpenCV rounds halves either way
        changed += (canvas != image).any()
    assert changed > 10


def test_a_cube_on_a_large_image_touches_no_more_than_its_place(monkeypatch):
    """A copy of the image for each head would take as long as all the rest."""
    blended, blend = [], cv2.addWeighted

    def counting(part, *of, **more):
        blended.append(part.size)
        return blend(part, *of, **more)

    monkeypatch.setattr(cv2, "addWeighted", counting)
    draw_heads(np.zeros((3000, 4000, 3), np.uint8), one_head(canonical(30)), cube=True)
    assert 0 < sum(blended) <= 3 * 110**2


def test_labels_of_a_crowd_lie_where_a_slow_search_puts_them(monkeypatch):
    """The first place of eight that covers least, all heads and labels before it asked in turn."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, [1200, 800], (150, 2))
    boxes = np.concatenate([centres - 12, centres + 12], axis=1).round()
    labels = []
    monkeypatch.setattr(draw, "_shade", lambda canvas, *place: labels.append(place))
    heads = {"boxes": boxes, "rotations": np.tile(np.eye(3), (150, 1, 1)), "names": ["#1"] * 150}
    draw_heads(np.zeros((800, 1200, 3), np.uint8), heads)
    assert len(labels) == 150
    taken = [tuple(box) for box in boxes]
    height = round(1.3 * 20)
    for (left, top, right, bottom), place in zip(boxes, labels, strict=True):
        w = place[2]
        assert place[3] == height
        x = (left, left, right - w, right - w, right + 2, left - w - 2, right + 2, left - w - 2)
        y = (*((top - height - 2, bottom + 2) * 2), top, top, bottom - height, bottom - height)
        places = [np.clip(at, 0, (1200 - w, 800 - height)) for at in zip(x, y, strict=True)]
        costs = [
            sum(
                max(min(a + w, other[2]) - max(a, other[0]), 0)
                * max(min(b + height, other[3]) - max(b, other[1]), 0)
                for other in taken
            )
            for a, b in places
        ]
        assert place[:2] == tuple(places[int(np.argmin(costs))])
        taken.append((place[0], place[1], place[0] + w, place[1] + height))


def test_truth_is_drawn_too_and_objects_without_a_pose_get_no_axes():
    truth = one_head(np.eye(3), (20, 20, 80, 80), has_pose=np.array([False]))
    nothing = {"boxes": np.zeros((0, 4)), "rotations": np.zeros((0, 3, 3))}
    image = draw_heads(GREY, nothing, truth=truth)
    assert len(pixels(image, draw.TRUTH_COLOUR)) > 50
    assert len(pixels(image, draw.RED)) == 0


def test_wrong_images_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            draw_heads(image, one_head(np.eye(3)))


def test_line_width_grows_with_the_image():
    widths = [line_width((h, 2 * h, 3)) for h in (50, 320, 540, 2000)]
    assert widths == sorted(widths)
    assert widths[0] >= 1
    assert widths[-1] >= 3 * widths[1]


def test_contact_sheet_places_images():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((50, 100, 3), c, np.uint8) for c in colours]
    sheet = contact_sheet(
        images, 2, (200, 150), ["one", "two", "a caption that is far too long " * 3]
    )
    corners = [pixels(sheet, c).min(axis=0) for c in colours]
    sizes = [np.ptp(pixels(sheet, c), axis=0) + 1 for c in colours]
    assert all(s.tolist() == [200, 100] for s in sizes)  # enlarged, of the same shape
    assert corners[0][1] == corners[1][1] < corners[2][1]
    assert corners[0][0] == corners[2][0] < corners[1][0]
    assert contact_sheet([], 3, (100, 100)).shape[1] > 300
    with pytest.raises(ValueError, match="captions"):
        contact_sheet(images, 2, (100, 100), ["one"])
    with pytest.raises(ValueError, match="column"):
        contact_sheet(images, 0, (100, 100))


@pytest.mark.parametrize(("pan", "tilt"), [(45, 0), (-60, 0), (0, 30), (30, -30)])
def test_on_real_images_the_blue_axis_goes_the_way_the_nose_does(data_dir, pan, tilt):
    """Pointing'04: positive pan is a face to the left of the image, positive tilt looks up."""
    found = sorted((data_dir / "pointing04" / "Person02").glob(f"person02*{tilt:+d}{pan:+d}.jpg"))
    if not found:
        pytest.skip("no Pointing'04 image of this pose")
    image = cv2.cvtColor(cv2.imread(str(found[0])), cv2.COLOR_BGR2RGB)
    numbers = re.findall(r"\d+", found[0].with_suffix(".txt").read_text().split("Face")[1])
    x, y, w, h = (int(n) for n in numbers)
    box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    drawn = draw_heads(image, one_head(canonical(pan, tilt), box), label=False)
    changed = (drawn != image).any(axis=-1)
    blue = pixels(np.where(changed[..., None], drawn, 0), draw.BLUE)
    offset = blue[np.argmax(np.linalg.norm(blue - [x, y], axis=1))] - [x, y]
    if pan:
        assert np.sign(offset[0]) == -np.sign(pan)
    if tilt:
        assert np.sign(offset[1]) == -np.sign(tilt)
