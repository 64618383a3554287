"""Encoded images (JPEG, PNG, whatever OpenCV reads) to arrays, whole or no larger than needed."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import av
import cv2
import numpy as np

from mtnet_jax.data.avif import as_shown, is_avif
from mtnet_jax.errors import BadRecord

# A marker that is no escaped 0xFF of coded data (00), no restart (D0 to D7) and no filling (FF).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_END, _JPEG_EXIF = 0xD9, 0xE1
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers that give the size
_JPEG_JUDGED = (0xC0, 0xC1, 0xC2)  # kinds of coding that FFmpeg knows too: with Huffman's codes
_END_MARKER = bytes((0xFF, _JPEG_END))
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # beginning of a file, place of the bits a channel
_BITS = (8, 10, 12, 14, 16)  # that sensors give, in 16 of a file
MAX_PIXELS = 1 << 28  # more, and an image would take a GB: it was made to do harm, or by mistake
# The gray flags alone, with the flag of RGB: the colour flags that shrink hold the one of BGR.
_SHRUNK = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}


def decode_image(encoded: bytes) -> np.ndarray:
    """An encoded image (JPEG, PNG, whatever OpenCV reads) as (H, W, 3) uint8 RGB.

    Grey images become RGB, alpha is dropped, and the EXIF orientation is applied, of an AVIF that
    of its container: boxes refer to the image as a viewer shows it. More than 8 bits are brought to
    8: of 16 bits as many as are used (10, 12, 14 or 16), of floats 0 to 1.

    Raises:
      BadRecord: not an image, or a damaged one. A JPEG with a hole is one: OpenCV would fill it
        with grey. One that only lacks its end marker is whole.
    """
    _refuse_huge(encoded)
    encoded = _with_end(encoded)
    _check_jpeg(encoded)
    return _decode(encoded, cv2.IMREAD_COLOR_RGB)


def image_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of an encoded image as `decode_image` gives it.

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
    """An image that was decoded smaller than it is.

    Attributes:
      pixels: (ceil(height / factor), ceil(width / factor), 3) uint8 RGB.
      factor: 1, 2, 4 or 8 pixels of the whole image a pixel, along both sides.
      width, height: of the whole image.
    """

    pixels: np.ndarray
    factor: int
    width: int
    height: int


def decode_shrunk(encoded: bytes, longest: float) -> ShrunkImage:
    """Decodes an image no larger than needed, which costs less.

    A JPEG's blocks of 8 x 8 can be decoded to 4, 2 or 1 pixels a side; that is an image averaged
    down. Other formats are decoded whole. Otherwise as `decode_image`, but a JPEG that has its end
    is taken to be whole, which saves a second decoding: converting has judged it, and records have
    checksums.

    Args:
      encoded: the image.
      longest: its longer side keeps at least so many pixels, where it has them.
    """
    _refuse_huge(encoded)
    width, height, may_be_turned = _jpeg_header(encoded)
    ended = _with_end(encoded)
    if ended is not encoded:
        _check_jpeg(ended)
    factor = 1
    while factor < 8 and max(width, height) >= 2 * factor * longest:
        factor *= 2
    # The last pixels of sides that no factor divides reach beyond the image. Turned, those would
    # be the first ones.
    rounded = width % factor or height % factor
    if factor == 1 or (rounded and may_be_turned):
        pixels = _decode(ended, cv2.IMREAD_COLOR_RGB)
        return ShrunkImage(pixels, 1, pixels.shape[1], pixels.shape[0])
    pixels = _decode(ended, _SHRUNK[factor])
    if may_be_turned and pixels.shape[1] != width // factor:
        width, height = height, width
    return ShrunkImage(pixels, factor, width, height)


def decode_at_scale(encoded: bytes, scale: float) -> ShrunkImage:
    """As `decode_shrunk`, with at least `scale` pixels for each pixel of the whole image."""
    width, height, _ = _jpeg_header(encoded)
    # Of other formats no size is known here: they are decoded whole.
    return decode_shrunk(encoded, longest=scale * max(width, height) or math.inf)


def _decode(encoded: bytes, flags: int) -> np.ndarray:
    if not encoded:
        raise BadRecord("the image is empty (0 bytes)")
    # A JPEG has 8 bits and may be decoded smaller; of others the depth is seen when they are read.
    depth = 0 if _is_jpeg(encoded) else cv2.IMREAD_ANYDEPTH
    turned_here = is_avif(encoded)  # OpenCV knows nothing of its turns, and EXIF does not count
    flags |= cv2.IMREAD_IGNORE_ORIENTATION if turned_here else 0
    data = np.frombuffer(encoded, np.uint8)
    try:
        image = cv2.imdecode(data, flags | depth)
        if image is None and depth:
            # Grey floats of a TIFF are read as grey alone.
            grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | depth)
            image = None if grey is None else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    except cv2.error as error:
        raise BadRecord(f"OpenCV cannot decode the image: {error}") from error
    if image is None:
        raise BadRecord(
            f"OpenCV cannot decode the image ({len(encoded)} bytes): it is damaged, cut short, "
            "or of a format that OpenCV does not know"
        )
    image = as_shown(image, encoded) if turned_here else image
    return image if image.dtype == np.uint8 else eight_bits(image)


def _refuse_huge(encoded: bytes) -> None:
    """Raises BadRecord for a JPEG or PNG whose header asks for more pixels than any camera has."""
    width, height, _ = _jpeg_header(encoded)
    if encoded[:8] == _PNG:
        width, height = int.from_bytes(encoded[16:20]), int.from_bytes(encoded[20:24])
    if width * height > MAX_PIXELS:
        raise BadRecord(f"the image has {width} x {height} pixels, more than {MAX_PIXELS}")


def eight_bits(image: np.ndarray) -> np.ndarray:
    """More than eight bits, by the range that is used: cameras put 10 or 12 bits into 16."""
    if image.dtype.kind in "iu" and image.min() >= 0 and image.max() < 1 << 16:
        image = image.astype(np.uint16)
        used = int(image.max()).bit_length()
        bits = next(bits for bits in _BITS if bits >= used)
        return (image >> (bits - 8)).astype(np.uint8)
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise BadRecord(
            f"the image has values of {image.dtype} from {image.min():g} to {image.max():g}: "
            "save it with 8 or 16 bits, or as floats from 0 to 1"
        )
    return np.rint(image * 255).astype(np.uint8)


def _with_end(encoded: bytes) -> bytes:
    """A JPEG without its end marker gets one: without it decoders stop before what is there."""
    if _is_jpeg(encoded) and all(code != _JPEG_END for code, _ in _jpeg_segments(encoded)):
        return encoded + _END_MARKER
    return encoded


def storable(encoded: bytes, image: np.ndarray) -> bytes:
    """An encoded image as records hold it: JPEG with its end, or PNG of 8 bits a channel.

    Args:
      encoded: the image.
      image: the same, decoded.
    """
    if _is_jpeg(encoded):
        return _with_end(encoded)
    if encoded[:8] == _PNG and encoded[_PNG_DEPTH] <= 8:
        return encoded
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def _check_jpeg(encoded: bytes) -> None:
    """Raises BadRecord for a JPEG in whose coded data something is missing or wrong.

    OpenCV's decoder fills what it does not find and says so on standard error alone. That of FFmpeg
    can be told to stop instead; it takes a quarter of the time besides. A part of the very last
    block may lack, which is 16 pixels at a corner.
    """
    if not _is_jpeg(encoded):
        return
    if not any(code in _JPEG_JUDGED for code, _ in _jpeg_segments(encoded)):
        return
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    try:
        whole = bool(decoder.decode(av.Packet(encoded)) or decoder.decode(None))
    except av.PatchWelcomeError:  # a kind that FFmpeg does not know
        return
    except av.FFmpegError:
        whole = False
    if not whole:
        raise BadRecord(f"the JPEG is damaged or cut short ({len(encoded)} bytes): copy it again")


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
