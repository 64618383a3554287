"""Frames of a video by number: always the right one, always the same pixels."""

import cv2
import numpy as np
import pytest

from data_prep.panoptic.video import VideoFault, read_frames
from tests.panoptic_raw import drawn_number, write_video

FRAMES = range(200)
# Name -> options of the encoder: what the layout of a video can hold against us.
KINDS = {
    "one key frame": {"keys": 1000},
    "many key frames": {"keys": 12},
    "key frames only": {"keys": 1, "b_frames": 0},
    "no B frames": {"b_frames": 0},
    "open groups": {"keys": 25, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "long B pyramid": {"keys": 70, "b_frames": 7, "options": {"b-pyramid": "normal"}},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, options in KINDS.items():
        write_video(folder / f"{name}.mp4", FRAMES, **options)
    return folder


def every_frame(path) -> list[np.ndarray]:
    """All frames in the order of decoding from the start, by OpenCV."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wanted", [range(0, 200, 60), (7, 8, 9, 119, 199), (149,), range(170, 177)]
)
def test_the_right_frames_with_the_same_pixels(videos, kind, wanted):
    path = videos / f"{kind}.mp4"
    found = dict(read_frames(path, wanted))
    assert list(found) == list(wanted)
    assert [drawn_number(image) for image in found.values()] == list(wanted)
    slow = every_frame(path)
    assert len(slow) == len(FRAMES)
    for number, image in found.items():
        np.testing.assert_array_equal(image, slow[number])


def test_every_frame_of_open_groups_alone(videos):
    """Decoding that starts inside an open group: before its key frame, at it and after it."""
    path = videos / "open groups.mp4"
    slow = every_frame(path)
    for number in FRAMES:
        ((found, image),) = read_frames(path, [number])
        assert found == number
        np.testing.assert_array_equal(image, slow[number])


def test_frames_between_are_not_all_decoded(videos, monkeypatch):
    import data_prep.panoptic.video as video

    decoded = []

    class Counting:
        """Hands every packet on and counts what comes out of the decoder."""

        def __init__(self, context):
            object.__setattr__(self, "context", context)

        def __setattr__(self, name, value):
            setattr(self.context, name, value)

        def decode(self, packet):
            frames = self.context.decode(packet)
            decoded.extend(frames)
            return frames

    real = video._decode

    def counted(container, stream, *others):
        class Stream:
            codec_context = Counting(stream.codec_context)

        class Container:
            def seek(self, time, stream):
                container.seek(time, stream=real_stream)

            def demux(self, _):
                return container.demux(real_stream)

        real_stream = stream
        return real(Container(), Stream(), *others)

    monkeypatch.setattr(video, "_decode", counted)
    assert [n for n, _ in read_frames(videos / "one key frame.mp4", range(0, 181, 60))] == [
        0, 60, 120, 180,
    ]  # fmt: skip
    assert len(decoded) < 0.6 * 181  # B frames are left out
    decoded.clear()
    assert [n for n, _ in read_frames(videos / "many key frames.mp4", [125])] == [125]
    assert len(decoded) < 12


def test_a_video_that_ends_early(videos):
    found = dict(read_frames(videos / "one key frame.mp4", [150, 199, 200, 360]))
    assert list(found) == [150, 199]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_video_file_that_was_cut(videos, tmp_path, share):
    """With its table in front, as for streaming: the frames up to the cut are right, no others."""
    path = tmp_path / "fast.mp4"
    write_fast_start(videos / "many key frames.mp4", path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    slow = every_frame(videos / "many key frames.mp4")
    found = dict(read_frames(path, range(0, 200, 5)))
    assert 0.5 * share * 40 < len(found) <= share * 40 + 1
    for number, image in found.items():
        np.testing.assert_array_equal(image, slow[number])


def write_fast_start(source, target):
    import av

    with (
        av.open(str(source)) as old,
        av.open(str(target), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_large_damage_inside_a_video_costs_no_wrong_image(videos, tmp_path):
    """Decoders like to paint over what is lost; then the image must not come at all.

    H.264 has no checksums: a few wrong bytes inside a slice decode to a wrong image unnoticed.
    """
    path = tmp_path / "damaged.mp4"
    content = bytearray((videos / "many key frames.mp4").read_bytes())
    for place in range(1, 8):
        start = place * len(content) // 9
        content[start : start + 4000] = bytes(4000)
    path.write_bytes(content)
    slow = every_frame(videos / "many key frames.mp4")
    found = dict(read_frames(path, FRAMES))
    assert 80 < len(found) < 200
    for number, image in found.items():
        np.testing.assert_array_equal(image, slow[number], err_msg=str(number))


def test_files_that_are_no_video(tmp_path):
    path = tmp_path / "hd_00_00.mp4"
    for content in (b"", b"not a video" * 1000):
        path.write_bytes(content)
        with pytest.raises(VideoFault, match="cannot be opened"):
            list(read_frames(path, [0]))


def test_uneven_time_stamps_are_refused(tmp_path):
    path = tmp_path / "hd_00_00.mp4"
    write_video(path, range(40), gap_at=20)
    with pytest.raises(VideoFault, match="not evenly spaced"):
        list(read_frames(path, [0]))
