"""The converter of CMU Panoptic: layout, splits, filters, videos, bad input."""

import argparse
import json
import pickle

import cv2
import numpy as np
import pytest

from data_prep.engine.builder import write_record_set
from data_prep.engine.report import Report
from data_prep.panoptic import converter, layout, splits
from data_prep.panoptic.converter import Options, conversion
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.panoptic_raw import (
    HEAD,
    copy_calibration,
    drawn_number,
    noise_jpeg,
    person,
    write_faces,
    write_image,
    write_video,
)

TRAIN, TEST = "160906_pizza1", "160906_ian1"
FACE_UP = np.diag([1.0, -1.0, -1.0])
STANDING = np.array([0.0, -150.0, 0.0])
SMALL = (256, 144)


def shrink_calibration(raw, sequence):
    """The real cameras with small images: K scaled, so that videos for tests are small too."""
    path = layout.calibration_path(raw, sequence)
    content = json.loads(path.read_text())
    content["cameras"] = [camera for camera in content["cameras"] if camera["type"] == "hd"]
    for camera in content["cameras"]:
        share = SMALL[0] / 1920
        camera["resolution"] = list(SMALL)
        camera["K"] = (np.diag([share, share, 1]) @ camera["K"]).tolist()
    path.write_text(json.dumps(content))


@pytest.fixture
def raw(data_dir, tmp_path):
    """Two sequences, two cameras, frames 0 to 180 with one person; images of 256 x 144."""
    folder = tmp_path / "räw data"
    for sequence in (TRAIN, TEST):
        copy_calibration(data_dir, folder, sequence)
        shrink_calibration(folder, sequence)
        for frame in (0, 1, 60, 120, 180):
            write_faces(folder, sequence, frame, [person(FACE_UP, STANDING)])
            for camera in (0, 13):
                write_image(folder, sequence, camera, frame, noise_jpeg(*SMALL))
    return folder


def convert(raw, options=None, **choices):
    """Split -> image_id -> record, and the report."""
    converted = conversion(raw, options or Options(min_kilobytes=0), **choices)
    converted = pickle.loads(pickle.dumps(converted))  # as another process sees it
    report = Report(converted.description)
    found = {
        split: {
            record["image_id"]: record for item in items for record in converted.read(item, report)
        }
        for split, items in converted.splits.items()
    }
    return found, report.as_dict()


def counts(events: dict) -> dict[str, int]:
    return {reason: event["count"] for reason, event in events.items()}


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


# --- bad input -----------------------------------------------------------------------------------


def test_damaged_images_are_named(raw):
    paths = [layout.image_path(raw, TRAIN, 13, frame) for frame in (0, 60, 120)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-2000])
    paths[2].write_bytes(noise_jpeg(128, 72))
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    assert list(found["train"]) == [f"{TRAIN}/00_13/00000180"]
    reasons = " | ".join(report["dropped images"])
    assert "0 bytes" in reasons
    assert "cut short" in reasons
    assert "the image is 128x72, its calibration for 256x144" in reasons
    _, report = convert(raw, Options(min_kilobytes=1000), cameras=[13], sequences=[TRAIN])
    assert counts(report["dropped images"]) == {"the image has less than 1000 KB (damaged)": 4}


def test_png_images(raw):
    old = layout.image_path(raw, TRAIN, 13, 60)
    image = cv2.imread(str(old))
    old.unlink()
    cv2.imwrite(str(old.with_suffix(".png")), image)
    found, _ = convert(raw, cameras=[13], sequences=[TRAIN])
    assert found["train"][f"{TRAIN}/00_13/00000060"]["image"][1:4] == b"PNG"


FACE_FAULTS = {
    "cut short": (lambda text: text[: len(text) // 2], "not valid JSON"),
    "empty": (lambda text: "", "not valid JSON"),
    "another format": (lambda text: '{"bodies": []}', "no list 'people'"),
    "69 landmarks": (
        lambda text: json.dumps({"people": [{"face70": {"landmarks": [0.0] * 207}}]}),
        "face70.landmarks must be 210 numbers",
    ),
    "no scores": (
        lambda text: text.replace("averageScore", "score"),
        "face70.averageScore must be 70 numbers",
    ),
}


@pytest.mark.parametrize("fault", FACE_FAULTS)
def test_a_face_file_that_cannot_be_read_drops_its_frame(raw, fault):
    spoil, message = FACE_FAULTS[fault]
    path = layout.face_path(raw, TRAIN, 60)
    path.write_text(spoil(path.read_text()))
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    assert len(found["train"]) == 3
    ((reason, count),) = counts(report["dropped images"]).items()
    assert (count, message in reason) == (1, True)


def camera_fault(**changes):
    def spoil(content):
        for camera in content["cameras"]:
            if camera["node"] == 13:
                camera.update(changes)
        return content

    return spoil


CALIBRATION_FAULTS = {
    "not orthonormal": (camera_fault(R=(2 * np.eye(3)).tolist()), "'R' is not a rotation"),
    "mirrored": (camera_fault(R=np.diag([1.0, 1, -1]).tolist()), "'R' is not a rotation"),
    "NaN": (camera_fault(t=[[float("nan")], [0], [0]]), "'t' is not finite"),
    "four distortions": (camera_fault(distCoef=[0.0] * 4), "'distCoef' must be 5 numbers"),
    "no focal length": (camera_fault(K=np.zeros((3, 3)).tolist()), "'K' is no camera matrix"),
    "no size": (camera_fault(resolution=[0, 0]), "'resolution' must be"),
    "camera missing": (
        lambda content: {"cameras": [c for c in content["cameras"] if c["node"] != 13]},
        "has no HD camera 13",
    ),
    "VGA only": (camera_fault(), "has no camera of panel 0"),
    "no cameras": (lambda content: [], "has no camera of panel 0"),
}


@pytest.mark.parametrize("fault", CALIBRATION_FAULTS)
def test_a_calibration_that_cannot_be_stops_the_conversion(raw, fault):
    spoil, message = CALIBRATION_FAULTS[fault]
    path = layout.calibration_path(raw, TRAIN)
    content = spoil(json.loads(path.read_text()))
    if fault == "VGA only":
        for camera in content["cameras"]:
            camera["panel"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        conversion(raw)
    assert str(path) in str(error.value)


def test_a_calibration_cut_short(raw):
    path = layout.calibration_path(raw, TRAIN)
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ValueError, match=r"calibration_160906_pizza1.json is not valid JSON"):
        conversion(raw)


def test_the_calibration_of_another_sequence(raw):
    path = layout.calibration_path(raw, TRAIN)
    path.rename(path.with_name(f"calibration_{TEST}.json"))
    with pytest.raises(FileNotFoundError, match="the calibration of another sequence"):
        conversion(raw)


def test_folders_without_data(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"getData\.sh"):
        conversion(tmp_path / "empty")
    for camera in (0, 13):
        for path in (raw / TRAIN / "hdImgs" / f"00_{camera:02d}").iterdir():
            path.unlink()
        path.parent.rmdir()
    with pytest.raises(FileNotFoundError, match="there are no images"):
        conversion(raw)
