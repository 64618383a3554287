"""Heads in videos and before cameras: an annotated video and JSON lines, or a live window."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from mtnet_jax.errors import BadInput, Unavailable
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.following import Following, write_summary
from mtnet_jax.predict.head import as_arrays, heads_to_json
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.predict.summary import Person

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
WINDOW = "mtnet: q or Esc ends"
UNKNOWN_RATE = 25.0  # frames a second, of cameras that do not say theirs
# Some files announce as many frames as their length in seconds suggests: one or two too many.
ANNOUNCED_TOO_MANY = 2

Source = Path | int  # a file, or the number of a camera


class Played(NamedTuple):
    """What became of a video."""

    frames: int  # predicted
    announced: int  # by the file; 0 where nobody knows
    seconds: float  # from the first frame on, with reading, drawing and writing
    persons: list[Person] | None = None  # who was followed, if asked

    @property
    def ended_early(self) -> bool:
        """Whether frames that the file announces could not be read."""
        return self.frames < self.announced - ANNOUNCED_TOO_MANY


def as_video(entry: Path) -> Source | None:
    """The video or camera that an input of the command line means; None: something else.

    A number means a camera, unless a file has that name.
    """
    if not entry.exists() and str(entry).isdecimal():
        return int(str(entry))
    return entry if entry.suffix.lower() in VIDEO_SUFFIXES and not entry.is_dir() else None


def predict_video(
    predictor: Predictor,
    source: Source,
    *,
    out: Path | None,
    cube: bool = False,
    track: bool = False,
) -> Played:
    """Predicts every frame of a video or camera, one after another.

    Args:
      predictor: the network.
      source: a file, or the number of a camera, which goes on until it is interrupted (Ctrl-C) or
        its window is closed.
      out: folder for NAME.mp4, the frames with their heads, and NAME.jsonl, one JSON object a
        frame: {"frame", "seconds", "width", "height", "heads"}; NAME is that of the file, or
        "cameraN". None shows the frames in a window instead.
      cube: draw a cube round each head too.
      track: number heads from frame to frame and smooth their rotations: drawn, and in the JSON
        lines beside the raw values. `out` gets NAME.summary.json and NAME.timeline.png too.

    Returns:
      How many frames there were, how long they took, and who was followed.

    Raises:
      RuntimeError: `track` without the package trackers.
      ValueError: not one frame can be read, by name; or `out` would overwrite the video.
      OSError: something cannot be written; or there is no screen for a window.
    """
    name = f"camera{source}" if isinstance(source, int) else source.stem
    if out is None:
        _check_screen()
    elif isinstance(source, Path) and (out / f"{name}.mp4").resolve() == source.resolve():
        raise BadInput(f"--out {out} would overwrite {source}: choose another folder.")
    capture = _open(source)
    with ExitStack() as closing:
        closing.callback(capture.release)
        announced = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        announced = announced if isinstance(source, Path) else 0
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if np.isfinite(rate) and rate > 0 else UNKNOWN_RATE
        frames = _frames(capture)
        first = next(frames, None)
        if first is None:
            raise BadInput(f"{_described(source)} opens, but not one frame of it can be read.")
        following = Following(rate) if track else None
        predictor(first)  # compiles, which is not part of the rate
        sink = _Window() if out is None else _Files(out, name, first.shape, rate)
        closing.callback(sink.close)

        start, count = time.perf_counter(), 0
        progress = tqdm(total=announced or None, unit="frame", desc=name, file=sys.stderr)
        closing.callback(progress.close)
        try:
            for image in _with_first(first, frames):
                heads = predictor(image)
                entry = {
                    "frame": count,
                    "seconds": round(count / rate, 4),
                    **heads_to_json(image, heads, predictor.class_names),
                }
                arrays = as_arrays(heads)
                if following is not None:
                    entry, arrays = following.take(heads, entry)
                count += 1
                progress.update()
                if not sink.take(draw_heads(image, arrays, cube=cube), entry):
                    break
        except KeyboardInterrupt:
            if isinstance(source, Path):
                raise
        seconds = time.perf_counter() - start
        persons = following.persons() if following is not None else None
        if persons is not None and out is not None:
            write_summary(persons, out, name)
        return Played(count, announced, seconds, persons)


def _open(source: Source) -> cv2.VideoCapture:
    if isinstance(source, Path):
        with source.open("rb"):  # a file that is missing or locked says so better than OpenCV
            pass
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    if not capture.isOpened():
        capture.release()
        cure = (
            "is it connected, and free?"
            if isinstance(source, int)
            else "it is damaged, or in a format OpenCV cannot read (ffmpeg can convert it)."
        )
        raise BadInput(f"{_described(source)} cannot be opened: {cure}")
    return capture


def _described(source: Source) -> str:
    return f"Camera {source}" if isinstance(source, int) else f"The video {source}"


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB until one cannot be read."""
    while True:
        good, image = capture.read()
        if not good:
            return
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _check_screen() -> None:
    linux = sys.platform.startswith("linux")
    if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise Unavailable("No screen for a live window: give --out DIR to write a video instead.")


class _Files:
    """An annotated video and JSON lines."""

    def __init__(self, out: Path, name: str, shape: tuple[int, ...], rate: float):
        out.mkdir(parents=True, exist_ok=True)
        self._size = (shape[1], shape[0])
        path = out / f"{name}.mp4"
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._video = cv2.VideoWriter(str(path), code, rate, self._size)
        if not self._video.isOpened():
            raise Unavailable(f"OpenCV cannot write the video {path}.")
        self._lines = (out / f"{name}.jsonl").open("w")

    def take(self, image: np.ndarray, entry: dict) -> bool:
        # Some cameras change their format on the way; a video cannot.
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size)
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._lines.write(json.dumps(entry) + "\n")
        return True

    def close(self) -> None:
        self._video.release()
        self._lines.close()


class _Window:
    """A live window; ends with q, Esc or its closing."""

    def take(self, image: np.ndarray, entry: dict) -> bool:
        del entry
        cv2.imshow(WINDOW, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        closed = cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) < 1
        return key not in (ord("q"), 27) and not closed

    def close(self) -> None:
        cv2.destroyAllWindows()
