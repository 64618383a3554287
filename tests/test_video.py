"""Videos and cameras: synthetic ones, written by OpenCV and read back."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.predict import video
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.predict.video import as_video, predict_video

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


@pytest.fixture
def command(monkeypatch, weights, predictor):
    """Runs `mtnet predict` with the tiny network; returns the exit code."""
    monkeypatch.setattr(Predictor, "load", lambda folder, **options: predictor)
    return lambda *words: main(["predict", *map(str, words), "--weights", str(weights)])


def test_a_video_becomes_a_video_and_json_lines(tmp_path, predictor):
    path = write_video(tmp_path / "in" / "two people.avi", "MJPG")
    played = predict_video(predictor, path, out=tmp_path / "out", cube=True)
    assert (played.frames, played.announced, played.ended_early) == (FRAMES, FRAMES, False)
    assert played.seconds > 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["two people.jsonl", "two people.mp4"]

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
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.jsonl", "good.mp4"]


def test_usage_errors_name_the_cure(command, tmp_path, capsys, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    before = path.read_bytes()
    other = write_video(tmp_path / "other" / "a.avi", "MJPG")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(video.sys, "platform", "linux")
    for words, cure in (
        ((path, "--json", tmp_path / "h.json"), "needs --out DIR"),
        ((path, "--out", tmp_path), "choose another folder"),
        ((path, "--out", tmp_path / "o", "--json", tmp_path / "h.json"), "JSON lines"),
        ((path, other, "--out", tmp_path / "o"), "called 'a'"),
        (("0",), "give --out DIR"),
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
    assert as_video(Path("picture.jpg")) is None
    assert as_video(Path("clip.MOV")) == Path("clip.MOV")
    Path("0").mkdir()
    assert as_video(Path("0")) is None


def test_a_camera_is_written_until_it_is_interrupted(tmp_path, monkeypatch, predictor):
    camera = Camera(3)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    played = predict_video(predictor, 3, out=tmp_path)
    assert played.frames == 100
    assert not played.ended_early
    assert camera.released
    monkeypatch.undo()
    rate, drawn = read_video(tmp_path / "camera3.mp4")
    assert (rate, len(drawn)) == (25.0, 100)
    assert len((tmp_path / "camera3.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize("way", ["q", "escape", "closed"])
def test_a_live_window_ends(monkeypatch, predictor, way):
    shown, camera = [], Camera(0)
    last = lambda: len(shown) == 4  # noqa: E731
    key = {"q": ord("q"), "escape": 27, "closed": -1}[way]
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    monkeypatch.setattr(video, "_check_screen", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda window, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: key if last() else -1)
    closed = lambda *_: 0.0 if way == "closed" and last() else 1.0  # noqa: E731
    monkeypatch.setattr(cv2, "getWindowProperty", closed)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(None))
    assert predict_video(predictor, 0, out=None).frames == 4
    assert shown[-1] is None  # the window is gone
    assert camera.released


def test_a_camera_that_is_not_there(monkeypatch, predictor, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(number, opens=False))
    with pytest.raises(ValueError, match="Camera 7 cannot be opened: is it connected"):
        predict_video(predictor, 7, out=tmp_path)
