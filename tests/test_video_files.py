"""Files as players show them: mirrored ones, those of odd names, several images in one file."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from mtnet_jax.errors import BadInput
from mtnet_jax.predict.video import as_video
from mtnet_jax.predict.video_files import VideoReader
from tests.test_video import uneven_video

IDENTITY = (1, 0, 0, 1)


def corners(width: int, height: int) -> np.ndarray:
    """(height, width, 3) RGB, whose four corners are of four greys."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[height // 2 :, : width // 2] = 200, 100
    image[: height // 2, width // 2 :] = 50
    return image


def write_clip(
    path: Path, image: np.ndarray, frames: int = 1, code: str = "libx264", form: str | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(code, rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def images_of(path: Path | str) -> list[np.ndarray]:
    reader = VideoReader(path)
    images = [image for image, _ in reader]
    assert reader.lacks() == ""
    reader.close()
    return images


def matrix_bytes(a: int, b: int, c: int, d: int) -> bytes:
    """The matrix of an mp4's track header: (x, y) is shown at (ax + cy, bx + dy)."""
    one, last = 1 << 16, 1 << 30
    return np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, last], ">i4").tobytes()


def shown(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The image pixel by pixel where the matrix says, moved to begin at 0."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    column, row = a * x + c * y, b * x + d * y
    column, row = column - column.min(), row - row.min()
    out = np.zeros((row.max() + 1, column.max() + 1, 3), np.uint8)
    out[row, column] = image
    return out


@pytest.mark.parametrize(
    "matrix",
    [
        *(IDENTITY, (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)),  # turned
        *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)),  # mirrored, and turned
    ],
)
def test_images_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix):
    image = corners(64, 48)
    path = write_clip(tmp_path / "clip.mp4", image)
    data = path.read_bytes()
    place = data.index(matrix_bytes(*IDENTITY), data.index(b"tkhd"))  # of the track, not the movie
    stated = matrix_bytes(*matrix)
    path.write_bytes(data[:place] + stated + data[place + len(stated) :])
    (found,) = images_of(path)
    expected = shown(image, *matrix)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_a_name_with_a_colon_is_that_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_clip(tmp_path / "2024-05-01T12:30:00.mp4", corners(64, 48))
    assert len(images_of(Path(path.name))) == 1


QUALITIES = """#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=1000,RESOLUTION=32x24
small.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=9000,RESOLUTION=128x96
large.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=4000,RESOLUTION=64x48
middle.m3u8
"""
PLAYLIST = """#EXTM3U
#EXT-X-TARGETDURATION:3
#EXTINF:2.4,
{name}.ts
#EXT-X-ENDLIST
"""


def test_of_several_qualities_the_largest_is_looked_at(tmp_path):
    for name, width in (("small", 32), ("middle", 64), ("large", 128)):
        # FFmpeg knows a transport stream by the number of its packets.
        write_clip(tmp_path / f"{name}.ts", corners(width, width * 3 // 4), frames=60)
        (tmp_path / f"{name}.m3u8").write_text(PLAYLIST.format(name=name))
    (tmp_path / "all.m3u8").write_text(QUALITIES)
    assert [image.shape for image in images_of(tmp_path / "all.m3u8")] == [(96, 128, 3)] * 60


def test_a_stream_of_an_unknown_codec_is_none(tmp_path):
    """Of another size that nobody can tell; FFmpeg reads the other one."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(code, rate=25) for code in ("mpeg4", "mpeg2video")]
        for stream, side in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for stream, side in zip(streams, (64, 128), strict=True):
            frame = av.VideoFrame.from_ndarray(corners(side, side), format="rgb24")
            container.mux([*stream.encode(frame), *stream.encode()])
    content = path.read_bytes()
    assert content.count(b"V_MPEG2") == 1
    path.write_bytes(content.replace(b"V_MPEG2", b"V_XPEG2"))
    assert [image.shape for image in images_of(path)] == [(64, 64, 3)]


@pytest.mark.parametrize("with_video", [True, False])
def test_a_cover_is_no_video(tmp_path, with_video):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        packet = av.Packet(cv2.imencode(".jpg", corners(128, 96))[1].tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        if with_video:
            film = container.add_stream("libx264", rate=25)
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
            frame = av.VideoFrame.from_ndarray(corners(64, 48), format="rgb24")
            container.mux([*film.encode(frame), *film.encode()])
        container.mux(packet)
    if with_video:
        assert [image.shape for image in images_of(path)] == [(48, 64, 3)]
    else:
        with pytest.raises(BadInput, match="holds no images"):
            images_of(path)


@pytest.mark.parametrize("pause", [9.0, 36_000.0])
@pytest.mark.parametrize(
    ("name", "live", "may_jump"),
    [
        *(("clip.ts", False, True), ("clip.mkv", False, False), ("clip.mp4", False, False)),
        *(("clip.mkv", True, True), ("clip.mp4", True, False)),  # an address of a file is none
    ],
)
def test_a_clock_that_is_set_ahead_goes_on_and_a_screen_at_rest_stays(
    tmp_path, name, live, may_jump, pause
):
    first = np.array([0.0, 0.04, 0.08])
    times = np.concatenate([first, pause + first])
    path = uneven_video(tmp_path / name, times)
    if live and may_jump:  # as a stream: nobody knows how long it will be
        unending = tmp_path / "live.mkv"
        with (
            av.open(str(path)) as source,
            av.open(str(unending), "w", options={"live": "1"}) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:  # the last one is empty
                    packet.stream = stream
                    target.mux(packet)
        path = unending
    reader = VideoReader(f"file:{path}" if live else path)
    found = [seconds for _, seconds in reader]
    assert reader.lacks() == ""
    reader.close()
    if may_jump and pause > 10:
        assert found[:3] == pytest.approx(first, abs=2e-3)
        assert np.array(found[3:]) - found[3] == pytest.approx(first, abs=2e-3)
        assert 0.01 <= found[3] - found[2] <= 0.2
    else:
        assert found == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize(
    ("suffix", "form", "code"),
    [
        *((".vob", "vob", "mpeg2video"), (".mpe", "mpeg", "mpeg1video")),
        *((".mxf", "mxf", "mpeg2video"), (".asf", "asf", "wmv2"), (".wtv", "wtv", "mpeg2video")),
        *((".f4v", "f4v", "libx264"), (".qt", "mov", "libx264"), (".divx", "avi", "mpeg4")),
        *((".m1v", "mpeg1video", "mpeg1video"), (".M2V", "mpeg2video", "mpeg2video")),
        *((".h264", "h264", "libx264"), (".y4m", "yuv4mpegpipe", "wrapped_avframe")),
        *((".ogg", "ogg", "libvpx"), (".ivf", "ivf", "libvpx-vp9"), (".nut", "nut", "mpeg4")),
        *(
            (".dv", "dv", "dvvideo"),
            (".m2t", "mpegts", "mpeg2video"),
            (".mk3d", "matroska", "h264"),
        ),
    ],
)
def test_every_kind_of_video_is_known_by_its_name_and_read_whole(tmp_path, suffix, form, code):
    size = (720, 576) if code == "dvvideo" else (64, 48)
    path = write_clip(tmp_path / f"clip{suffix}", corners(*size), 60, code, form)
    assert as_video(path) == path
    reader = VideoReader(path)
    times = [seconds for _, seconds in reader]
    assert times == pytest.approx(np.arange(60) / 25, abs=0.05)
    assert (reader.lacks(), reader.rate) == ("", 25)
    reader.close()
