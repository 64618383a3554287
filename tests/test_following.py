"""`mtnet predict --track`: what it adds to the files of a video and to the terminal."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("trackers", reason="tracking is an extra: pip install -e '.[track]'")

from mtnet_jax.cli import main
from mtnet_jax.predict import predictor
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.head import Head
from tests.test_video import RATE, read_video, write_video

TURN = 9.0  # degrees a frame


class Turning:
    """A network that sees one head turn over the seam, with a tremble."""

    class_names = ("head",)

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        # The first call compiles; the frames come after it.
        yaw = 135 + TURN * (self.calls - 1) + 3 * (-1) ** self.calls
        self.calls += 1
        rotation = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        return [Head((20, 10, 44, 40), 0.9, rotation, (yaw + 180) % 360 - 180, 0, 0, "head")]


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(predictor, "Predictor", lambda weights, **options: Turning())
    video = write_video(tmp_path / "a.mp4")
    words = ["predict", str(video), "--weights", "any", "--out", str(tmp_path / "out")]
    return lambda *more: (main([*words, *more]), tmp_path / "out")


def test_lines_keep_the_raw_pose_beside_the_smoothed_one(run):
    code, out = run("--track")
    assert code == 0
    heads = [json.loads(line)["heads"][0] for line in (out / "a.jsonl").read_text().splitlines()]
    assert [h["track"] for h in heads] == [None, *[1] * 11]
    assert heads[0]["smoothed"] is None
    for number, h in enumerate(heads):
        yaw = 135 + TURN * number + 3 * (-1) ** (number + 1)
        assert np.rad2deg(np.sin(np.deg2rad(h["yaw"] - yaw))) == pytest.approx(0, abs=1e-2)
    for h in heads[1:]:
        raw, smoothed = (Rotation.from_matrix(x["rotation"]) for x in (h, h["smoothed"]))
        assert np.rad2deg((raw.inv() * smoothed).magnitude()) < 30
        assert smoothed.as_matrix()[0, 2] == pytest.approx(
            np.sin(np.deg2rad(h["smoothed"]["yaw"])), abs=1e-4
        )


def test_summary_and_timeline_lie_beside_the_video(run, capsys):
    code, out = run("--track")
    assert code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [".mtnet-made.jsonl", "a.jsonl", "a.mp4", "a.summary.json", "a.timeline.png"]
    (person,) = json.loads((out / "a.summary.json").read_text())["persons"]
    assert person["track"] == 1
    assert person["seen"] == pytest.approx(11 / RATE)
    assert person["seconds"]["away"] == pytest.approx(11 / RATE)
    assert cv2.imread(str(out / "a.timeline.png")) is not None
    said = capsys.readouterr().out.splitlines()
    assert said[-1].split()[:2] == ["1", "1.1"]
    assert "away" in said[-2]


def test_without_track_nothing_of_it(run):
    code, out = run()
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [".mtnet-made.jsonl", "a.jsonl", "a.mp4"]
    (head,) = json.loads((out / "a.jsonl").read_text().splitlines()[5])["heads"]
    assert "track" not in head


def test_the_drawing_carries_the_number(run):
    _, out = run("--track")
    _, with_number = read_video(out / "a.mp4")
    _, out = run()
    _, without = read_video(out / "a.mp4")
    assert np.abs(with_number[6].astype(int) - without[6]).max() > 100


def test_names_are_drawn_before_the_score():
    image = np.zeros((200, 300, 3), np.uint8)
    heads = {"boxes": [[100, 80, 160, 150]], "rotations": [np.eye(3)], "scores": [0.5]}
    plain = draw_heads(image, heads)
    assert np.array_equal(plain, draw_heads(image, {**heads, "names": [""]}))
    named = draw_heads(image, {**heads, "names": ["#12"]})
    assert (named != plain).any()


def test_track_is_for_videos(tmp_path, capsys):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((9, 9, 3), np.uint8))
    words = ("predict", str(image), "--weights", "any", "--out", str(tmp_path / "o"), "--track")
    assert main(list(words)) == 1
    assert "--track is for videos and cameras" in capsys.readouterr().err
