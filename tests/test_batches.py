"""One record augmented and padded, against the image itself."""

import struct

import cv2
import numpy as np
import pytest

from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions, random_map
from mtnet_jax.data.batches import augment_record, pad_heads
from mtnet_jax.data.fitting import MIN_VISIBLE, fit_heads
from mtnet_jax.data.images import decode_image
from mtnet_jax.errors import BadRecord
from mtnet_jax.rotations import axis_rotation
from tests.augmentation import NO_AUGMENTATION
from tests.batched import plain_image, record


def letterboxed(fields: dict, width: int, height: int, size: int) -> dict[str, np.ndarray]:
    """The heads of a record in an input that is not augmented."""
    return fit_heads(fields, geometry.letterbox_map(width, height, size), size)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF header: 6 is a quarter turn."""
    tiff = b"II*\0" + struct.pack("<IH", 8, 1)
    tiff += struct.pack("<HHIHHI", 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


# --- one record ----------------------------------------------------------------------------------


def test_letterboxed_record(rng):
    rotation = axis_rotation("y", 40.0).astype(np.float32)[None]
    fitted = augment_record(
        record([[10, 20, 30, 60]], rotations=rotation), rng, 50, NO_AUGMENTATION
    )
    assert fitted["image"].shape == (50, 50, 3)
    assert (fitted["image"][10:40] == 90).all()
    assert (fitted["image"][:4] == geometry.BORDER_GREY).all()
    np.testing.assert_allclose(fitted["boxes"], [[5, 15, 15, 35]], atol=1e-5)
    np.testing.assert_allclose(fitted["rotations"], rotation, atol=1e-6)
    assert not fitted["ignore"].any()


def test_crop_clips_ignores_and_removes():
    """A shift to the left by 40: one head stays whole, one is half out, one mostly, one wholly."""
    boxes = [
        [60, 10, 80, 30],  # whole
        [30, 10, 50, 30],  # half of it stays
        [25, 10, 45, 30],  # a quarter stays
        [20, 10, 40, 30],  # touches the border from outside
        [0, 10, 20, 30],  # outside
        [30, 70, 50, 90],  # half of each side: a quarter stays
    ]
    fitted = fit_heads(record(boxes), geometry.shift_map(-40, 0), 80)
    expected = [[20, 10, 40, 30], [0, 10, 10, 30], [0, 10, 5, 30], [0, 70, 10, 80]]
    np.testing.assert_allclose(fitted["boxes"], expected)
    assert fitted["labels"].tolist() == [0, 1, 2, 5]
    assert 0.25 < MIN_VISIBLE < 0.5
    assert fitted["ignore"].tolist() == [False, False, True, True]


def test_ignored_heads_stay_ignored():
    heads = record([[1, 2, 30, 40], [5, 5, 9, 9]], ignore=np.array([1, 0]) > 0)
    fitted = letterboxed(heads, 100, 80, 50)
    assert fitted["ignore"].tolist() == [True, False]


def test_heads_without_pose_keep_the_identity():
    """`Truths` says so; a turn of the image must not make a pose of it."""
    boxes, has_pose = [[20, 20, 40, 40], [50, 30, 70, 50]], np.array([True, False])
    fitted = fit_heads(record(boxes, has_pose=has_pose), geometry.turn_map(10), 100)
    np.testing.assert_allclose(fitted["rotations"][0], axis_rotation("z", 10.0), atol=1e-6)
    np.testing.assert_array_equal(fitted["rotations"][1], np.eye(3))
    assert fitted["has_pose"].tolist() == [True, False]


def test_headings_follow_the_image_and_heads_without_stay_at_zero():
    boxes, known = [[20, 20, 40, 40], [50, 30, 70, 50]], np.array([True, False])
    heads = record(boxes, headings=np.array([40, 0], np.float32), has_heading=known)
    fitted = fit_heads(heads, geometry.mirror_map(100), 100)
    np.testing.assert_allclose(fitted["headings"], [-40, 0], atol=1e-5)
    assert fitted["headings"].dtype == np.float32
    assert fitted["has_heading"].tolist() == [True, False]
    # What no heading is known of stays at zero, whatever stands there and whatever the turn.
    heads["headings"][1] = 90
    assert fit_heads(heads, geometry.turn_map(30), 100)["headings"][1] == 0


@pytest.mark.parametrize("degrees", [-170, -61, -59, 0, 30, 59, 61, 90, 180])
def test_a_head_that_comes_to_lie_loses_its_heading_alone(degrees):
    heads = record(
        [[40, 40, 60, 60]],
        rotations=axis_rotation("x", 20.0).astype(np.float32)[None],
        headings=np.array([40], np.float32),
        has_heading=np.array([True]),
    )
    turned = geometry.compose(geometry.shift_map(-50, -50), geometry.turn_map(degrees))
    for first in (geometry.shift_map(0, 0), geometry.mirror_map(100)):
        matrix = geometry.compose(geometry.compose(first, turned), geometry.shift_map(50, 50))
        fitted = fit_heads(heads, matrix, 100)
        assert fitted["has_heading"].tolist() == [abs(degrees) < 60]
        assert fitted["has_pose"].tolist() == [True]
        expected = axis_rotation("z", degrees) @ axis_rotation("x", 20.0)
        np.testing.assert_allclose(fitted["rotations"][0], expected, atol=1e-6)


def test_an_image_without_heads_is_a_record(rng):
    fitted = augment_record(record([]), rng, 64, AugmentOptions())
    padded = pad_heads(fitted, 3)
    assert fitted["boxes"].shape == (0, 4)
    assert not padded["valid"].any()
    assert padded["dropped"] == 0


def test_augmented_boxes_lie_in_the_input(rng):
    boxes = np.concatenate([rng.uniform(0, 50, (20, 2)), rng.uniform(51, 80, (20, 2))], axis=1)
    for _ in range(30):
        fitted = augment_record(record(boxes), rng, 64, AugmentOptions(scale_max=3.0, shift=0.5))
        assert (fitted["boxes"] >= 0).all()
        assert (fitted["boxes"] <= 64).all()
        assert (fitted["boxes"][:, 2:] > fitted["boxes"][:, :2]).all()
        assert fitted["boxes"].dtype == np.float32
        assert fitted["rotations"].dtype == np.float32
        assert fitted["headings"].dtype == np.float32


@pytest.mark.parametrize("kind", [".jpg", ".png", "turned .jpg"])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (403, 611), (1001, 999), (64, 48)])
def test_images_decoded_small_are_the_same_images(rng, width, height, kind):
    """Against the whole image under the same map, whatever factor the decoder shrinks by."""
    noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    scene = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    encoded = cv2.imencode(kind[-4:], scene)[1].tobytes()
    if kind == "turned .jpg":
        encoded = with_orientation(encoded, 6)
    whole = decode_image(encoded)
    assert whole.shape[:2] == ((width, height) if kind == "turned .jpg" else (height, width))
    middle = np.array([whole.shape[1], whole.shape[0]] * 2) * [0.4, 0.4, 0.6, 0.6]
    heads = record(middle, image=encoded)
    size, options = (
        64,
        NO_AUGMENTATION._replace(flip=0.5, turn=30, scale_min=0.4, scale_max=2, shift=0.2),
    )
    for seed in range(6):
        found = augment_record(heads, np.random.default_rng(seed), size, options)
        matrix = geometry.compose(
            geometry.letterbox_map(whole.shape[1], whole.shape[0], size),
            random_map(np.random.default_rng(seed), size, options),
        )
        # Within the image: at its border the grey is mixed in differently.
        inside = cv2.warpAffine(np.ones(whole.shape[:2], np.float32), matrix, (size, size))
        inside = cv2.erode(inside, np.ones((5, 5))) > 0.999
        # Mean difference from a finely sampled image, in place and shifted by half a pixel.
        errors = {}
        for dx in (0, -0.5, 0.5):
            fine = geometry.compose(matrix, geometry.shift_map(dx, 0))
            fine = geometry.map_image(
                whole, geometry.compose(fine, geometry.scale_map(8)), 8 * size
            )
            fine = fine.reshape(size, 8, size, 8, 3).mean(axis=(1, 3))
            errors[dx] = np.abs(found["image"] - fine)[inside].mean()
        assert errors[0] < 0.3 * min(errors[-0.5], errors[0.5])
        np.testing.assert_allclose(
            found["boxes"], np.clip(geometry.map_boxes(middle, matrix), 0, size), atol=1e-4
        )


def test_an_image_that_cannot_be_decoded_is_named(rng):
    for content in (b"", b"junk", plain_image(200, 100)[:300]):
        with pytest.raises(BadRecord, match=r"'image' of 'test'"):
            augment_record(record([], image=content), rng, 32, NO_AUGMENTATION)


# --- padding -------------------------------------------------------------------------------------


def test_padding_keeps_the_largest_first_and_counts_the_rest():
    sides = [4, 9, 2, 7, 5]
    fitted = {
        "image": np.zeros((100, 100, 3), np.uint8),
        **letterboxed(record([[1, 1, 1 + s, 1 + s] for s in sides]), 100, 100, 100),
    }
    padded = pad_heads(fitted, 3)
    np.testing.assert_allclose(padded["boxes"][:, 2] - 1, [9, 7, 5], atol=1e-5)
    assert padded["labels"].tolist() == [1, 3, 4]
    assert padded["valid"].tolist() == [True, True, True]
    assert padded["dropped"] == 2

    roomy = pad_heads(fitted, 8)
    assert roomy["valid"].tolist() == [True] * 5 + [False] * 3
    assert roomy["dropped"] == 0
    assert not roomy["boxes"][5:].any()
    np.testing.assert_array_equal(roomy["rotations"][5:], np.tile(np.eye(3), (3, 1, 1)))
    assert not roomy["has_pose"][5:].any()
    assert not roomy["headings"][5:].any()
    assert not roomy["has_heading"][5:].any()


def test_cells_of_heads_without_a_slot_are_known():
    """Of two heads the smaller finds no slot; what it touches is counted by hand."""
    boxes = np.array([[0, 0, 30, 30], [40, 9, 47, 17]], np.float32)
    fitted = letterboxed(record(boxes), 64, 64, 64)
    padded = pad_heads({"image": np.zeros((64, 64, 3), np.uint8), **fitted}, 1)
    coarse, middle, fine = np.split(padded["unlabelled"], [4, 20])
    assert np.argwhere(coarse.reshape(2, 2)).tolist() == [[0, 1]]
    assert np.argwhere(middle.reshape(4, 4)).tolist() == [[0, 2], [1, 2]]
    assert np.argwhere(fine.reshape(8, 8)).tolist() == [[1, 5], [2, 5]]
    assert not pad_heads({"image": padded["image"], **fitted}, 2)["unlabelled"].any()


def test_padding_keeps_the_fields_of_a_head_together():
    rotations = axis_rotation("y", np.array([10.0, 20.0, 30.0])).astype(np.float32)
    heads = record(
        [[0, 0, 5, 5], [0, 0, 50, 50], [0, 0, 20, 20]],
        rotations=rotations,
        has_pose=np.array([True, True, False]),
        ignore=np.array([False, True, False]),
        headings=np.array([10, 0, 30], np.float32),
        has_heading=np.array([True, False, True]),
    )
    padded = pad_heads({**heads, "image": np.zeros((9, 9, 3), np.uint8)}, 4)
    assert padded["labels"].tolist() == [1, 2, 0, 0]
    np.testing.assert_array_equal(padded["rotations"][:3], rotations[[1, 2, 0]])
    assert padded["has_pose"].tolist() == [True, False, True, False]
    assert padded["ignore"].tolist() == [True, False, False, False]
    assert padded["headings"].tolist() == [0, 30, 10, 0]
    assert padded["has_heading"].tolist() == [False, True, True, False]


# --- real files ----------------------------------------------------------------------------------


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
