"""Which files are images, and what is said of the others."""

import os

import cv2
import numpy as np
import pytest

from mtnet_jax.data.images import decode_image
from mtnet_jax.data.listing import IMAGE_SUFFIXES, jpegs_in, list_images

GREY = np.full((64, 64, 3), 99, np.uint8)


def put(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [s for s in IMAGE_SUFFIXES if s not in (".gif", ".mpo")])
def test_every_listed_format_is_read(suffix):
    written = {".jfif": ".jpg", ".pbm": ".pgm"}.get(suffix, suffix)
    image = GREY[..., 0] if written == ".pgm" else GREY
    encoded = cv2.imencode(written, image)[1].tobytes()
    assert np.abs(decode_image(encoded).astype(int) - 99).max() < 8


def test_suffixes_count_alike_in_capitals(tmp_path):
    for name in ("a.JPG", "b.jpg", "c.Jfif", "d.MPO", "e.gif", "f.TIFF", "g.avif", "h.jp2"):
        put(tmp_path / name)
    assert [p.name[0] for p in list_images(tmp_path).images] == list("abcdefgh")


def test_jpegs_of_a_folder(tmp_path):
    for name in ("b.jpg", "A.JPG", "c.jpeg", "._a.jpg", "d.png", "e.mat"):
        (tmp_path / name).touch()
    assert [path.name for path in jpegs_in(tmp_path)] == ["A.JPG", "b.jpg", "c.jpeg"]


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    for name in ("a.jpg", "._a.jpg", "Thumbs.db", ".DS_Store", "notes.txt", "b.TXT", "clip.mp4"):
        put(tmp_path / name)
    put(tmp_path / "__MACOSX" / "a.jpg")
    put(tmp_path / "real.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    put(tmp_path / "jpeg_inside.heic", cv2.imencode(".jpg", GREY)[1].tobytes())
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    listing = list_images(tmp_path)
    assert [p.name for p in listing.images] == ["a.jpg", "jpeg_inside.heic"]
    said = str(listing)
    for part in (
        "3 hidden or of another system",
        "2 no image (.txt)",
        "1 no image (.mp4)",
        "1 of a format that cannot be read (.heic)",
        "1 links that lead nowhere",
        "1 hidden folders",
    ):
        assert part in said
    assert str(list_images(put(tmp_path / "only" / "a.png").parent)) == ""


def test_linked_folders_are_followed_once(tmp_path):
    put(tmp_path / "store" / "a.jpg")
    folder = tmp_path / "images"
    put(folder / "b.jpg")
    (folder / "one").symlink_to(tmp_path / "store")
    (folder / "two").symlink_to(tmp_path / "store")
    (folder / "round").symlink_to(folder)
    listing = list_images(folder)
    assert [str(p.relative_to(folder)) for p in listing.images] == ["b.jpg", "one/a.jpg"]
    assert listing.left_out["folders linked a second time"] == 2


def test_the_folder_for_the_output_is_left_out_and_counted(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "drawn" / "a.png")
    listing = list_images(tmp_path, but=tmp_path / "drawn")
    assert [p.name for p in listing.images] == ["a.png"]
    assert listing.left_out == {"in the folder for the output": 1}


def test_what_may_never_end_is_no_image(tmp_path):
    put(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to("/dev/zero")
    listing = list_images(tmp_path)
    assert [path.name for path in listing.images] == ["a.jpg"]
    assert listing.left_out == {"pipes, sockets or devices": 2}
