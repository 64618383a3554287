"""How an AVIF image is turned and mirrored when it is shown: its container says so, not EXIF.

ISO/IEC 14496-12 (boxes) and 23008-12 (properties of an image): `meta` names the primary item
(`pitm`), and `iprp` holds properties (`ipco`) with a list of those of each item (`ipma`).
"""

from collections.abc import Iterator

import numpy as np

_BRANDS = (b"avif", b"avis")
_NUMBER = {1: 0x7F, 2: 0x7FFF}  # bits of an entry of `ipma` of so many bytes; one is a flag


def is_avif(encoded: bytes) -> bool:
    """Whether a file says of itself that it is AVIF."""
    size = int.from_bytes(encoded[:4])
    brands = [encoded[i : i + 4] for i in range(8, min(size, len(encoded)), 4)]
    return encoded[4:8] == b"ftyp" and any(brand in brands for brand in _BRANDS)


def as_shown(image: np.ndarray, encoded: bytes) -> np.ndarray:
    """A decoded image turned and mirrored as its AVIF file says.

    Args:
      image: (H, W, ...) as coded.
      encoded: the file. What of it is damaged turns nothing.

    Returns:
      The image as a viewer shows it, contiguous.
    """
    shown = image
    for kind, content in _properties(encoded):
        value = content[0] if content else 0
        if kind == b"irot":
            shown = np.rot90(shown, value & 3)  # against the clock
        elif kind == b"imir":
            shown = shown[:, ::-1] if value & 1 else shown[::-1]
    return np.ascontiguousarray(shown)


def _properties(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the properties of the primary item, in the order of their use."""
    meta = dict(_boxes(dict(_boxes(encoded)).get(b"meta", b"")[4:]))
    primary = meta.get(b"pitm", b"")
    item = int.from_bytes(primary[4 : 8 if primary[:1] > b"\0" else 6])
    parts = dict(_boxes(meta.get(b"iprp", b"")))
    properties = list(_boxes(parts.get(b"ipco", b"")))
    for number in _associated(parts.get(b"ipma", b""), item):
        if 1 <= number <= len(properties):
            yield properties[number - 1]


def _associated(ipma: bytes, item: int) -> Iterator[int]:
    """Numbers, from 1, of the properties that an item has."""
    named = 4 if ipma[:1] > b"\0" else 2  # bytes of the name of an item
    wide = 2 if int.from_bytes(ipma[1:4]) & 1 else 1  # bytes of an entry
    position = 8
    while position + named < len(ipma):
        name = int.from_bytes(ipma[position : position + named])
        start = position + named + 1
        position = start + wide * ipma[start - 1]
        if name == item:
            for at in range(start, position, wide):
                yield int.from_bytes(ipma[at : at + wide]) & _NUMBER[wide]


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box."""
    position = 0
    while position + 8 <= len(content):
        length, header = int.from_bytes(content[position : position + 4]), 8
        kind = content[position + 4 : position + 8]
        if length == 1:  # it is said in 8 bytes
            length, header = int.from_bytes(content[position + 8 : position + 16]), 16
        if length == 0:  # to the end
            length = len(content) - position
        if length < header:
            return
        yield kind, content[position + header : position + length]
        position += length
