"""The converter of CMU Panoptic: layout, splits, filters, videos."""

import argparse
import json

import cv2
import numpy as np
import pytest

from data_prep.engine.builder import write_record_set
from data_prep.panoptic import converter, layout, splits
from data_prep.panoptic.converter import Options, conversion
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.panoptic_conversions import (
    FACE_UP,
    SMALL,
    STANDING,
    TEST,
    TRAIN,
    convert,
    counts,
    write_two_sequences,
)
from tests.panoptic_raw import HEAD, drawn_number, person, write_faces, write_video


@pytest.fixture
def raw(data_dir, tmp_path):
    return write_two_sequences(data_dir, tmp_path / "räw data")


# --- layout and splits ---------------------------------------------------------------------------


def test_every_sixtieth_frame_of_the_public_split(raw):
    found, report = convert(raw)
    for split, sequence in (("train", TRAIN), ("test", TEST)):
        assert sorted(found[split]) == [
            f"{sequence}/00_{camera:02d}/{frame:08d}"
            for camera in (0, 13)
            for frame in (0, 60, 120, 180)
        ]
    assert not report["dropped images"]
    record = found["train"][f"{TRAIN}/00_13/00000060"]
    assert (record["source"], len(record["boxes"])) == ("panoptic", 1)
    cameras = json.loads(layout.calibration_path(raw, TRAIN).read_text())["cameras"]
    matrix = np.array(next(c["K"] for c in cameras if (c["type"], c["node"]) == ("hd", 13)))
    expected = [matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5]
    np.testing.assert_allclose(record["intrinsics"], expected, rtol=1e-6)
    assert not record["has_heading"].any()
    found, _ = convert(raw, every=1, sequences=[TEST], cameras=[13])
    assert list(found) == ["test"]
    assert [int(name[-8:]) for name in found["test"]] == [0, 1, 60, 120, 180]


def test_the_public_lists():
    assert (len(splits.PUBLIC_TRAIN), len(splits.PUBLIC_TEST)) == (9, 8)
    assert not set(splits.PUBLIC_TRAIN) & set(splits.PUBLIC_TEST)


def test_splits_by_sequence_and_camera(raw):
    found, _ = convert(raw, train_sequences=[TEST], test_sequences=[TRAIN])
    assert {name.split("/")[0] for name in found["train"]} == {TEST}
    found, _ = convert(raw, train_sequences=["all"], test_sequences=["all"], test_cameras=[13])
    assert {name.split("/")[1] for name in found["train"]} == {"00_00"}
    assert {name.split("/")[1] for name in found["test"]} == {"00_13"}
    assert {name.split("/")[0] for name in found["test"]} == {TRAIN, TEST}
    found, _ = convert(raw, train_sequences=["all"], test_sequences=[])
    assert list(found) == ["train"]
    with pytest.raises(ValueError, match=f"{TEST} would be in train and test"):
        conversion(raw, train_sequences=["all"])
    with pytest.raises(ValueError, match=r"--test-sequences names 'x'.*160906_ian1"):
        conversion(raw, test_sequences=["x"])
    with pytest.raises(ValueError, match=r"'x', which is in neither split"):
        conversion(raw, sequences=["x"])


def test_sequences_and_folders_that_are_left_out_are_told(raw):
    assert not conversion(raw).notes
    (raw / "scripts").mkdir()
    notes = conversion(raw, train_sequences=[TRAIN], test_sequences=()).notes
    assert notes == [
        ("sequences in neither split", TEST, 1),
        ("folders without a calibration", "scripts", 1),
    ]


def test_options_that_leave_nothing_for_a_split_are_refused(raw):
    for choices in ({"test_cameras": [5]}, {"every": 7, "cameras": [0], "test_cameras": [13]}):
        with pytest.raises(
            ValueError, match=r"leave nothing for the split 'test' of .*change them"
        ):
            conversion(raw, **choices)
    (raw / TRAIN / "hdFace3d" / "faceRecon3D_hd00000000.json").unlink()
    with pytest.raises(ValueError, match="leave nothing for the split 'train'"):
        conversion(raw, every=1000)
    assert list(conversion(raw, every=1000, train_sequences=()).splits) == ["test"]


def test_sequences_outside_the_public_split_must_be_named(raw):
    for sequence in (TRAIN, TEST):
        new = raw / f"mine_{sequence}"
        (raw / sequence).rename(new)
        (new / f"calibration_{sequence}.json").rename(new / f"calibration_{new.name}.json")
    with pytest.raises(ValueError, match="is in the public split: name them in"):
        conversion(raw)


def test_frames_come_in_runs_so_that_processes_can_share_them(raw):
    for frame in range(0, 6000, 60):
        write_faces(raw, TRAIN, frame, [])
    items = conversion(raw, sequences=[TRAIN]).splits["train"]
    assert [(item.camera, item.frames[0], len(item.frames)) for item in items] == [
        (camera, start, 30 if start < 5400 else 10)
        for camera in (0, 13)
        for start in (0, 1800, 3600, 5400)
    ]


def test_listing_reads_no_json_of_frames(raw, monkeypatch):
    layout.face_path(raw, TRAIN, 0).write_text("not json")
    monkeypatch.setattr(converter, "read_faces", None)
    assert conversion(raw).splits["train"]


def test_command_and_records(raw, tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument("--raw")
    converter.add_arguments(parser)
    arguments = (
        "--raw x --every 120 --cameras 13 --sphere-radius 22 --min-file-size 0 --min-points 9"
    )
    args = parser.parse_args(arguments.split())
    args.raw = raw
    write_record_set(converter.from_arguments(args), tmp_path / "out")
    opened = RecordSet.open(tmp_path / "out")
    assert opened.box_rule == "sphere22"
    assert opened.splits == {"train": 2, "test": 2}
    source = RecordSource(tmp_path / "out", "train")
    assert source[0]["image"].shape == (144, 256, 3)
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert "171204_pose3" in info["description"]  # of the public split, not here


# --- which heads are labels ----------------------------------------------------------------------


def test_lost_faces_are_ignored_or_drop_the_frame(raw):
    lost = person(FACE_UP, STANDING + [50, 0, 0], lost=list(HEAD)[:8], number=1)
    unseen = person(FACE_UP, STANDING, lost=list(HEAD), number=2)
    write_faces(raw, TRAIN, 60, [person(FACE_UP, STANDING), lost, unseen])
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    record = found["train"][f"{TRAIN}/00_13/00000060"]
    assert record["ignore"].tolist() == [False, True]
    assert record["has_pose"].tolist() == [True, False]
    assert counts(report["ignored heads"]) == {
        "face with fewer than 7 landmarks of the reference head": 1
    }
    assert counts(report["notes"])["faces without a visible landmark (no box, not labelled)"] == 1
    options = Options(min_kilobytes=0, drop_frames_with_lost_faces=True)
    found, report = convert(raw, options, cameras=[13], sequences=[TRAIN])
    assert len(found["train"]) == 3
    assert counts(report["dropped images"]) == {"a face in the frame is lost": 1}


def camera_axes(raw, number):
    cameras = json.loads(layout.calibration_path(raw, TRAIN).read_text())["cameras"]
    camera = next(entry for entry in cameras if entry["node"] == number)
    return np.array(camera["R"]), np.array(camera["t"])[:, 0]


def test_heads_behind_beside_cut_and_too_large(raw):
    turn, shift = camera_axes(raw, 13)

    def at(x, y, z):
        return person(FACE_UP, turn.T @ (np.array([x, y, z]) - shift))

    people = {
        "behind": at(0, 0, -100.0),
        "beside": at(-400, 0, 300.0),
        "cut": at(0, 105, 300.0),
        "large": at(0, 0, 50.0),
        "good": at(0, 0, 300.0),
    }
    write_faces(raw, TRAIN, 60, list(people.values()))
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    record = found["train"][f"{TRAIN}/00_13/00000060"]
    assert record["ignore"].tolist() == [True, True, False]
    assert record["has_pose"].all()
    notes = counts(report["notes"])
    assert notes["heads behind the camera (not in the image)"] == 1
    assert notes["heads beside the image (not in it)"] == 1
    assert counts(report["ignored heads"]) == {
        "box longer than 1.5 times its shorter side (cut off)": 1,
        "box over 0.7 of the image": 1,
    }
    everything = Options(min_kilobytes=0, max_aspect=np.inf, max_size=np.inf)
    found, _ = convert(raw, everything, cameras=[13], sequences=[TRAIN])
    assert not found["train"][f"{TRAIN}/00_13/00000060"]["ignore"].any()


def test_images_without_heads(raw):
    write_faces(raw, TRAIN, 60, [])
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    assert len(found["train"]) == 3
    assert counts(report["dropped images"]) == {"no head to be found in the image": 1}
    options = Options(min_kilobytes=0, keep_empty=True)
    found, _ = convert(raw, options, cameras=[13], sequences=[TRAIN])
    assert found["train"][f"{TRAIN}/00_13/00000060"]["boxes"].shape == (0, 4)


def test_body_only_says_so(raw):
    with pytest.raises(FileNotFoundError, match=r"No body3DScene_XXXXXXXX\.json"):
        conversion(raw, Options(body_only=True))
    joints = np.zeros((19, 4))
    joints[[1, 15, 16, 17, 18], :3] = STANDING
    joints[[1, 15, 16, 17, 18], :3] += [
        [0, 0, -9],
        [3, -3, -6],
        [8, 0, 3],
        [-3, -3, -6],
        [-8, 0, 3],
    ]
    joints[[1, 15, 16, 17, 18], 3] = 0.5
    path = layout.body_path(raw, TRAIN, 60)
    path.parent.mkdir()
    path.write_text(json.dumps({"bodies": [{"id": 0, "joints19": joints.reshape(-1).tolist()}]}))
    options = Options(body_only=True, min_kilobytes=0)
    converted = conversion(raw, options, sequences=[TRAIN])
    assert converted.description.name == "panoptic_body"
    assert "COARSE" in converted.description.text
    found, _ = convert(raw, options, sequences=[TRAIN])
    assert {record["source"] for record in found["train"].values()} == {"panoptic-body"}
    assert all(record["has_pose"].all() for record in found["train"].values())
    for frame in (0, 1, 60, 120, 180):
        layout.face_path(raw, TRAIN, frame).unlink()
    with pytest.raises(FileNotFoundError, match="--body-only makes coarse poses"):
        conversion(raw, sequences=[TRAIN])


# --- videos --------------------------------------------------------------------------------------


def test_images_from_a_video_that_ends_early(raw):
    write_video(layout.video_path(raw, TRAIN, 5), range(150), size=SMALL)
    found, report = convert(raw, cameras=[5], sequences=[TRAIN])
    assert [int(name[-8:]) for name in found["train"]] == [0, 60, 120]
    for name, record in found["train"].items():
        image = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR)
        assert drawn_number(image) == int(name[-8:])
    dropped = report["dropped images"]
    assert counts(dropped) == {"the video ends before the frame, or is damaged there": 1}
    (places,) = [event["first"] for event in dropped.values()]
    assert places == [f"{TRAIN}/00_05/00000180"]


def test_images_on_disk_come_first_and_the_video_fills_in(raw):
    video = layout.video_path(raw, TRAIN, 13)
    write_video(video, range(200), size=SMALL)
    layout.image_path(raw, TRAIN, 13, 60).unlink()
    found, _ = convert(raw, cameras=[13], sequences=[TRAIN])
    names = [f"{TRAIN}/00_13/{frame:08d}" for frame in (0, 60, 120, 180)]
    assert sorted(found["train"]) == names
    on_disk = layout.image_path(raw, TRAIN, 13, 0).read_bytes()
    same = [found["train"][name]["image"] == on_disk for name in names]
    assert same == [True, False, True, True]


def test_quality_and_size_of_encoded_frames(raw):
    write_video(layout.video_path(raw, TRAIN, 5), range(150), size=SMALL)
    sizes = []
    for quality in (95, 50):
        options = Options(min_kilobytes=0, quality=quality)
        found, _ = convert(raw, options, cameras=[5], sequences=[TRAIN])
        sizes.append(len(found["train"][f"{TRAIN}/00_05/00000060"]["image"]))
    assert sizes[1] < 0.7 * sizes[0]
    limit = Options(min_kilobytes=(sizes[0] + 500) / 1024)
    found, report = convert(raw, limit, cameras=[5], sequences=[TRAIN])
    assert not found["train"]
    assert sum(counts(report["dropped images"]).values()) == 4


@pytest.mark.parametrize("content", [b"", b"no video" * 99])
def test_a_video_that_is_none(raw, content):
    path = layout.video_path(raw, TRAIN, 5)
    path.parent.mkdir()
    path.write_bytes(content)
    found, report = convert(raw, cameras=[5], sequences=[TRAIN])
    assert not found["train"]
    ((reason, count),) = counts(report["dropped images"]).items()
    assert reason.startswith("hd_00_05.mp4: the video cannot be opened")
    assert count == 4


def test_a_camera_without_images(raw):
    found, report = convert(raw, cameras=[5, 13], sequences=[TRAIN])
    assert len(found["train"]) == 4
    assert counts(report["dropped images"]) == {"no image in hdImgs and no video": 4}
