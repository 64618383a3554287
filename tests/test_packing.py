"""Packed inputs show what their labels say, by painted images."""

from collections import Counter

import cv2
import numpy as np
import pytest

from mtnet_jax.data.images import decode_at_scale
from mtnet_jax.data.packing import Packer
from tests.augmentation import NO_AUGMENTATION
from tests.batched import assert_same, record
from tests.packed import PLAIN, Painted, colour_of, nose_of, one_head_each, plain

SIZE = 256


# --- painted images ----------------------------------------------------------------------------


def dot_of(image: np.ndarray, middle: np.ndarray, width: float) -> np.ndarray:
    """Where the white dot of a head is, right and down of its middle, in parts of its width."""
    x, y = np.maximum(middle - width / 2, 0).astype(int)
    around = image[y : y + int(width) + 2, x : x + int(width) + 2]
    light = np.maximum(around.min(axis=-1).astype(float) - 80, 0)
    ys, xs = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5 + np.array([y, x])[:, None, None]
    light[np.hypot(xs - middle[0], ys - middle[1]) > width / 2] = 0
    assert light.max() > 40
    return (np.array([(light * xs).sum(), (light * ys).sum()]) / light.sum() - middle) / width


@pytest.mark.parametrize(
    ("suffix", "scale"),
    [(".png", 1), (".jpg", 2), (".jpg", 9)],  # the largest are decoded small
)
@pytest.mark.parametrize(("turn", "lying"), [(0.0, 0.0), (25.0, 0.0), (0.0, 1.0)])
def test_every_head_lies_on_its_image(suffix, scale, turn, lying):
    """The colour in the middle of each box is its head's, the dot lies where its labels say."""
    source = Painted(suffix=suffix, scale=scale)
    augment = NO_AUGMENTATION._replace(flip=0.5, turn=turn, lying=lying)
    packer = Packer([source], [1.0], PLAIN, augment)
    seen, mirrored = Counter(), Counter()
    for seed in range(16):
        packed = packer(np.random.default_rng(seed), SIZE)
        image = packed["image"]
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        for i, (box, label) in enumerate(zip(packed["boxes"], packed["labels"], strict=True)):
            width, height = box[2:] - box[:2]
            if packed["ignore"][i] or abs(width - height) > 0.1:
                continue  # cut at the border of its tile: its middle is not known
            middle = (box[:2] + box[2:]) / 2
            x, y = middle.astype(int)
            off = np.abs(image[y, x].astype(int) - colour_of(label)).max()
            assert off < (25 if suffix == ".jpg" else 6), (seed, label)
            dot = dot_of(image, middle, width)
            reach = 0.05 + 0.3 / width  # the dot is drawn to whole pixels, and found among pixels
            before, heading = source.rotations[label], np.radians(source.headings[label])
            if label % 2 == 0:
                assert packed["has_pose"][i]
                assert not packed["has_heading"][i]
                np.testing.assert_allclose(dot, 0.4 * nose_of(packed["rotations"][i]), atol=reach)
                mirrored[bool(before[0, 2] * packed["rotations"][i][0, 2] < 0)] += 1
            else:
                assert not packed["has_pose"][i]
                assert packed["has_heading"][i] or lying
                np.testing.assert_array_equal(packed["rotations"][i], np.eye(3))
                if packed["has_heading"][i]:
                    # The face looks as far forward as before the turn: then what is sideways is
                    # known.
                    sideways = np.cos(heading) * np.tan(np.radians(packed["headings"][i]))
                    np.testing.assert_allclose(dot[0], -0.4 * sideways, atol=reach)
            seen[int(label)] += 1
    assert len(seen) == 24
    assert min(mirrored[True], mirrored[False]) > 15


def test_no_head_that_is_seen_is_missing():
    """Wherever an input shows a head's colour, one of its boxes of this label is."""
    packer = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION._replace(flip=0.5))
    found = 0
    for seed in range(12):
        packed = packer(np.random.default_rng(seed), SIZE)
        for label in range(24):
            shown = np.abs(packed["image"].astype(int) - colour_of(label)).max(axis=-1) < 6
            # Where two other colours meet, a few pixels may look alike.
            shown = cv2.erode(shown.astype(np.uint8), np.ones((3, 3))) > 0
            covered = np.zeros((SIZE, SIZE), bool)
            for box in packed["boxes"][packed["labels"] == label]:
                left, top, right, bottom = np.clip(box + [-2, -2, 2, 2], 0, SIZE).astype(int)
                covered[top:bottom, left:right] = True
            assert not (shown & ~covered).any(), (seed, label)
            found += shown.sum()
    assert found > 0.2 * 12 * SIZE**2


@pytest.mark.parametrize("size", [64, 100, 225])
def test_boxes_lie_in_the_input_and_tiles_leave_no_gap(size):
    """Also where the number of tiles does not divide the input."""
    places = np.arange(0, 300, 12.0)
    heads = np.array([[x, y, x + 12, y + 12] for x in places for y in places])
    # Those near the border are not drawn, so that no tile reaches out of the image.
    border = (heads.min(axis=1) < 40) | (heads.max(axis=1) > 260)
    crowd = record(heads, image=plain(300), has_pose=np.zeros(len(heads), bool), ignore=border)
    for tiles in (3, 7):
        packer = Packer([[crowd]], [1.0], PLAIN._replace(tiles=(tiles,)), NO_AUGMENTATION)
        for seed in range(3):
            packed = packer(np.random.default_rng(seed), size)
            assert (packed["image"] == 90).all()
            boxes = packed["boxes"]
            assert len(boxes) > 3 * tiles**2
            assert boxes.min() >= 0
            assert boxes.max() <= size
            assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_heads_are_as_large_as_they_should_be_and_near_the_middle():
    """One head an image: its longer side and its centre, in parts of the tile."""
    heads = one_head_each([0.0] * 20, box=(30, 40, 60, 52), side=100)
    options = PLAIN._replace(tiles=(2,), head_min=0.3, head_max=0.6, shift=0.1)
    packer = Packer([heads], [1.0], options, NO_AUGMENTATION)
    boxes = np.concatenate([packer(np.random.default_rng(s), 256)["boxes"] for s in range(60)])
    parts = (boxes[:, 2] - boxes[:, 0]) / 128
    np.testing.assert_allclose((boxes[:, 3] - boxes[:, 1]) / 128, 0.4 * parts, atol=1e-3)
    assert 0.3 - 1e-6 < parts.min() < 0.31
    assert 0.58 < parts.max() < 0.6 + 1e-6
    assert np.log(parts).mean() == pytest.approx(np.log(0.3 * 0.6) / 2, abs=0.03)  # log-uniform
    off = (boxes[:, :2] + boxes[:, 2:]) / 2 / 128 % 1 - 0.5
    assert 0.09 < np.abs(off).max() < 0.1 + 1e-6
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=0.02)


def test_scale_and_shift_of_the_augmentation_have_no_part_and_colours_do():
    packer = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION)
    packed = packer(np.random.default_rng(0), 96)
    moved = NO_AUGMENTATION._replace(scale_min=0.1, scale_max=3.0, shift=0.9)
    assert_same([Packer([Painted()], [1.0], PLAIN, moved)(np.random.default_rng(0), 96)], [packed])
    grey = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION._replace(grey=1.0))
    image = grey(np.random.default_rng(0), 96)["image"].astype(int)
    assert np.ptp(packed["image"].astype(int), axis=-1).max() > 100
    assert np.ptp(image, axis=-1).max() <= 1


def test_patches_hide_at_most_a_quarter_of_a_head():
    """The same input with and without: what differs is one flat rectangle on the head."""
    heads = one_head_each([0.0], box=(20, 30, 60, 80), side=100)
    options = PLAIN._replace(tiles=(1,), shift=0.0)
    hidden = 0
    for seed in range(40):
        images = []
        for occlude in (0.0, 1.0):
            packer = Packer([heads], [1.0], options._replace(occlude=occlude), NO_AUGMENTATION)
            packed = packer(np.random.default_rng(seed), 128)
            images.append(packed["image"].astype(int))
        (left, top, right, bottom), *others = packed["boxes"]
        assert not others
        rows, columns = np.nonzero((images[0] != images[1]).any(axis=-1))
        if not len(rows):
            continue
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width <= 0.5 * (right - left) + 1
        assert height <= 0.5 * (bottom - top) + 1
        assert len(rows) == height * width
        assert len(np.unique(images[1][rows, columns], axis=0)) == 1
        inside = (columns >= left - 1) & (columns <= right) & (rows >= top - 1) & (rows <= bottom)
        hidden += inside.any()
    assert hidden > 30


def test_the_photograph_ends_within_a_head_and_its_box_stays():
    """The same input with and without: a third of the head at most is beyond one edge, in a rim
    of one colour that is the whole of the input there."""
    heads = one_head_each([0.0], box=(20, 30, 60, 80), side=100)
    options = PLAIN._replace(tiles=(1,), shift=0.0, head_max=0.6)
    edges = []
    for seed in range(60):
        whole, cut = (
            Packer([heads], [1.0], options._replace(cut=share), NO_AUGMENTATION)(
                np.random.default_rng(seed), 128
            )
            for share in (0.0, 1.0)
        )
        np.testing.assert_array_equal(cut["boxes"], whole["boxes"])
        (left, top, right, bottom), *_ = whole["boxes"]
        width, height = right - left, bottom - top
        differ = (whole["image"] != cut["image"]).any(axis=-1)
        rows, columns = (np.flatnonzero(differ.any(axis=axis)) for axis in (1, 0))
        hidden = {  # of the head's extent, were it beyond this edge
            "left": (columns.max() + 1 - left) / width,
            "right": (right - columns.min()) / width,
            "top": (rows.max() + 1 - top) / height,
            "bottom": (bottom - rows.min()) / height,
        }
        edge = next(name for name, part in hidden.items() if part <= 0.37)
        assert hidden[edge] > 0.03
        assert all(part > 0.6 for name, part in hidden.items() if name != edge)
        beyond = {
            "left": np.s_[:, : columns.max() + 1],
            "right": np.s_[:, columns.min() :],
            "top": np.s_[: rows.max() + 1],
            "bottom": np.s_[rows.min() :],
        }[edge]
        assert len(np.unique(cut["image"][beyond].reshape(-1, 3), axis=0)) == 1
        edges.append(edge)
    assert set(edges) == {"left", "top", "right", "bottom"}


def test_heads_that_the_rim_covers_are_ignored():
    """Neighbours of the head that is cut: of what counts, a third shows its own colour."""
    options = PLAIN._replace(tiles=(1,), head_min=0.25, head_max=0.3, cut=1.0)
    packer = Packer([Painted()], [1.0], options, NO_AUGMENTATION)
    shares: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(60):
        packed = packer(np.random.default_rng(seed), SIZE)
        for box, label, ignored in zip(
            packed["boxes"], packed["labels"], packed["ignore"], strict=True
        ):
            left, top, right, bottom = np.round(box).astype(int)
            inside = packed["image"][top:bottom, left:right].astype(int)
            if not inside.size:
                continue
            own = np.abs(inside - colour_of(label)).max(axis=-1) < 40
            shares[bool(ignored)].append(float(own.mean()))
    assert min(shares[False]) > 0.33
    assert shares[True].count(0.0) > 5


# --- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [3.0, 1.0, 0.6, 0.5, 0.3, 0.2, 0.01])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_decoded_with_the_pixels_that_are_needed(suffix, scale):
    """A JPEG no larger than twice that; other formats whole."""
    scene = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    found = decode_at_scale(cv2.imencode(suffix, scene)[1].tobytes(), scale)
    factor = found.factor
    assert found.pixels.shape == (96 // factor, 160 // factor, 3)
    if suffix == ".png":
        assert factor == 1
        np.testing.assert_array_equal(found.pixels, scene[..., ::-1])
    else:
        assert 1 / factor >= min(scale, 1)
        assert factor == 8 or 1 / (2 * factor) < scale
