"""Single frames of an HD video, by number, decoding as little as the container allows.

The table of an mp4 says where its key frames are. For each wanted frame the decoder starts at the
last key frame before it and stops once it has come out. In between, frames that no other frame
refers to (most B frames) are skipped undecoded; all others must be decoded. What comes out is, bit
for bit, what decoding everything gives.

Frame numbers come from time stamps, not from counting: frame k is shown at start + k step. A video
whose frames are not evenly spaced is refused, since its numbers would be uncertain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import numpy as np

from mtnet_jax.errors import BadInput

# Rounding of time stamps to ticks, and the odd duration of a last frame.
_TICKS = 2


class VideoFault(BadInput):
    """A video that cannot be read; the message says why."""


@dataclass(frozen=True)
class FrameTable:
    """Which frames a video has.

    Attributes:
      start: presentation time of frame 0, in ticks.
      step: ticks from frame to frame, not always whole.
      count: number of frames.
      keys: numbers of the frames at which decoding can start, ascending, the first is 0.
    """

    start: int
    step: float
    count: int
    keys: tuple[int, ...]

    def number(self, pts: int) -> int:
        """The frame that is shown at a presentation time."""
        return round((pts - self.start) / self.step)

    def time(self, number: int) -> int:
        """The presentation time of a frame, in ticks."""
        return self.start + round(number * self.step)


def read_frames(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Reads frames of a video.

    Args:
      path: an mp4.
      wanted: numbers of frames, ascending, from 0.

    Yields:
      Number and (H, W, 3) uint8 BGR image, in ascending order. Frames that the video does not
      have, or that are damaged, do not come.

    Raises:
      VideoFault: it cannot be opened, has no images, or its frames are not evenly spaced.
    """
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoFault(f"the video cannot be opened: {error}") from error
    with container:
        if not container.streams.video:
            raise VideoFault("the file holds no video")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # several processes read several videos
        # Damage is to be told, not painted over.
        stream.codec_context.options = {"err_detect": "+crccheck+bitstream+buffer+explode"}
        table = frame_table(stream)
        there = [number for number in wanted if number < table.count]
        keys = np.array(table.keys)
        try:
            for start, group in groupby(there, lambda n: np.searchsorted(keys, n, "right") - 1):
                yield from _read_from_key(container, stream, table, int(start), set(group))
        except av.error.FFmpegError as error:
            raise VideoFault(f"the video is damaged: {error}") from error


def frame_table(stream: av.VideoStream) -> FrameTable:
    """The frames of a video stream, from the table of its container; nothing is decoded.

    Raises:
      VideoFault: no such table, or the frames are not evenly spaced.
    """
    entries = stream.index_entries
    if not len(entries) or stream.start_time is None:
        raise VideoFault("the container has no table of its frames (is it a whole mp4?)")
    times = np.array([entry.timestamp for entry in entries], np.int64)  # in decoding order
    count = len(times)
    step = (times[-1] - times[0]) / (count - 1) if count > 1 else 1.0
    even = times[0] + step * np.arange(count)
    if step <= 0 or np.abs(times - even).max() > _TICKS:
        raise VideoFault(
            "frames are not evenly spaced in time, so their numbers are uncertain: encode the "
            "video anew at a constant rate"
        )
    keys = [number for number, entry in enumerate(entries) if entry.is_keyframe]
    return FrameTable(int(stream.start_time), float(step), count, tuple(sorted({0, *keys})))


def _read_from_key(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: FrameTable,
    key: int,
    wanted: set[int],
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads frames that follow key frame number `key` of the table, and no other."""
    # Images before a key frame in time but after it in the file (open group) need the one before.
    while key and _first_shown(container, stream, table, key) > min(wanted):
        key -= 1
    left = set(wanted)
    # A decoder that starts inside an open group misses old frames that later ones only release, and
    # calls that an error. It does not where it has run through the group before.
    for begin in sorted({key, max(key - 1, 0)}, reverse=True):
        try:
            for number, image in _decode(container, stream, table, begin, key, set(left)):
                left.remove(number)
                yield number, image
            return
        except av.error.InvalidDataError:
            continue  # all that follows may refer to what was lost


def _first_shown(
    container: av.container.InputContainer, stream: av.VideoStream, table: FrameTable, key: int
) -> int:
    """Number of the frame at which decoding starts for a key frame of the table."""
    container.seek(table.time(table.keys[key]), stream=stream)
    packet = next(container.demux(stream), None)
    return table.count if packet is None or packet.pts is None else table.number(packet.pts)


def _decode(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: FrameTable,
    begin: int,
    key: int,
    left: set[int],
) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes from key frame `begin` of the table on, until all frames in `left` are out.

    Raises:
      av.error.InvalidDataError: damage after key frame `key`. Damage before it is passed over, but
        nothing is taken from a group whose key frame has not come out.
    """
    context = stream.codec_context
    container.seek(table.time(table.keys[begin]), stream=stream)
    earliest = key_shown = None
    whole = False  # the key frame has come out
    for packet in container.demux(stream):
        number = None if packet.pts is None else table.number(packet.pts)  # None: flush the decoder
        if earliest is None:
            earliest = number
        if number is not None:
            if key_shown is None and packet.is_keyframe and number >= table.keys[key]:
                key_shown = number
            if earliest is not None and number < earliest:
                continue  # refers to what was not decoded
        context.skip_frame = "DEFAULT" if number in left or number is None else "NONREF"
        try:
            frames = context.decode(packet)
        except av.error.InvalidDataError:
            if key_shown is not None:
                raise
            continue
        for frame in frames:
            assert frame.pts is not None, "the packets had times"
            shown = table.number(frame.pts)
            whole |= shown == key_shown
            if shown in left and whole and not frame.is_corrupt:
                yield shown, frame.to_ndarray(format="bgr24")
            left -= set(range(shown + 1)) & left
        if not left:
            return
