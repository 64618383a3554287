"""Which files are images or videos by their endings, and what folders hold, nothing uncounted."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
IMAGE_SUFFIXES = (
    *JPEG_SUFFIXES,
    *(".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2"),
    *(".pbm", ".pgm", ".ppm", ".pnm"),
)
# Formats of images that OpenCV may be built without: the file itself says whether it can be read.
DOUBTFUL_SUFFIXES = (".heic", ".heif", ".jxl", ".exr", ".hdr", ".ras", ".sr", ".pxm", ".pfm")
# What FFmpeg reads; some of these hold one image after another and nothing else (.h264, .y4m).
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".mkv", ".mk3d", ".webm", ".avi"),
    *(".divx", ".wmv", ".asf", ".flv", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".mod", ".tod"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".tp", ".trp", ".m3u8", ".mxf", ".dv", ".dif", ".wtv"),
    *(".ogv", ".ogg", ".ogm", ".rm", ".rmvb", ".nut", ".ivf", ".mjpeg", ".mjpg", ".m1v", ".m2v"),
    *(".mpv", ".y4m", ".h264", ".264", ".h265", ".265", ".hevc", ".obu"),
)
NO_IMAGE = "no image"  # how the reason of such a file begins
_OTHER_SYSTEMS = ("thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx")


@dataclass
class Listing:
    """Images of folders, and what lies there besides.

    Attributes:
      images: in order.
      left_out: reason -> number of files.
    """

    images: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """What was left out, in one line; empty where nothing was."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        return f"left out: {reasons}" if reasons else ""


def list_images(folder: Path, *, but: Path | None = None) -> Listing:
    """The images in a folder and below, sorted; linked folders are followed, each once.

    Args:
      folder: where to look.
      but: a folder below that is not looked into, such as that of overlays.
    """
    listing = Listing()
    for path in _files(folder, listing.left_out, but):
        reason = _why_not(path)
        if reason:
            listing.left_out[reason] += 1
        else:
            listing.images.append(path)
    listing.images.sort()
    return listing


def jpegs_in(folder: Path) -> list[Path]:
    """The JPEG files of a folder alone, sorted, .JPG among them and no ._NAME.jpg of a Mac."""
    return sorted(
        path
        for path in folder.glob("*")
        if path.suffix.lower() in JPEG_SUFFIXES and not is_of_another_system(path)
    )


def is_of_another_system(path: Path) -> bool:
    """Whether a file is one that systems leave in folders: ._NAME, .DS_Store, Thumbs.db, ..."""
    return path.name.startswith(".") or path.name.lower() in _OTHER_SYSTEMS


def is_utf8(name: str) -> bool:
    """Whether a file name is text: other bytes stand in it as halves of a character."""
    return name == name.encode(errors="replace").decode()


def _files(folder: Path, left_out: Counter[str], but: Path | None) -> Iterator[Path]:
    seen = set()

    def cannot_open(_: OSError) -> None:
        left_out["folders that cannot be opened"] += 1

    for place, folders, files in os.walk(folder, followlinks=True, onerror=cannot_open):
        real = os.path.realpath(place)
        if real in seen:
            left_out["folders linked a second time"] += 1
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # of two links to a folder the same one is followed everywhere
        if but is not None and place != str(folder) and real == os.path.realpath(but):
            left_out["in the folder for the output"] += len(files)
            folders.clear()
            continue
        for name in [name for name in folders if is_of_another_system(Path(name))]:
            folders.remove(name)
            left_out["hidden folders"] += 1
        yield from (Path(place, name) for name in files)


def _why_not(path: Path) -> str:
    """Why a file is no image; empty if it is one."""
    suffix = path.suffix.lower()
    if is_of_another_system(path):
        return "hidden or of another system (._NAME, Thumbs.db, ...)"
    if not path.exists():
        return "links that lead nowhere"
    if not path.is_file():  # reading one might never end
        return "pipes, sockets or devices"
    if suffix in IMAGE_SUFFIXES:
        return ""
    if suffix in DOUBTFUL_SUFFIXES:
        # At a name that is not UTF-8 OpenCV crashes: such a file is judged when it is read.
        readable = not is_utf8(str(path)) or cv2.haveImageReader(str(path))
        return "" if readable else f"of a format that cannot be read ({suffix}): convert to PNG"
    return f"{NO_IMAGE} ({suffix or 'no suffix'})"
