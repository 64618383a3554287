"""Videos from addresses, and what is said of them; files whose length says nothing."""

import functools
import json
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2
import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.errors import BadInput, FileInTheWay
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict import predictor
from mtnet_jax.predict.video import as_video, named, predict_video
from mtnet_jax.predict.video_files import TICKS, VideoReader, VideoWriter
from tests.image_files import written
from tests.test_video import ODD, Camera, Nobody, Screen, stamps, times_of


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server on this machine that has the videos of tests/odd, with a password."""
    handler = functools.partial(QuietHandler, directory=ODD)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_videos(tmp_path, address):
    assert as_video(f"{address}/variable.mp4") == f"{address}/variable.mp4"
    played = predict_video(Nobody(), f"{address}/variable.mp4", out=tmp_path)
    assert played.frames == 20
    assert times_of(tmp_path / "variable.jsonl")[-1] == pytest.approx(10.0)
    with pytest.raises(BadInput, match=r"/lost\.mp4 cannot be opened") as caught:
        predict_video(Nobody(), f"{address}/lost.mp4", out=tmp_path)
    assert "secret" not in str(caught.value)
    for other in ("rtsp://camera/stream", "rtmp://x/live", "https://x/a.ts"):
        assert as_video(other) == other
    assert as_video("clip.xyz") is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("rtsp://me:secret@host:abc/stream", "host:abc/stream is no address: Port"),
        ("http://[bad", r"http://\[bad is no address: Invalid"),
        ("99999999999", "Camera 99999999999 cannot be opened: is it connected"),
        ("gs://bucket/x.jpg", "gs://bucket/x.jpg is an address: download the image"),
    ],
)
def test_sources_that_cannot_be_are_said(tmp_path, monkeypatch, fails, source, said):
    monkeypatch.setattr(predictor, "Predictor", lambda *_, **__: Nobody())
    error = fails("predict", source, "--out", tmp_path)
    assert re.search(said, error)
    assert "secret" not in error


def test_the_command_plays_an_address_and_keeps_its_password(tmp_path, address, monkeypatch, capfd):
    monkeypatch.setattr(predictor, "Predictor", lambda *_, **__: Nobody())
    out = tmp_path / "out"
    assert main(["predict", f"{address}/variable.mp4", "--out", str(out)]) == 0
    assert main(["predict", f"{address}/lost.mp4", "--out", str(out)]) == 1
    captured = capfd.readouterr()
    assert captured.out.startswith("http://127.0.0.1:")
    assert "/variable.mp4: 20 frames" in captured.out
    assert "/lost.mp4 cannot be opened: does it answer" in captured.err
    assert "secret" not in captured.out + captured.err
    assert written(out) == ["variable.jsonl", "variable.mp4"]
    assert "secret" not in (out / ".mtnet-made.jsonl").read_text()
    assert json.loads((out / "variable.jsonl").read_text().splitlines()[0])["frame"] == 0


def test_names_of_sources():
    assert named("rtsp://me:secret@camera:554/stream?key=secret") == "rtsp://camera:554/stream"
    assert named(3) == "camera 3"
    assert named(ODD / "variable.mp4") == str(ODD / "variable.mp4")


@pytest.mark.parametrize("times", [[0.0], [0.0, 1.0]])
def test_a_last_frame_that_stays_for_long_lacks_nothing(tmp_path, times):
    path = tmp_path / "clip.mp4"
    with path.open("wb+") as file:
        writer = VideoWriter(file, 64, 48)
        for seconds in times:
            writer.write(np.full((48, 64, 3), 90, np.uint8), seconds)
        writer._gap = 10 * TICKS
        writer.close()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == len(times)
        assert stream.duration * stream.time_base == times[-1] + 10
    assert predict_video(Nobody(), path, out=tmp_path / "out").lacks == ""


@pytest.mark.parametrize("name", ["variable.summary.json", "variable.timeline.png"])
def test_a_summary_of_the_user_is_seen_before_the_work(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("of the user")
    with pytest.raises(FileInTheWay, match=name):
        predict_video(Nobody(), ODD / "variable.mp4", out=tmp_path, track=True)
    assert written(tmp_path) == [name]


def test_a_summary_of_an_earlier_run_goes_with_its_numbers(tmp_path):
    path = ODD / "variable.mp4"
    for track in (True, False):
        (tmp_path / "mine.json").write_text("of the user")
        predict_video(Nobody(), path, out=tmp_path, track=track, outputs=Outputs("predict"))
    assert written(tmp_path) == ["mine.json", "variable.jsonl", "variable.mp4"]


@pytest.mark.parametrize(("shape", "width"), [("4/3", 85), ("1/2", 32), ("1/1", 64), ("9/1", 64)])
def test_pixels_that_are_no_squares_are_made_squares(tmp_path, shape, width):
    """As players show them; a shape that no camera has is a mistake."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(shape)
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, 32:] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    reader = VideoReader(path)
    ((image, _),) = reader
    reader.close()
    assert image.shape == (48, width, 3)
    assert (image[:, : width // 2 - 4] < 30).all()
    assert (image[:, width // 2 + 4 :] > 170).all()


def test_a_window_that_is_ended_leaves_nothing_lacking(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(predictor, "Predictor", lambda *_, **__: Nobody())
    Screen(monkeypatch, keys=[-1, -1, ord("q")])
    out = tmp_path / "out"
    assert main(["predict", str(ODD / "variable.mp4"), "--show", "--out", str(out)]) == 0
    assert "mtnet predict:" not in capfd.readouterr().err
    assert len(times_of(out / "variable.jsonl")) == 3


@pytest.mark.parametrize("asked", [False, True])
def test_a_camera_beside_a_video_is_recorded_only_where_it_is_asked_for(
    tmp_path, monkeypatch, asked
):
    """Before a window it ends with a key; a recording would go on until it is interrupted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "Predictor", lambda *_, **__: Nobody())
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    screen = Screen(monkeypatch, keys=[-1, ord("q")])
    words = ["predict", str(ODD / "variable.mp4"), "0", *(("--out", "heads") if asked else ())]
    assert main(words) == 0
    recorded = ["camera0.jsonl", "camera0.mp4"] if asked else []
    assert written(tmp_path / "heads") == [*recorded, "variable.jsonl", "variable.mp4"]
    assert len(screen.shown) == (0 if asked else 3)  # two frames, and the window is closed


class Unplugged(Camera):
    """Gives three frames and no more."""

    def read(self):
        good, image = super().read()
        return good and self.reads <= 3, image


def test_a_camera_that_is_unplugged_is_a_fault_and_its_recording_stays(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(predictor, "Predictor", lambda *_, **__: Nobody())
    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    assert main(["predict", "0", "--out", str(tmp_path)]) == 1
    said = "mtnet predict: camera 0 gave no more images after 3 frames, "
    assert said in capfd.readouterr().err
    monkeypatch.undo()
    assert len(times_of(tmp_path / "camera0.jsonl")) == 3
    assert len(stamps(tmp_path / "camera0.mp4")) == 3


def test_what_a_video_lacks():
    """Numbers of frames alone say nothing: a trimmed file may announce more than it shows."""
    reader = object.__new__(VideoReader)
    reader._live, reader._longest_gap, reader._may_hide_frames = False, 0.04, True
    reader._at_end, reader._skipped = True, 0.0
    reader._length = lambda: 15.0
    for count, last, damaged, broken, said in (
        (375, 14.96, 0, False, ""),
        (375, 14.96, 2, False, "2 damaged packets are left out"),
        (250, 10.0, 1, False, "ends early: 250 of 500 frames could be read, 1 damaged packets"),
        (250, 10.0, 0, True, "breaks off after 250 frames, 10.0 seconds"),
    ):
        reader.announced, reader._count, reader._last = 500, count, last
        reader.damaged, reader._broken = damaged, broken
        assert reader.lacks().startswith(said)
        assert bool(reader.lacks()) == bool(said)
