"""Image files in, overlays and JSON out: what `mtnet predict` does with images."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mtnet_jax.data.listing import (
    DOUBTFUL_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Listing,
    is_utf8,
    list_images,
)
from mtnet_jax.errors import BadInput, BadRecord, MissingFile, Unavailable
from mtnet_jax.outputs import JsonLines, JsonList, Outputs
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.head import Head, as_arrays, heads_to_json
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.predict.window import Window

STANDARD_OUTPUT = Path("-")
# Files of these may hold pages, or the frames of an animation.
_MANY_SUFFIXES = (".gif", ".webp", ".png", ".tif", ".tiff", ".avif")


def find_images(
    inputs: Iterable[str | os.PathLike], *, leave_out: str | os.PathLike | None = None
) -> Listing:
    """Files as they are; folders become the images in them and below, sorted.

    An input that does not exist stays in the list: reading it fails, and is reported then. Overlays
    and crops that `mtnet predict` made earlier are left out, unless a folder holds no other images.

    Args:
      inputs: files and folders.
      leave_out: a folder below an input folder that is not looked into: the overlays of an earlier
        run.

    Returns:
      The images, each once, and what was left out.

    Raises:
      FileNotFoundError: a folder without images.
    """
    found, earlier = Listing(), Outputs("predict")
    for entry in map(Path, inputs):
        if not entry.is_dir():
            found.images.append(entry)
            continue
        inside = list_images(entry, but=None if leave_out is None else Path(leave_out))
        if not inside.images:
            raise MissingFile(
                f"No image in the folder {entry} (looked for {', '.join(IMAGE_SUFFIXES)})"
                + (f"; {inside}." if inside.left_out else ".")
            )
        made = {path for path in inside.images if earlier.made(path)}
        if len(made) < len(inside.images):
            inside.images = [path for path in inside.images if path not in made]
            inside.left_out.update({"made by an earlier run": len(made)} if made else {})
        found.images += inside.images
        found.left_out += inside.left_out
    once = dict.fromkeys(found.images)
    if len(once) < len(found.images):
        found.left_out["named a second time"] = len(found.images) - len(once)
    return Listing(list(once), found.left_out)


def predict_files(
    predictor: Predictor,
    images: list[Path],
    *,
    out: Path | None,
    json_file: Path | None,
    lines_file: Path | None = None,
    cube: bool = False,
    batch_size: int = 1,
    more: Callable[[Path, np.ndarray, list[Head], str], None] | None = None,
    window: Window | None = None,
    outputs: Outputs | None = None,
) -> list[Path]:
    """Predicts image files; writes overlays, a JSON list and JSON lines as it goes.

    Args:
      predictor: the network.
      images: files.
      out: folder for overlays (PNG, the image's name; a counter where names repeat), or None.
      json_file: file for the heads of all images as one list, "-" for standard output, or None.
      lines_file: the same as JSON lines, an object an image.
      cube: draw a cube round each head too.
      batch_size: images a call of the network.
      more: is given the name of each overlay, its image, its heads and the input, to write more.
      window: shows each overlay until a key is pressed; its end does not end the rest.
      outputs: of the run of the command; None: these images are all that it reads.

    Returns:
      The files that could not be read; each was reported on stderr, the others went on.

    Raises:
      FileInTheWay: something that this command did not make stands where it would write.
      BadInput: an image lies in `out` itself, where an overlay could replace it.
      OSError: something cannot be written.
    """
    outputs = outputs or Outputs("predict", images)
    names = overlay_names(outputs, images, out)
    failed: list[Path] = []
    with contextlib.ExitStack() as opened:
        # What cannot be written is said before the work.
        sinks = [
            opened.enter_context(_json_sink(outputs, path, form))
            for path, form in ((json_file, JsonList), (lines_file, JsonLines))
            if path is not None
        ]
        for batch in _batches(_readable(images, failed), batch_size):
            found = predictor.predict_batch([image for _, image in batch])
            for (path, image), heads in zip(batch, found, strict=True):
                if path in names or window is not None:
                    overlay = draw_heads(image, as_arrays(heads), cube=cube)
                if path in names:
                    of = str(path.resolve())
                    write_image(outputs, names[path], overlay, of)
                    if more is not None:
                        more(names[path], image, heads, of)
                if window is not None and not window.show(overlay, wait=True):
                    window.close()
                    window = None
                entry = heads_to_json(image, heads, predictor.class_names)
                for sink in sinks:
                    sink.append({"image": str(path), **entry})
    return failed


def _readable(images: list[Path], failed: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Images that can be read, with progress; the others are reported, and added to `failed`."""
    several = 0
    for path in tqdm(images, unit="image", disable=len(images) < 2):
        try:
            image = read_image(path)
        except (OSError, BadRecord) as error:
            tqdm.write(f"cannot read an image: {error}{_other_kind(path)}", file=sys.stderr)
            failed.append(path)
            continue
        several += _holds_several(path)
        yield path, image
    if several:
        tqdm.write(
            f"of {several} files that hold several images (pages, an animation) the first one was "
            "looked at: make videos of animations, and files of pages",
            file=sys.stderr,
        )


def _holds_several(path: Path) -> bool:
    # At a name that is not UTF-8 OpenCV crashes.
    if path.suffix.lower() not in _MANY_SUFFIXES or not is_utf8(str(path)):
        return False
    try:
        return cv2.imcount(str(path)) > 1
    except cv2.error:
        return False


def _other_kind(path: Path) -> str:
    """What is said of a file that cannot be read, and whose name does not say that it is an
    image."""
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *DOUBTFUL_SUFFIXES) or not path.is_file():
        return ""
    return f" (It was read as an image: names of videos end in {', '.join(VIDEO_SUFFIXES)}.)"


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch


def overlay_names(outputs: Outputs, images: list[Path], out: Path | None) -> dict[Path, Path]:
    """The overlay of each image in a folder, asked once or again; none without a folder."""
    if out is None:
        return {}
    for path in images:
        if path.resolve().parent == out.resolve():
            raise BadInput(f"{path} lies in the folder for overlays, {out}: choose another folder.")
    return {path: outputs.own_name(out, path.stem, ".png", str(path.resolve())) for path in images}


@contextlib.contextmanager
def _json_sink(outputs: Outputs, path: Path, form: type[JsonLines]) -> Iterator[JsonLines]:
    if path == STANDARD_OUTPUT:
        sink = form(sys.stdout.buffer, rewinds=False)
        try:
            yield sink
        finally:
            sink.close()
        return
    with outputs.writing(path, also_cut_short=True) as file:
        sink = form(file)
        try:
            yield sink
        finally:
            sink.close()


def check_image_name(path: Path) -> None:
    """Raises BadInput for a name whose suffix is no format that can be written."""
    # The suffix alone: OpenCV crashes at the rest of a name that is not UTF-8.
    if not (path.suffix.isascii() and cv2.haveImageWriter(f"image{path.suffix}")):
        raise BadInput(
            f"{path}: images cannot be written as {path.suffix or 'a file without suffix'}"
            ": name it .png or .jpg."
        )


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """An (H, W, 3) uint8 RGB image in the format of a suffix."""
    good, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    if not good:
        height, width = image.shape[:2]
        raise Unavailable(
            f"an image of {width} x {height} pixels cannot be written as {suffix} (JPEG has 65,500 "
            "at most a side, WebP 16,383): make it smaller, with fewer parts, or name it .png"
        )
    return data.tobytes()


def write_image(outputs: Outputs, path: Path, image: np.ndarray, of: str = "") -> None:
    """Writes an RGB image as an output of a command; folders on the way are made.

    Raises:
      FileInTheWay: something else stands there.
      OSError: it cannot be written.
    """
    check_image_name(path)
    outputs.write(path, encode_image(image, path.suffix), of)
