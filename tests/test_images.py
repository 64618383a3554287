"""Encoded images to arrays: damage is judged by the decoder, depth by what is used."""

import cv2
import numpy as np
import pytest

from mtnet_jax.data.images import decode_image, decode_shrunk, storable
from mtnet_jax.errors import BadRecord
from tests.conftest import REPOSITORY

ODD = REPOSITORY / "tests" / "odd"
END = b"\xff\xd9"
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "restart markers": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    "no subsampling": [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
}


def scene(height=191, width=253) -> np.ndarray:
    """Noise of some coarseness: every block has its own bits."""
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_damage_whatever_the_end_says(kind):
    data = cv2.imencode(".jpg", scene(), KINDS[kind])[1].tobytes()
    assert decode_image(data).shape == (191, 253, 3)
    size = len(data)
    for start in (0.4, 0.6, 0.8):
        hole = data[: int(start * size)] + data[int((start + 0.15) * size) :]
        assert hole.endswith(END)
        with pytest.raises(BadRecord, match="damaged or cut short"):
            decode_image(hole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_without_its_end_marker_is_whole(kind):
    data = cv2.imencode(".jpg", scene(), KINDS[kind])[1].tobytes()
    for cut in (data[:-2], data[:-1]):
        np.testing.assert_array_equal(decode_image(cut), decode_image(data))
        np.testing.assert_array_equal(decode_shrunk(cut, 60).pixels, decode_shrunk(data, 60).pixels)
    with pytest.raises(BadRecord, match="cut short"):
        decode_shrunk(data[: len(data) * 3 // 4], 60)


def test_grey_and_four_channel_jpegs_and_other_trailers_are_whole():
    data = cv2.imencode(".jpg", scene()[..., 0])[1].tobytes()
    for trailer in (b"", b"\0" * 99, data, b"\xff" * 8):
        assert decode_image(data + trailer).shape == (191, 253, 3)


def test_the_hole_that_was_predicted_on():
    with pytest.raises(BadRecord, match="damaged"):
        decode_image((ODD / "a_hole_end_kept.jpg").read_bytes())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_deep_images_are_brought_to_eight_bits_by_what_is_used(bits, suffix):
    grey = np.tile(np.arange(256, dtype=np.uint16), (4, 1))
    deep = np.minimum(grey << (bits - 8), 2**bits - 1).astype(np.uint16)
    decoded = decode_image(cv2.imencode(suffix, deep)[1].tobytes())
    np.testing.assert_array_equal(decoded, np.dstack([grey.astype(np.uint8)] * 3))


def test_odd_depths():
    assert 160 < decode_image((ODD / "twelve_in_sixteen.png").read_bytes()).mean() < 180
    assert 160 < decode_image((ODD / "float01.tif").read_bytes()).mean() < 180
    wild = cv2.imencode(".tiff", np.full((4, 4), 300.0, np.float32))[1].tobytes()
    with pytest.raises(BadRecord, match="300"):
        decode_image(wild)


def test_records_hold_jpeg_and_png_of_eight_bits():
    image = scene(20, 30)
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    assert storable(png, image) == png
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    assert storable(jpeg[:-2], image) == jpeg[:-2] + END
    for other in (
        cv2.imencode(".tiff", image[..., ::-1])[1].tobytes(),
        cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes(),
    ):
        stored = storable(other, image)
        assert stored.startswith(b"\x89PNG")
        np.testing.assert_array_equal(decode_image(stored), image)
