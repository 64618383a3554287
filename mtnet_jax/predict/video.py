"""Heads in videos and before cameras: an annotated video and JSON lines, or a live window."""

import itertools
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
from tqdm import tqdm

from mtnet_jax.data.listing import VIDEO_SUFFIXES
from mtnet_jax.errors import BadInput, Terminated
from mtnet_jax.outputs import JsonLines, Outputs
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.following import Following, summary_files, write_summary
from mtnet_jax.predict.head import as_arrays, heads_to_json
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.predict.summary import Person
from mtnet_jax.predict.video_files import TimedImage, VideoReader, VideoWriter, without_password
from mtnet_jax.predict.window import Window

URL_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "hls")

UNKNOWN_RATE = 25.0  # frames a second, of cameras that do not say theirs

Source = Path | int | str  # a file, the number of a camera, or an address


class Played(NamedTuple):
    """What became of a video."""

    frames: int  # predicted
    seconds: float  # it took, from the first frame on, with reading, drawing and writing
    lacks: str  # what could not be read, in words
    unwritten: str  # why there is no annotated video, in words
    persons: list[Person] | None = None  # who was followed, if asked


def as_video(entry: str | os.PathLike) -> Source | None:
    """The video, camera or address that an input of the command line means; None: something else.

    A number means a camera, unless a file has that name.

    Raises:
      BadInput: what would be an address is none, or not one that videos are read from.
    """
    path, text = Path(entry), str(entry)
    if not path.exists():
        if text.isdecimal():
            return int(text)
        if "://" in text:
            if text.partition("://")[0].lower() not in URL_SCHEMES:
                raise BadInput(f"{text} is an address: download the image, and give its path.")
            without_password(text)  # refuses what is none
            return text
    return path if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir() else None


def named(source: Source) -> str:
    """A source as messages and notes name it, without the password that an address may hold."""
    if isinstance(source, int):
        return f"camera {source}"
    return without_password(source) if isinstance(source, str) else str(source)


def predict_video(
    predictor: Predictor,
    source: Source,
    *,
    out: Path | None,
    cube: bool = False,
    track: bool = False,
    show: bool = False,
    outputs: Outputs | None = None,
) -> Played:
    """Predicts every frame of a video or camera, one after another.

    Args:
      predictor: the network.
      source: a file; the number of a camera or an address, which go on until they end, are
        interrupted (Ctrl-C), or their window is closed.
      out: folder for NAME.mp4, the frames with their heads in real time, and NAME.jsonl, one JSON
        object a frame: {"frame", "seconds", "width", "height", "heads"}; NAME is that of the file,
        "cameraN", or the end of the address. None shows the frames in a window instead.
      cube: draw a cube round each head too.
      track: number heads from frame to frame and smooth their rotations: drawn, and in the JSON
        lines beside the raw values. `out` gets NAME.summary.json and NAME.timeline.png too.
      show: show the frames in a window too; its end is that of the video.
      outputs: of the run of the command, so that two videos of one name get two names.

    Returns:
      How many frames there were, how long they took, who was followed, and what failed.

    Raises:
      RuntimeError: `track` without the package trackers.
      BadInput: not one frame can be read, by name.
      FileInTheWay: something that this command did not make stands at a place of the output.
      OSError: the numbers cannot be written; or there is no screen for a window.
    """
    with ExitStack() as closing:
        window = Window() if show or out is None else None
        files = None
        if out is not None:
            outputs = outputs or Outputs("predict", [source] if isinstance(source, Path) else [])
            files = _Files(outputs, out, source, summarised=track)
        reader = _Camera(source) if isinstance(source, int) else VideoReader(source)
        closing.callback(reader.close)
        frames = iter(reader)
        first = next(frames, None)
        if first is None:
            raise BadInput(f"{reader.name} opens, but not one frame of it can be read.")
        following = Following(reader.rate) if track else None
        predictor(first.image)  # compiles, which is not part of the rate
        for sink in (window, files):
            if sink is not None:
                closing.callback(sink.close)
        start, count, ended = time.perf_counter(), 0, None
        progress = tqdm(total=reader.announced or None, unit="frame", desc=_stem(source))
        closing.callback(progress.close)
        try:
            for image, seconds in _with_first(first, frames):
                heads = predictor(image)
                entry = {
                    "frame": count,
                    "seconds": round(seconds, 4),
                    **heads_to_json(image, heads, predictor.class_names),
                }
                arrays = as_arrays(heads)
                if following is not None:
                    entry, arrays = following.take(heads, entry)
                count += 1
                progress.update()
                drawn = draw_heads(image, arrays, cube=cube)
                if files is not None:
                    files.take(drawn, entry, seconds)
                if window is not None and not window.show(drawn):
                    break
        except KeyboardInterrupt as interrupt:
            if isinstance(source, Path):
                raise
            ended = interrupt
        elapsed = time.perf_counter() - start
        persons = following.persons() if following is not None else None
        if persons is not None and files is not None:
            files.summarise(persons)
        if isinstance(ended, Terminated):  # it ends the command, and Ctrl-C this camera alone
            raise ended
        fault = files.fault if files is not None else ""
        return Played(count, elapsed, reader.lacks(), fault, persons)


class _Camera:
    """The frames of a camera, each with the time at which it was read."""

    announced = 0  # frames: nobody knows
    rate = UNKNOWN_RATE

    def __init__(self, number: int):
        self.name = f"Camera {number}"
        counted = number < 1 << 31  # OpenCV has 32 bits for it
        self._capture = cv2.VideoCapture(number) if counted else cv2.VideoCapture()
        if not self._capture.isOpened():
            self._capture.release()
            raise BadInput(f"{self.name} cannot be opened: is it connected, and free?")
        self._lacks = ""

    def __iter__(self) -> Iterator[TimedImage]:
        start, seconds = None, 0.0
        for count in itertools.count():
            good, image = self._capture.read()
            if not good:
                self._lacks = (
                    f"gave no more images after {count} frames, {seconds:.1f} seconds: "
                    "is it still connected?"
                )
                return
            now = time.monotonic()
            start = now if start is None else start
            seconds = now - start
            yield TimedImage(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), seconds)

    def lacks(self) -> str:
        return self._lacks

    def close(self) -> None:
        self._capture.release()


def _stem(source: Source) -> str:
    if isinstance(source, Path):
        return source.stem
    if isinstance(source, int):
        return f"camera{source}"
    parts = urlsplit(source)
    name = Path(parts.path).stem or parts.hostname or "stream"
    return re.sub(r"[^\w.-]+", "_", name)


def _with_first(first: TimedImage, others: Iterator[TimedImage]) -> Iterator[TimedImage]:
    yield first
    yield from others


class _Files:
    """JSON lines and an annotated video. What becomes of the video never stops the lines."""

    def __init__(self, outputs: Outputs, out: Path, source: Source, summarised: bool):
        # What a camera or stream showed cannot be recorded again: each run has a name of its own.
        of = (
            str(source.resolve())
            if isinstance(source, Path)
            else f"{named(source)}, {time.strftime('%F %T')}, {uuid.uuid4().hex[:8]}"
        )
        lines = outputs.own_name(out, _stem(source), ".jsonl", of)
        self._video_path = lines.with_suffix(".mp4")
        for path in (self._video_path, *(summary_files(self._video_path) if summarised else ())):
            outputs.check(path, of)
        self._outputs, self._of = outputs, of
        self._writing_lines = outputs.writing(lines, of, also_cut_short=True)
        self._writing_video = outputs.writing(self._video_path, of)
        self._lines: JsonLines | None = None
        self._video: VideoWriter | None = None
        self.fault = ""

    def take(self, image: np.ndarray, entry: dict, seconds: float) -> None:
        if self._lines is None:
            self._lines = JsonLines(self._writing_lines.__enter__())
            self._try(self._begin_video, image.shape)
        self._lines.append(entry)
        if self._video is not None:
            self._try(self._video.write, image, seconds)

    def summarise(self, persons: list[Person]) -> None:
        write_summary(self._outputs, persons, self._video_path, self._of)

    def close(self) -> None:
        if self._video is not None:
            self._try(self._end_video)
        if self._lines is not None:
            self._writing_lines.__exit__(None, None, None)
            if not self.fault:  # the summary of an earlier run is of other numbers
                self._outputs.remove_outdated(self._video_path.parent, [self._of])

    def _begin_video(self, shape: tuple[int, ...]) -> None:
        file = self._writing_video.__enter__()
        self._video = VideoWriter(file, shape[1], shape[0])

    def _end_video(self) -> None:
        assert self._video is not None
        self._video.close()
        self._video = None
        self._writing_video.__exit__(None, None, None)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except (av.FFmpegError, OSError) as error:
            self._video = None
            self.fault = f"{self._video_path} cannot be written: {error}"
            with suppress(type(error), RuntimeError):  # takes the partial file away
                self._writing_video.__exit__(type(error), error, error.__traceback__)
