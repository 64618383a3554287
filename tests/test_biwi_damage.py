"""The converter of BIWI on broken files: each is named, and dropped or refused."""

import struct
from pathlib import Path

import pytest

from data_prep.sets import biwi, biwi_files
from tests.biwi_raw import CALIBRATION, png, pose, read, write_raw


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (pose("nan 0 0\n0 1 0\n0 0 1"), "the pose is not finite"),
        (pose(centre="1 inf 900"), "the pose is not finite"),
        (pose("1 0.1 0\n0 1 0\n0 0 1"), "the rotation is not a rotation matrix"),
        (pose("-1 0 0\n0 1 0\n0 0 1"), "the rotation is not a rotation matrix"),
        (pose(centre="0 0 -900"), "the head is nearer than 200 mm"),
        (pose(centre="0 0"), "the pose cannot be read"),
        ("no numbers", "the pose cannot be read"),
        ("", "the pose cannot be read"),
        (None, "no pose.txt, nothing in db_annotations"),
    ],
)
def test_frames_without_a_good_pose_are_dropped(raw, text, reason):
    path = raw / "hpdb/01/frame_00003_pose.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    report, records = read(raw)
    assert [r["image_id"] for r in records["test"]] == ["17/frame_00003"]
    assert list(report.dropped_images) == [reason]
    assert "01" in report.dropped_images[reason][0]


def test_a_frame_whose_head_is_outside_is_dropped(raw):
    (raw / "hpdb/01/frame_00003_pose.txt").write_text(pose(centre="9000 0 900"))
    report, records = read(raw)
    assert [r["image_id"] for r in records["test"]] == ["17/frame_00003"]
    assert report.dropped_images == {"its only head was dropped": ["01/frame_00003"]}


def test_a_short_annotation_is_dropped(raw):
    (raw / "hpdb/01/frame_00003_pose.txt").unlink()
    (raw / "db_annotations/01").mkdir(parents=True)
    (raw / "db_annotations/01/frame_00003_pose.bin").write_bytes(b"\0" * 20)
    report, _ = read(raw)
    assert "20 bytes, expected 24" in report.dropped_images["the pose cannot be read"][0]


@pytest.mark.parametrize("content", [b"", png()[:-300], png()[:40], png((32, 24))])
def test_bad_images_are_dropped(raw, content):
    (raw / "hpdb/01/frame_00003_rgb.png").write_bytes(content)
    report, records = read(raw)
    assert [r["image_id"] for r in records["test"]] == ["17/frame_00003"]
    ((place,),) = report.dropped_images.values()
    assert "frame_00003" in place


def test_missing_parts_stop_the_conversion(raw):
    with pytest.raises(FileNotFoundError, match=r"No .*02.*name it with --sequences"):
        biwi.conversion(raw)
    (raw / "hpdb/17/rgb.cal").unlink()
    with pytest.raises(FileNotFoundError, match=r"17/rgb\.cal is missing"):
        biwi.conversion(raw, sequences=(1, 17))
    with pytest.raises(ValueError, match="--sequences names none"):
        biwi.conversion(raw, sequences=())
    with pytest.raises(ValueError, match="Protocol 'half'"):
        biwi.conversion(raw, sequences=(1,), protocol="half")
    with pytest.raises(ValueError, match="Box rule 'face'"):
        biwi.conversion(raw, sequences=(1,), box_rule="face")
    with pytest.raises(ValueError, match="must be above 0"):
        biwi.conversion(raw, sequences=(1,), radius=float("nan"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("64 48", "64", "26 numbers, expected 27: camera matrix"),
        ("50 0 32", "50 zero 32", "expected numbers only"),
        ("1 0 0\n0 1 0\n0 0 1\n\n-24", "1 0 0\n0 1 0\n0 9 1\n\n-24", "not a rotation matrix"),
        ("-24 6", "nan 6", "not finite"),
    ],
)
def test_bad_calibrations_stop_the_conversion(raw, old, new, message):
    (raw / "hpdb/01/rgb.cal").write_text(CALIBRATION.replace(old, new))
    with pytest.raises(ValueError, match=rf"rgb\.cal: .*{message}"):
        biwi.conversion(raw, sequences=(1,))


# --- depth ---------------------------------------------------------------------------------------


def runs(*pairs, width=4, height=2) -> bytes:
    content = struct.pack("<ii", width, height)
    for empty, values in pairs:
        content += struct.pack(f"<ii{len(values)}h", empty, len(values), *values)
    return content


def test_depth_runs(tmp_path):
    path = tmp_path / "depth.bin"
    path.write_bytes(runs((1, [5, 6, 7]), (3, [900])))
    assert biwi_files.read_depth(path).tolist() == [[0, 5, 6, 7], [0, 0, 0, 900]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, expected a header"),
        (runs((1, [5, 6, 7])), "ends at pixel 4 of 8"),
        (runs((1, [5, 6, 7]), (3, [900]))[:-1], "leaves the image or the file"),
        (runs((1, [5, 6, 7]), (6, [900])), "leaves the image or the file"),
        (runs((-1, [5])), "leaves the image or the file"),
        (runs((0, [])), "an empty run"),
        (runs((8, [])) + b"x", "1 bytes follow"),
        (runs(width=-4), "claims -4x2 pixels"),
        (runs(width=1 << 20, height=1 << 20), "claims 1048576x1048576 pixels"),
    ],
)
def test_broken_depth_is_named(tmp_path, content, message):
    (tmp_path / "depth.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        biwi_files.read_depth(tmp_path / "depth.bin")
