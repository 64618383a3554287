"""The studio's scenes and record sets: poses, rooms, splits, equal frames, the command."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.engine.fingerprint import fingerprint
from data_prep.engine.report import Report
from data_prep.studio import command
from data_prep.studio.random_scene import PoseSpread, SceneOptions, nod_and_tilt, random_scene
from data_prep.studio.records import TEST_IDENTITIES, FrameReader, conversion
from data_prep.studio.surroundings import random_backdrop, random_room
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from tests.studio_scenes import camera


def test_poses_stay_within_their_limits_and_go_all_the_way_round(figure):
    spread = PoseSpread(limit=40)
    headings = []
    for frame in range(25):
        options = SceneOptions(width=200, height=200, people=(3, 3), poses=spread)
        scene = random_scene(figure, options, np.arange(5), 1, frame)
        for placed in scene.people:
            seen = scene.cameras[0].rotation @ placed.head_rotation
            assert max(map(abs, nod_and_tilt(seen))) <= 40
            headings.append(np.degrees(np.arctan2(seen[0, 2], seen[2, 2])))
            neck = Rotation.from_matrix(placed.body_rotation.T @ placed.head_rotation)
            assert np.degrees(neck.magnitude()) < 90
    assert np.histogram(headings, 4, (-180, 180))[0].min() > 5


def test_nod_and_tilt_against_scipy():
    turn = Rotation.from_euler("YXZ", [100, -30, 20], degrees=True).as_matrix()
    np.testing.assert_allclose(nod_and_tilt(turn), (30, 20), atol=1e-6)


def test_rooms_have_their_walls_where_rays_meet_them():
    room = random_room(np.random.default_rng(3))
    turn = Rotation.from_euler("xy", [15, 40], degrees=True).as_matrix()
    eye = camera(60, 0.8, turn, (0.5, -1.5, 0.3))
    image, depth = room.paint(eye)
    assert image.shape == (60, 60, 3)
    for row in range(0, 60, 7):
        for column in range(0, 60, 7):
            ray = np.linalg.inv(eye.matrix) @ [column + 0.5, row + 0.5, 1]
            hit = turn.T @ (ray * depth[row, column]) + eye.position
            gaps = np.concatenate([hit - room.low, room.high - hit])
            assert gaps.min() > -1e-3  # inside
            assert abs(gaps).min() < 1e-3  # and on a wall


# --- record sets ---------------------------------------------------------------------------------


def test_a_frame_is_the_same_whatever_was_rendered_before_it(assets_dir):
    made = conversion(
        assets_dir,
        {"train": 3, "test": 1},
        options=SceneOptions(width=160, height=128, people=(1, 3)),
        seed=7,
        identities=4,
    )
    report = Report(made.description)

    def record(split, frame):
        return next(iter(made.read((split, frame), report)))

    first = record("train", 1)
    record("test", 0)
    again = record("train", 1)
    assert first["image_id"] == "studio-7-train-000001"
    assert first["image"] == again["image"]
    for field in ("boxes", "rotations", "ignore", "intrinsics"):
        np.testing.assert_array_equal(first[field], again[field])
    assert (first["intrinsics"][:2] > 0).all()
    assert not first["has_heading"].any()
    assert record("train", 2)["image"] != first["image"]


@pytest.mark.parametrize("changed", ["assets/skins/a.jpg", "targets/deep/a.target"])
def test_parts_of_other_assets_are_not_used_again(tmp_path, changed):
    """Also where a folder is a link, as in folders that are put together."""
    for name in ("assets/base.obj", "skins/a.jpg", "targets/deep/a.target"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "assets/skins").symlink_to(tmp_path / "skins")
    folders = (tmp_path / "assets", tmp_path / "targets")
    reader = FrameReader(folders[0], SceneOptions(32, 32), "head", 0, 9, folders[1])
    before = fingerprint(reader)
    assert fingerprint(reader) == before
    (tmp_path / changed).write_text("other")
    assert fingerprint(reader) != before


def test_no_person_is_in_both_splits(figure, assets_dir):
    options = SceneOptions(width=64, height=64)
    train = random_scene(figure, options, np.arange(20), 0, 0)
    assert {p.person.identity for p in train.people} <= set(range(20))
    assert TEST_IDENTITIES > 20
    with pytest.raises(ValueError, match="--identities"):
        conversion(assets_dir, {"train": 1}, options=options, identities=TEST_IDENTITIES + 1)


def studio(assets_dir, out, *options) -> int:
    small = ["--frames", "40", "--test-frames", "2", "--size", "96x64", "--people", "1-2"]
    return main(["studio", "--assets", str(assets_dir), "--out", str(out), *small, *options])


def test_the_command_refuses_what_it_cannot_do(assets_dir, tmp_path, capsys):
    for options, word in (
        (["--people", "3-64"], "63 at most"),
        (["--pose-limit", "90"], "--pose-limit 90"),
        (["--pose-limit", "1"], "--pose-limit 1: choose a number from 5"),
        (["--pitch-spread", "5-500"], "--pitch-spread: 500 is beyond 90"),
        (["--backgrounds", str(tmp_path)], "--backgrounds"),
        (["--video"], "--video has no part in --layout records: leave it out"),
        (["--layout", "panoptic", "--box-rule", "sphere18"], "--box-rule has no part in"),
        (["--layout", "biwi"], "--people has no part in --layout biwi"),
        (["--layout", "w300lp", "--people", "1-6", "--every", "2"], "--every has no part in"),
    ):
        assert studio(assets_dir, tmp_path / "out", *options) == 1
        assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for *options, word in (
        ("--head-size", "0-0.5", "above 0"),
        ("--people", "many", "many is not A-B"),
        ("--size", "axb", "axb is not WIDTHxHEIGHT"),
        ("--yaw-limit", "-10", "-10 is not a number from 0 to 180"),
        ("--yaw-limit", "nan", "nan is not a number from 0 to 180"),
        ("--wide-share", "7", "7 is not a number from 0 to 1"),
        ("--seed", "-1", "-1 is not a whole number from 0"),
        ("--test-frames", "-3", "-3 is not a whole number from 0"),
    ):
        with pytest.raises(SystemExit):
            studio(assets_dir, tmp_path / "out", *options)
        assert word in capsys.readouterr().err


def test_backgrounds_of_every_format_are_taken_and_others_counted(tmp_path, capsys):
    for name in ("a.webp", "b.JPG", "notes.txt", "._c.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in command._images(tmp_path)] == ["a.webp", "b.JPG"]
    said = capsys.readouterr().err
    assert "1 no image (.txt)" in said
    assert "1 hidden" in said


def test_a_damaged_background_is_named_with_a_cure(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.jpg: .*take it out of --backgrounds"):
        random_backdrop(np.random.default_rng(0), (tmp_path / "a.jpg",))


def test_narrow_poses_are_found_whatever_the_camera(figure):
    options = SceneOptions(width=96, height=96, people=(1, 1), poses=PoseSpread(limit=5))
    for frame in range(60):  # a quarter of the cameras look down, by 25 degrees on average
        scene = random_scene(figure, options, np.arange(5), 0, frame)
        for placed in scene.people:
            seen = scene.cameras[0].rotation @ placed.head_rotation
            assert max(map(abs, nod_and_tilt(seen))) <= 5


@pytest.mark.slow
def test_the_command_gives_the_same_files_for_any_number_of_processes(assets_dir, tmp_path):
    for processes in ("1", "2"):
        assert studio(assets_dir, tmp_path / processes, "--processes", processes) == 0
    one, two = (sorted((tmp_path / name).glob("*.tfrecord*")) for name in ("1", "2"))
    assert [path.name for path in one] == [path.name for path in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    records = RecordSource(tmp_path / "1", "test")
    assert len(records) == 2
    assert records[0]["image"].shape == (64, 96, 3)
