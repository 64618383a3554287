"""AVIF images that their container turns and mirrors, against Pillow and rules written by hand."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from mtnet_jax.data.avif import as_shown, is_avif
from mtnet_jax.data.images import decode_image, decode_shrunk, image_size

if not features.check("avif"):
    pytest.skip("this Pillow cannot write AVIF", allow_module_level=True)

CODED = np.zeros((40, 80, 3), np.uint8)  # red, green above; blue, white below
CODED[:20, :40, 0] = CODED[:20, 40:, 1] = CODED[20:, :40, 2] = CODED[20:, 40:] = 255
# How EXIF's orientations show a stored image; Pillow writes them as `irot` and `imir`.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}
CLOSE = 3  # levels of 255 on the mean: at the edges colours run


def avif(orientation: int, exif: int = 0) -> bytes:
    """CODED, turned by the container, and of another orientation by EXIF."""
    told, file = Image.Exif(), io.BytesIO()
    told[0x112] = orientation
    if exif:
        told[0x128] = exif  # Pillow takes the orientation out: another entry becomes it
    Image.fromarray(CODED).save(file, "AVIF", quality=100, exif=told)
    data = file.getvalue()
    assert not exif or data.count(b"\x01\x28\x00\x03") == 1
    return data.replace(b"\x01\x28\x00\x03", b"\x01\x12\x00\x03")


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def assert_shows(image: np.ndarray, expected: np.ndarray) -> None:
    assert image.shape == expected.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).mean() < CLOSE


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("exif", [0, 6])  # EXIF says nothing of how an AVIF is shown
def test_images_are_turned_as_their_container_says(orientation, exif):
    data = avif(orientation, exif)
    image, expected = decode_image(data), SHOWN[orientation](CODED)
    assert_shows(image, expected)
    assert_shows(image, by_pillow(data))
    assert image_size(data) == expected.shape[1::-1]
    shrunk = decode_shrunk(data, 1)
    np.testing.assert_array_equal(shrunk.pixels, image)
    assert (shrunk.width, shrunk.height) == expected.shape[1::-1]


def box(kind: bytes, *content: bytes, wide: bool = False) -> bytes:
    inside = b"".join(content)
    if wide:
        return struct.pack(">I4sQ", 1, kind, len(inside) + 16) + inside
    return struct.pack(">I4s", len(inside) + 8, kind) + inside


@pytest.mark.parametrize("long", [False, True])
def test_the_primary_item_alone_counts_in_short_and_long_fields(long):
    """Item 1 is another image, of a turn of its own; item 2 is the one that is shown."""
    name, entry = (">I", ">H") if long else (">H", ">B")
    head = struct.pack(">I", (1 << 24 | 1) if long else 0)

    def of(item, *entries):
        return struct.pack(name, item) + bytes([len(entries)]) + b"".join(entries)

    numbers = [struct.pack(entry, n | (0x8000 if long else 0x80)) for n in (1, 2, 3)]
    container = box(b"ipco", box(b"irot", b"\x02"), box(b"irot", b"\x01"), box(b"imir", b"\x00"))
    listed = box(b"ipma", head, struct.pack(">I", 2), of(1, numbers[0]), of(2, *numbers[1:]))
    primary = box(b"pitm", head, struct.pack(name, 2))
    data = box(b"ftyp", b"mif1\0\0\0\0avif") + box(
        b"meta", b"\0\0\0\0", primary, box(b"iprp", container, listed), wide=long
    )
    assert is_avif(data)
    np.testing.assert_array_equal(as_shown(CODED, data), CODED.transpose(1, 0, 2))


def test_damaged_containers_turn_nothing_or_something_but_never_fail():
    data = avif(7)
    rng, header = np.random.default_rng(0), data.index(b"mdat")
    for cut in range(header):
        assert as_shown(CODED, data[:cut]).size == CODED.size
    for _ in range(2000):
        hurt = bytearray(data[:header])
        for place in rng.integers(0, header, 4):
            hurt[place] = rng.integers(256)
        assert as_shown(CODED, bytes(hurt)).size == CODED.size


def test_other_files_are_no_avif():
    for data in (b"", b"ftyp", b"\xff\xd8\xff\xe0avif", box(b"ftyp", b"heic\0\0\0\0mif1")):
        assert not is_avif(data)
