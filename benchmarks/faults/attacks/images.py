"""Images that claim, or are, more than memory holds."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.attacks.attack import Attack


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def _png(width: int, height: int, *, real: bool = False) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        pixels = zlib.compress(b"\0")
        if real:
            packer = zlib.compressobj(1)
            row = bytes(1 + 3 * width)
            pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
        (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

    return write


def _jpeg_header(folder: Path) -> None:
    import cv2

    small = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    place = small.index(b"\xff\xc0")
    small[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    (folder / "image.jpg").write_bytes(small)


def _tiff(folder: Path) -> None:
    sides = [(256, 4, 2**31 - 1), (257, 4, 2**31 - 1), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries = sorted([*sides, (273, 4, 8), (277, 3, 1), (278, 4, 2**31 - 1), (279, 4, 16)])
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    header = b"II*\0" + struct.pack("<I", 24) + bytes(16)
    (folder / "image.tif").write_bytes(header + body + bytes(4))


def _image(folder: Path) -> Any:
    from mtnet_jax.data.images import decode_image

    (path,) = folder.glob("image.*")
    return decode_image(path.read_bytes()).shape


ATTACKS = [
    Attack("PNG of 60,000 x 60,000", _png(60_000, 60_000), _image),
    Attack("PNG of 2^31 x 2^31", _png(2**31 - 1, 2**31 - 1), _image),
    Attack("PNG of 1.2 GB of zeros in 6 MB", _png(20_000, 20_000, real=True), _image),
    Attack("JPEG of 65,500 x 65,500", _jpeg_header, _image),
    Attack("TIFF of 2^31 x 2^31", _tiff, _image),
]
