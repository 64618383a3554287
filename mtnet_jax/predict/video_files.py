"""Videos read and written with PyAV: frames as players show them, each with its own time."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition

from mtnet_jax.errors import BadInput, Unavailable

# What browsers play, the first that this build of FFmpeg has; both go into an mp4.
ENCODERS = ("libx264", "libopenh264", "libvpx-vp9")
TICKS = 90_000  # a second, of time stamps that are written: whole for the usual rates
ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20", "bf": "0"},  # B-frames would shift all times
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30"},
}
TIMEOUT = 20.0  # seconds that an address may take to answer
# Some files announce as many frames as their length in seconds suggests: one or two too many.
ANNOUNCED_TOO_MANY = 2
USUAL_RATE = 25  # frames a second, of files that do not say theirs
WIDEST_PIXEL = 4  # times its height; anamorphic films have 2
# Seconds without a frame beyond which a clock was set, where times may jump: as FFmpeg has it
# (-dts_delta_threshold). Elsewhere a frame may be shown for as long: a recorded screen at rest.
JUMP = 10.0
LEAST_GAP = 0.5  # seconds that may lack at the end, where frames come unevenly


class TimedImage(NamedTuple):
    """A frame."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, upright, of square pixels
    seconds: float  # since the start of the video


class VideoReader:
    """The frames of a video file or of an address, in order of their times."""

    def __init__(self, source: Path | str):
        """Opens a video.

        Raises:
          OSError: no such file.
          BadInput: it is no video, damaged, or does not answer, by name.
        """
        self.name = described(source)
        self._live = isinstance(source, str)
        if isinstance(source, Path):
            with source.open("rb"):  # a file that is missing or locked says so better than FFmpeg
                pass
            source = source.absolute()  # else a name with a colon would be an address to FFmpeg
        options = {"rtsp_transport": "tcp"} if str(source).startswith("rtsp") else {}
        try:
            self._container = av.open(
                str(source), options=options, timeout=TIMEOUT if self._live else None
            )
        except (av.FFmpegError, OSError) as error:
            cure = (
                "does it answer, and is the address right?"
                if self._live
                else "it is damaged, or in a format FFmpeg cannot read."
            )
            raise BadInput(f"{self.name} cannot be opened: {cure} ({_reason(error)})") from error
        stream = _largest_stream(self._container)
        if stream is None:
            self._container.close()
            raise BadInput(f"{self.name} holds no images: it has sound alone, or nothing.")
        self._stream = stream
        self._stream.thread_type = "AUTO"
        # Frames a second, on average; that of DV, as FFmpeg has it, is the rate of its clock.
        rates = filter(None, (stream.average_rate, stream.guessed_rate))
        self.rate = float(min(rates, default=USUAL_RATE))
        self.announced = 0 if self._live else self._stream.frames  # 0 where nobody knows
        self.damaged = 0  # packets that could not be decoded
        self._broken = False  # the file or the stream itself
        self._at_end = False  # nothing comes after the last frame that was asked for
        self._may_hide_frames = "mp4" in self._container.format.name  # by its edit list
        jumps: Any = Flags.ts_discont.value  # an int, whatever PyAV's type hints say
        of_streams = bool(self._container.format.flags & jumps)
        unending = self._live and self._container.duration is None
        self._may_jump = of_streams or unending
        self._last, self._longest_gap, self._count = 0.0, 0.0, 0
        self._skipped = 0.0  # seconds that jumps of the clock left out
        began = self._container.start_time
        self._start = None if began is None else began / av.time_base

    def __iter__(self) -> Iterator[TimedImage]:
        for frame in self._frames():
            seconds = self._since_start(frame.time)
            if self._count:
                self._longest_gap = max(self._longest_gap, seconds - self._last)
            self._last, self._count = seconds, self._count + 1
            image = frame.to_ndarray(format="rgb24", width=self._shown_width(frame.width))
            yield TimedImage(np.ascontiguousarray(_upright(image, frame)), seconds)
        self._at_end = True

    def lacks(self) -> str:
        """What of the video could not be read, in words; empty where nothing lacks."""
        said = [self._ends_early()]
        if self.damaged:
            said.append(f"{self.damaged} damaged packets are left out")
        return ", ".join(filter(None, said))

    def _ends_early(self) -> str:
        if not self._at_end:  # who looked no further misses nothing
            return ""
        if self._broken:  # what comes after cannot be found
            return f"breaks off after {self._count} frames, {self._last:.1f} seconds"
        length = self._length()
        lacking = math.inf if length is None else length - self._skipped - self._last
        if self.announced:
            # A last frame may be shown for long, so the length alone says nothing. A QuickTime or
            # mp4 file that was trimmed announces frames that are not to be shown: both must lack.
            few = self._count < self.announced - ANNOUNCED_TOO_MANY
            whole = self._may_hide_frames and lacking <= 2 * self._longest_gap
            said = f"ends early: {self._count} of {self.announced} frames could be read"
            return said if few and not whole else ""
        if length is None or lacking <= max(LEAST_GAP, 2 * self._longest_gap):
            return ""
        return f"ends early: after {self._last:.1f} of {length - self._skipped:.1f} seconds"

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _since_start(self, time: float | None) -> float:
        """Seconds since the start of the next frame, whose time is that of the file, or unknown.

        Where files were joined, or a camera sets its clock, back or (in what comes as a stream) far
        ahead, times begin anew: they go on from the frame before, as players have it.
        """
        follows = self._last + 1 / self.rate if self._count else 0.0
        if time is None:
            return follows
        if self._start is None:
            self._start = time
        seconds = max(time - self._start, 0.0)
        ahead = self._may_jump and self._count > 0 and seconds - self._last > JUMP
        if seconds < self._last or ahead:
            self._start -= follows - seconds
            self._skipped += max(seconds - follows, 0.0)
            return follows
        return seconds

    def _frames(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self._broken = True
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.damaged += 1

    def _shown_width(self, width: int) -> int:
        """Pixels across a frame as players show it: DVDs and HDV store pixels that are no squares,
        and a head in them is as narrow as one that is turned."""
        shape = self._stream.sample_aspect_ratio
        if not shape or not 1 / WIDEST_PIXEL <= shape <= WIDEST_PIXEL:  # unknown, or a mistake
            return width
        return max(round(width * shape), 1)

    def _length(self) -> float | None:
        """Seconds of video that the file announces, None where nobody knows."""
        if self._live:
            return None
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        whole = self._container.duration
        if whole is None or len(self._container.streams) > 1:  # sound may be longer than its images
            return None
        return whole / av.time_base


def _largest_stream(container: InputContainer) -> av.VideoStream | None:
    """The stream of the most pixels: an address may offer several, in any order.

    A picture that is attached, as the cover of a record, is no video, and of one whose codec FFmpeg
    does not know not even the size is known.
    """
    moving = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    return max(moving, key=lambda stream: stream.width * stream.height, default=None)


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """A frame's image as its file says how to show it: some phones store their images lying, and
    those of the camera at their front mirrored."""
    if _is_mirrored(frame):
        image = image[::-1]  # `rotation` says where rows point; columns point the other way
    return np.rot90(image, frame.rotation // 90 % 4)


def _is_mirrored(frame: av.VideoFrame) -> bool:
    said: Any = frame.side_data  # of more kinds than PyAV's type hints know
    matrix = said.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return False
    # (x, y) is shown at (ax + cy, bx + dy); as floats, in which the products have room
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).astype(float)
    return a * d < b * c


class VideoWriter:
    """An mp4 that browsers play, in real time: H.264, or VP9 where FFmpeg lacks it."""

    def __init__(self, file: IO, width: int, height: int):
        """Begins a video.

        Args:
          file: binary, seekable. What was written plays even when the process is killed.
          width, height: of the images; an odd side gets one more row or column.

        Raises:
          Unavailable: no encoder.
        """
        self._size = (width + width % 2, height + height % 2)
        self._container = av.open(
            file, "w", format="mp4", options={"movflags": "hybrid_fragmented"}
        )
        self._stream, self._last, self._gap = self._add_stream(), -1, TICKS // 25

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds an image (H, W, 3) uint8 RGB of the time `seconds`."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if (frame.width, frame.height) != self._size:
            # An odd side, or a source that changed its size on the way; a video cannot.
            frame = frame.reformat(*self._size)
        ticks = max(round(seconds * TICKS), self._last + 1)
        if self._last >= 0:
            self._gap = ticks - self._last
        self._last = ticks
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Ends the video; the file stays open."""
        self._mux(self._stream.encode())
        self._container.close()

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self._gap  # the file takes it for the last frame alone
            self._container.mux(packet)

    def _add_stream(self) -> av.VideoStream:
        faults = []
        for name in ENCODERS:
            try:
                stream = self._container.add_stream(name, options=ENCODER_OPTIONS.get(name, {}))
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height = self._size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
                stream.codec_context.open()
                return stream
            except (av.FFmpegError, ValueError) as error:
                faults.append(f"{name}: {_reason(error)}")
        raise Unavailable(f"FFmpeg cannot encode a video ({'; '.join(faults)}).")


def described(source: Path | str) -> str:
    """A source as messages name it, without the password that an address may hold."""
    if isinstance(source, Path):
        return f"The video {source}"
    return f"The video {without_password(source)}"


def without_password(address: str) -> str:
    """An address without user, password and query.

    Raises:
      BadInput: it is none.
    """
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise BadInput(f"{address.rpartition('@')[2]} is no address: {error}.") from error
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
