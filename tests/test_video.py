"""Videos and cameras: synthetic ones, written by OpenCV and read back."""

import itertools
import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.errors import FileInTheWay, Unavailable
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict import video_files, window
from mtnet_jax.predict.files import predict_files
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.predict.video import as_video, predict_video
from tests.conftest import REPOSITORY
from tests.image_files import written

FRAMES, RATE, SIZE = 12, 10.0, (64, 48)


def frame(number: int) -> np.ndarray:
    """(48, 64, 3) BGR noise, a frame brighter than the one before."""
    noise = np.random.default_rng(number).integers(0, 80, (SIZE[1], SIZE[0], 3))
    return (noise + 14 * number).astype(np.uint8)


def write_video(path: Path, code: str = "mp4v") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), RATE, SIZE)
    assert writer.isOpened()
    for number in range(FRAMES):
        writer.write(frame(number))
    writer.release()
    return path


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1][..., ::-1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate, frames


def open_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def command(monkeypatch, weights, predictor):
    """Runs `mtnet predict` with the tiny network; returns the exit code."""
    monkeypatch.setattr(Predictor, "load", lambda folder, **options: predictor)
    return lambda *words: main(["predict", *map(str, words), "--weights", str(weights)])


def test_a_video_becomes_a_video_and_json_lines(tmp_path, predictor):
    path = write_video(tmp_path / "in" / "two people.avi", "MJPG")
    played = predict_video(predictor, path, out=tmp_path / "out", cube=True)
    assert (played.frames, played.lacks, played.unwritten) == (FRAMES, "", "")
    assert played.seconds > 0
    assert written(tmp_path / "out") == ["two people.jsonl", "two people.mp4"]

    rate, drawn = read_video(tmp_path / "out" / "two people.mp4")
    assert rate == RATE
    assert len(drawn) == FRAMES
    _, originals = read_video(path)
    lines = (tmp_path / "out" / "two people.jsonl").read_text().splitlines()
    assert len(lines) == FRAMES
    assert any(json.loads(line)["heads"] for line in lines)
    for number, (line, original) in enumerate(zip(lines, originals, strict=True)):
        entry = json.loads(line)
        assert list(entry) == ["frame", "seconds", "width", "height", "heads"]
        assert entry["frame"] == number
        assert entry["seconds"] == pytest.approx(number / RATE)
        assert (entry["width"], entry["height"]) == SIZE
        assert entry["heads"] == [h.to_json() for h in predictor(original)]
        if entry["heads"]:
            assert np.abs(drawn[number].astype(int) - original).mean() > 1  # something is drawn


def test_the_command_prints_a_rate(command, tmp_path, capsys):
    path = write_video(tmp_path / "a.mp4")
    assert command(path, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{path}: {FRAMES} frames, ")
    assert float(said[0].split(", ")[1].split()[0]) > 0
    assert str(tmp_path / "out") in said[1]


def test_a_video_that_ends_early_keeps_what_was_read(command, tmp_path, capfd):
    path = write_video(tmp_path / "a.avi", "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert command(path, "--out", tmp_path / "out") == 1
    (error,) = [line for line in capfd.readouterr().err.splitlines() if "mtnet predict" in line]
    count = len((tmp_path / "out" / "a.jsonl").read_text().splitlines())
    assert 0 < count < FRAMES
    assert f"{path} ends early: {count} of {FRAMES} frames" in error


def test_videos_that_cannot_be_read_do_not_stop_the_others(command, tmp_path, capfd):
    text, cut = tmp_path / "text.mp4", write_video(tmp_path / "cut.mp4")
    text.write_text("no video")
    cut.write_bytes(cut.read_bytes()[:2000])  # its index stood at its end
    good, missing = write_video(tmp_path / "good.mp4"), tmp_path / "missing.mp4"
    assert command(text, missing, cut, good, "--out", tmp_path / "out") == 1
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("mtnet predict")]
    for path, error in zip((text, missing, cut), errors, strict=True):
        assert str(path) in error
    assert "damaged" in errors[0]
    assert f"{good}: {FRAMES} frames" in captured.out
    assert written(tmp_path / "out") == ["good.jsonl", "good.mp4"]


def test_usage_errors_name_the_cure(command, tmp_path, capsys, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    before = path.read_bytes()
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(window.sys, "platform", "linux")
    for words, cure in (
        ((path, "--json", tmp_path / "h.json"), "are for images: the heads of a video go to --out"),
        ((path, "--out", tmp_path), "is one of the inputs"),
        ((path, "--out", tmp_path / "o", "--json", tmp_path / "h.json"), "JSON lines"),
        (("0",), "with --out DIR"),
        ((path, "--out", tmp_path / "o", "--save-crops"), "are for images"),
    ):
        assert command(*words) == 1
        assert cure in capsys.readouterr().err
    assert path.read_bytes() == before


# --- cameras -------------------------------------------------------------------------------------


class Camera:
    """Stands in for cv2.VideoCapture: endless frames, and what drivers say of themselves."""

    def __init__(self, number, *, opens=True):
        self.number, self.opens, self.reads, self.released = number, opens, 0, False

    def isOpened(self):
        return self.opens

    def get(self, what):
        return {cv2.CAP_PROP_FRAME_COUNT: -1.0, cv2.CAP_PROP_FPS: 0.0}[what]

    def read(self):
        self.reads += 1
        if self.reads > 100:
            raise KeyboardInterrupt
        return True, frame(self.reads % FRAMES)

    def release(self):
        self.released = True


def test_a_number_is_a_camera_unless_a_file_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_video(Path("0")) == 0
    assert as_video(Path("image.jpg")) is None
    assert as_video(Path("clip.MOV")) == Path("clip.MOV")
    Path("0").mkdir()
    assert as_video(Path("0")) is None


def test_a_camera_is_written_until_it_is_interrupted(tmp_path, monkeypatch, predictor):
    camera = Camera(3)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    played = predict_video(predictor, 3, out=tmp_path)
    assert played.frames == 100
    assert not played.lacks
    assert camera.released
    monkeypatch.undo()
    _, drawn = read_video(tmp_path / "camera3.mp4")
    assert len(drawn) == 100
    times = [json.loads(line)["seconds"] for line in open_lines(tmp_path / "camera3.jsonl")]
    assert times[0] == 0
    assert len(times) == 100
    assert times == sorted(times)  # the clock's, not those of a rate that nobody knows


class Screen:
    """Stands for OpenCV's windows: what is shown, and the keys of a user."""

    def __init__(self, monkeypatch, *, keys=(), closes_after=None):
        self.shown, self._keys, self._closes_after = [], list(keys), closes_after
        monkeypatch.setattr(window, "_check_screen", lambda: None)
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda wait: self._keys.pop(0) if self._keys else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", self._visible)
        monkeypatch.setattr(cv2, "destroyAllWindows", lambda: self.shown.append(None))

    def _visible(self, *_) -> float:
        return 0.0 if len(self.shown) == self._closes_after else 1.0


@pytest.mark.parametrize("way", ["q", "escape", "closed"])
@pytest.mark.parametrize("files", [False, True])
def test_a_live_window_ends(monkeypatch, predictor, tmp_path, way, files):
    key = {"q": ord("q"), "escape": 27, "closed": -1}[way]
    screen = Screen(
        monkeypatch, keys=[-1, -1, -1, key], closes_after=4 if way == "closed" else None
    )
    camera = Camera(0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    out = tmp_path if files else None
    assert predict_video(predictor, 0, out=out, show=files).frames == 4
    assert [image is None for image in screen.shown] == [False] * 4 + [True]  # the window is gone
    assert camera.released
    if files:
        assert len(open_lines(tmp_path / "camera0.jsonl")) == 4
        # What a camera showed cannot be recorded again: the next run replaces nothing.
        again = Camera(0)
        monkeypatch.setattr(cv2, "VideoCapture", lambda number: again)
        before = (tmp_path / "camera0.mp4").read_bytes()
        screen._keys, screen.shown = [-1, ord("q")], []
        predict_video(predictor, 0, out=tmp_path, show=True)
        assert (tmp_path / "camera0.mp4").read_bytes() == before
        assert len(list(tmp_path.glob("camera0*.jsonl"))) == 2


def test_images_are_shown_until_a_key_is_pressed(monkeypatch, predictor, tmp_path):
    """The second key ends the window, and the third image is predicted all the same."""
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((40, 50, 3), np.uint8))
    screen = Screen(monkeypatch, keys=[-1, -1, ord(" "), -1, ord("q")])
    screen_of = window.Window()
    assert not predict_files(predictor, paths, out=tmp_path / "o", json_file=None, window=screen_of)
    assert [image is None for image in screen.shown] == [False, False, True]
    assert len(list((tmp_path / "o").glob("*.png"))) == 3


def test_without_a_screen_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(window.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        Unavailable, match=r"No screen for a window: .* with --out DIR and without --show"
    ):
        window.Window()


def test_a_camera_that_is_not_there(monkeypatch, predictor, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(number, opens=False))
    with pytest.raises(ValueError, match="Camera 7 cannot be opened: is it connected"):
        predict_video(predictor, 7, out=tmp_path)


# --- times ---------------------------------------------------------------------------------------

ODD = REPOSITORY / "tests" / "odd"


class Nobody:
    """A predictor that finds no heads."""

    class_names = ("head",)

    def __call__(self, image):
        return []


def times_of(path: Path) -> list[float]:
    return [json.loads(line)["seconds"] for line in open_lines(path)]


def stamps(path: Path) -> list[float]:
    """Times of the frames of a video, in seconds."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def uneven_video(path: Path, times: list[float], code: str = "libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(code)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(times):
            image = av.VideoFrame.from_ndarray(frame(number % FRAMES), format="bgr24")
            image.pts, image.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv", "slowmotion_211222.mov"])
def test_each_frame_has_its_own_time_and_the_overlay_keeps_it(tmp_path, name):
    played = predict_video(Nobody(), ODD / name, out=tmp_path)
    assert (played.lacks, played.unwritten) == ("", "")
    stem, truth = Path(name).stem, stamps(ODD / name)
    assert times_of(tmp_path / f"{stem}.jsonl") == pytest.approx(truth, abs=1e-4)
    assert stamps(tmp_path / f"{stem}.mp4") == pytest.approx(truth, abs=1e-4)


def test_times_that_begin_anew_go_on(tmp_path):
    """Files joined byte by byte, as MPEG's may be: each part has its own times from its start."""
    part = uneven_video(tmp_path / "part.ts", [0.0, 0.1, 0.2, 0.3])
    path = tmp_path / "joined.ts"
    path.write_bytes(3 * part.read_bytes())
    assert sum(b < a for a, b in itertools.pairwise(stamps(path))) == 2
    played = predict_video(Nobody(), path, out=tmp_path)
    assert (played.frames, played.lacks, played.unwritten) == (12, "", "")
    times = times_of(tmp_path / "joined.jsonl")
    for first in (0, 4, 8):
        assert np.diff(times[first : first + 4]) == pytest.approx([0.1] * 3, abs=1e-3)
    for last in (3, 7):
        assert 0.01 <= times[last + 1] - times[last] <= 0.2
    assert stamps(tmp_path / "joined.mp4") == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".3gp", ".mov"])
def test_times_in_every_container(tmp_path, suffix):
    truth = [0.0, 0.1, 0.15, 1.0, 1.04, 3.5]
    path = uneven_video(tmp_path / f"clip{suffix}", truth)
    assert as_video(path) == path
    played = predict_video(Nobody(), path, out=tmp_path / "out")
    assert played.lacks == ""
    assert times_of(tmp_path / "out" / "clip.jsonl") == pytest.approx(truth, abs=2e-3)
    assert stamps(tmp_path / "out" / "clip.mp4") == pytest.approx(truth, abs=2e-3)


def test_the_overlay_is_of_a_kind_that_browsers_play(tmp_path):
    predict_video(Nobody(), ODD / "variable.mp4", out=tmp_path)
    with av.open(str(tmp_path / "variable.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_a_video_that_lacks_its_end_says_so(tmp_path):
    played = predict_video(Nobody(), ODD / "tail.mkv", out=tmp_path)
    assert "ends early: after 0.0 of 1.2 seconds" in played.lacks
    assert times_of(tmp_path / "tail.jsonl") == [0.0]


def test_without_an_encoder_the_numbers_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(video_files, "ENCODERS", ("no_such_encoder",))
    played = predict_video(Nobody(), ODD / "variable.mp4", out=tmp_path)
    assert "variable.mp4 cannot be written: FFmpeg cannot encode" in played.unwritten
    assert len(times_of(tmp_path / "variable.jsonl")) == 20
    assert written(tmp_path) == ["variable.jsonl"]


def test_an_encoder_that_fails_on_the_way_leaves_the_numbers(tmp_path, monkeypatch):
    def full(self, image, seconds):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video_files.VideoWriter, "write", full)
    played = predict_video(Nobody(), ODD / "variable.mp4", out=tmp_path)
    assert "No space left" in played.unwritten
    assert len(times_of(tmp_path / "variable.jsonl")) == 20
    assert written(tmp_path) == ["variable.jsonl"]


def test_two_videos_of_one_name_and_a_second_run(tmp_path):
    for _ in range(2):
        outputs = Outputs("predict")
        for folder in ("a", "b"):
            path = tmp_path / folder / "clip.avi"
            if not path.exists():
                write_video(path, "MJPG")
            predict_video(Nobody(), path, out=tmp_path / "out", outputs=outputs)
    names = ["clip.jsonl", "clip.mp4", "clip_2.jsonl", "clip_2.mp4"]
    assert written(tmp_path / "out") == names


def test_a_foreign_video_is_not_replaced(tmp_path):
    (tmp_path / "variable.mp4").write_bytes(b"of the user")
    with pytest.raises(FileInTheWay, match=r"variable\.mp4"):
        predict_video(Nobody(), ODD / "variable.mkv", out=tmp_path)
    assert (tmp_path / "variable.mp4").read_bytes() == b"of the user"
    assert written(tmp_path) == ["variable.mp4"]


def test_an_interruption_leaves_lines_and_a_video_that_plays(tmp_path):
    class Impatient(Nobody):
        calls = 0

        def __call__(self, image):
            self.calls += 1
            if self.calls == 12:  # the first compiles
                raise KeyboardInterrupt
            return []

    with pytest.raises(KeyboardInterrupt):
        predict_video(Impatient(), ODD / "variable.mp4", out=tmp_path)
    assert times_of(tmp_path / "variable.jsonl") == pytest.approx([i / 10 for i in range(10)])
    assert len(stamps(tmp_path / "variable.mp4")) == 10
