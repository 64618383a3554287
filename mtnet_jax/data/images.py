"""Encoded pictures (JPEG, PNG, whatever OpenCV reads) to arrays, whole or no larger than needed."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from mtnet_jax.errors import BadRecord

# A marker that is no escaped 0xFF of coded data (00), no restart (D0 to D7) and no filling (FF).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_END, _JPEG_EXIF = 0xD9, 0xE1
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers that give the size
# The gray flags alone, with the flag of RGB: the colour flags that shrink hold the one of BGR.
_SHRUNK = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}


def decode_image(encoded: bytes) -> np.ndarray:
    """An encoded picture (JPEG, PNG, whatever OpenCV reads) as (H, W, 3) uint8 RGB.

    Grey pictures become RGB, alpha is dropped, and the EXIF orientation is applied: boxes refer to
    the picture as a viewer shows it.

    Raises:
      BadRecord: not a picture, or a JPEG that was cut short (OpenCV would fill it with grey).
    """
    return _decode(encoded, cv2.IMREAD_COLOR_RGB)


def image_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture as `decode_image` gives it.

    The header of a JPEG or PNG tells it. A JPEG that EXIF may turn, and other formats, are decoded.

    Raises:
      BadRecord: see `decode_image`.
    """
    width, height, may_be_turned = _jpeg_header(encoded)
    if width and height and not may_be_turned:
        return width, height
    if encoded[:8] == _PNG and encoded[12:16] == b"IHDR" and b"eXIf" not in encoded:
        return int.from_bytes(encoded[16:20]), int.from_bytes(encoded[20:24])
    height, width = decode_image(encoded).shape[:2]
    return width, height


class ShrunkImage(NamedTuple):
    """A picture that was decoded smaller than it is.

    Attributes:
      pixels: (ceil(height / factor), ceil(width / factor), 3) uint8 RGB.
      factor: 1, 2, 4 or 8 pixels of the whole picture a pixel, along both sides.
      width, height: of the whole picture.
    """

    pixels: np.ndarray
    factor: int
    width: int
    height: int


def decode_shrunk(encoded: bytes, longest: float) -> ShrunkImage:
    """Decodes a picture no larger than needed, which costs less.

    A JPEG's blocks of 8 x 8 can be decoded to 4, 2 or 1 pixels a side; that is a picture averaged
    down. Other formats are decoded whole. Otherwise as `decode_image`.

    Args:
      encoded: the picture.
      longest: its longer side keeps at least so many pixels, where it has them.
    """
    width, height, may_be_turned = _jpeg_header(encoded)
    factor = 1
    while factor < 8 and max(width, height) >= 2 * factor * longest:
        factor *= 2
    # The last pixels of sides that no factor divides reach beyond the picture. Turned, those would
    # be the first ones.
    rounded = width % factor or height % factor
    if factor == 1 or (rounded and may_be_turned):
        pixels = decode_image(encoded)
        return ShrunkImage(pixels, 1, pixels.shape[1], pixels.shape[0])
    pixels = _decode(encoded, _SHRUNK[factor])
    if may_be_turned and pixels.shape[1] != width // factor:
        width, height = height, width
    return ShrunkImage(pixels, factor, width, height)


def decode_at_scale(encoded: bytes, scale: float) -> ShrunkImage:
    """As `decode_shrunk`, with at least `scale` pixels for each pixel of the whole picture."""
    width, height, _ = _jpeg_header(encoded)
    # Of other formats no size is known here: they are decoded whole.
    return decode_shrunk(encoded, longest=scale * max(width, height) or math.inf)


def _decode(encoded: bytes, flags: int) -> np.ndarray:
    if not encoded:
        raise BadRecord("the picture is empty (0 bytes)")
    if _is_jpeg(encoded) and all(code != _JPEG_END for code, _ in _jpeg_segments(encoded)):
        raise BadRecord(f"the JPEG is cut short ({len(encoded)} bytes, no end marker)")
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise BadRecord(f"OpenCV cannot decode the picture: {error}") from error
    if image is None:
        raise BadRecord(f"OpenCV cannot decode the picture ({len(encoded)} bytes)")
    return image


def _is_jpeg(encoded: bytes) -> bool:
    return encoded[:3] == b"\xff\xd8\xff"


def _jpeg_header(encoded: bytes) -> tuple[int, int, bool]:
    """Width and height of a JPEG as coded, and whether EXIF may turn it; zeros if it is none."""
    exif = False
    if _is_jpeg(encoded):
        for code, position in _jpeg_segments(encoded):
            exif |= code == _JPEG_EXIF
            if code in _JPEG_FRAMES:  # length (2 bytes), precision (1), height, width
                height = int.from_bytes(encoded[position + 3 : position + 5])
                return int.from_bytes(encoded[position + 5 : position + 7]), height, exif
    return 0, 0, exif


def _jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Marker code and place of the content of each segment of a JPEG, up to its end marker.

    Looking for a marker's two bytes anywhere is not enough: thumbnails inside and videos that
    phones append hold them too.
    """
    position = 2  # after the start-of-image marker
    while marker := _JPEG_MARKER.search(encoded, position):
        code, position = encoded[marker.end() - 1], marker.end()
        yield code, position
        if code == _JPEG_END:
            return
        # The segment's length; coded data that follow a scan's header are skipped by the search.
        position += int.from_bytes(encoded[position : position + 2])
