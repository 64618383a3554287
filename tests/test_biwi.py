"""The converter of BIWI: poses, projected heads, protocols, lists of boxes."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.engine import head_model
from data_prep.sets import biwi, biwi_files
from mtnet_jax.rotations import rotation_to_euler
from tests.biwi_raw import CALIBRATION, pose, project, read, write_raw

# A rotation of BIWI, with the Euler angles that are published for it.
FIXTURE = "0.45684 -0.404949 -0.792031\n-0.103806 0.860022 -0.499587\n0.883471 0.310449 0.350856"


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path)


# --- geometry ------------------------------------------------------------------------------------


def test_published_angles_survive_the_conversion(raw):
    (raw / "hpdb/01/frame_00003_pose.txt").write_text(pose(FIXTURE))
    _, records = read(raw, sequences=(1,))
    angles = rotation_to_euler(
        records["test"][0]["rotations"][0].astype(float), convention="canonical"
    )
    np.testing.assert_allclose(angles, [-52.3757, -54.9199, 41.5542], atol=2e-3)


def test_head_box_is_the_projection_with_distortion(tmp_path):
    (tmp_path / "rgb.cal").write_text(
        CALIBRATION.replace(
            "1 0 0\n0 1 0\n0 0 1\n\n-24",
            """0.8 0 0.6
0 1 0
-0.6 0 0.8

-24""",
        )
    )
    calibration = biwi_files.read_calibration(tmp_path / "rgb.cal")
    turn = Rotation.from_euler("XYZ", [20, -50, 10], degrees=True).as_matrix()
    centre, points = np.array([60.0, -40.0, 800.0]), biwi.outline("head", 0)
    box = biwi.head_box(turn, centre, calibration, points)
    pixels = project(
        [turn @ point + centre for point in points],
        np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]),
        np.array([-24.0, 6, -13]),
        np.array([[50.0, 0, 32], [0, 52, 24], [0, 0, 1]]),
        (0.05, -0.02, 0.001, -0.002),
    )
    # half a pixel: the camera matrix counts from the middle of the first pixel
    np.testing.assert_allclose(box, [*pixels.min(0) + 0.5, *pixels.max(0) + 0.5], atol=1e-6)


def test_a_sphere_is_as_large_as_its_cone(tmp_path):
    (tmp_path / "rgb.cal").write_text(
        CALIBRATION.replace("0.05 -0.02 0.001 -0.002", "0 0 0 0").replace("-24 6 -13", "0 0 0")
    )
    calibration = biwi_files.read_calibration(tmp_path / "rgb.cal")
    radius, distance = 150.0, 700.0
    points = head_model.ellipsoid_points((0, 0, 0), (radius,) * 3)
    box = biwi.head_box(np.eye(3), np.array([0, 0, distance]), calibration, points)
    tangent = radius / np.sqrt(distance**2 - radius**2)
    expected = np.array([-50, -52, 50, 52]) * tangent + [32.5, 24.5, 32.5, 24.5]
    np.testing.assert_allclose(box, expected, rtol=0.002)


def test_rules_are_named(raw):
    def rule(**options):
        return biwi.conversion(raw, sequences=(1,), **options).description.box_rule

    assert rule() == "head"
    assert rule(box_rule="sphere", radius=120) == "sphere 120 mm"
    (raw / "mine.csv").write_text("image,x1,y1,x2,y2\n01/frame_00003,1,2,30,40\n")
    assert rule(boxes=raw / "mine.csv") == "list mine.csv"


# --- splits and lists ----------------------------------------------------------------------------


def test_records_have_the_intrinsics_of_their_camera(raw):
    _, records = read(raw)
    found = [record["intrinsics"] for split in records.values() for record in split]
    np.testing.assert_array_equal(found, [[50, 52, 32.5, 24.5]] * 2)


def test_protocols():
    assert biwi.TEST_SEQUENCES["all"] == tuple(range(1, 25))
    for name in ("70-30", "subject-disjoint"):
        assert len(set(biwi.TEST_SEQUENCES[name])) == 8
        assert set(biwi.TEST_SEQUENCES[name]) <= set(range(1, 25))
    test = set(biwi.TEST_SEQUENCES["subject-disjoint"])
    for first, second in ((15, 3), (18, 5), (21, 2), (22, 1)):
        assert (first in test) == (second in test)


def test_splits_follow_the_protocol(raw):
    _, records = read(raw, protocol="70-30")
    assert [r["image_id"] for r in records["train"]] == ["01/frame_00003"]
    assert [r["image_id"] for r in records["test"]] == ["17/frame_00003"]
    _, records = read(raw)
    assert list(records) == ["test"]
    assert len(records["test"]) == 2
    _, records = read(raw / "hpdb")
    assert len(records["test"]) == 2


def test_boxes_from_a_list(raw):
    listed = raw / "boîtes.csv"
    listed.write_text("x1,y1,x2,y2,image,score\n1,2,30,40,17/frame_00003_rgb.png,0.9\n")
    report, records = read(raw, boxes=listed)
    (record,) = records["test"]
    np.testing.assert_array_equal(record["boxes"], [[1, 2, 30, 40]])
    assert report.dropped_images == {"no box in the list": ["01/frame_00003"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x1,y1,x2\n", "no column y2; the first line must be image,x1,y1,x2,y2"),
        ("", "no column image"),
        ("image,x1,y1,x2,y2\n01/a,1,2,3\n", "line 2: expected four numbers"),
        ("image,x1,y1,x2,y2\n01/a,1,2,3,big\n", "line 2: expected four numbers"),
        ("image,x1,y1,x2,y2\n01/a,1,2,3,nan\n", "line 2: expected four numbers"),
        ("image,x1,y1,x2,y2\n01/a,1,2,3,4,5\n", "line 2: expected four numbers"),
        (b"image,x1,y1,x2,y2\n\xe9,1,2,3,4\n", "line 2: byte 18 is not utf-8: save the file as"),
        ("image,x1,y1,x2,y2\n01/a,1,2,3,4\n01/a_rgb.png,1,2,3,4\n", "line 3: a second box of 01/a"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        biwi_files.read_box_list(tmp_path / "boxes.csv")


def test_lists_of_windows_and_boxes_of_no_frame(raw, tmp_path):
    rows = "17\\frame_00003_rgb.png,1,2,30,40\r\n17/frame_9,1,2,3,4\r\n"
    (tmp_path / "boxes.csv").write_bytes(f"image,x1,y1,x2,y2\r\n{rows}".encode("utf-8-sig"))
    _, records = read(raw, boxes=tmp_path / "boxes.csv")
    assert [record["image_id"] for record in records["test"]] == ["17/frame_00003"]
    made = biwi.conversion(raw, sequences=(1, 17), boxes=tmp_path / "boxes.csv")
    said = f"boxes in {tmp_path / 'boxes.csv'} of no frame that is taken"
    assert made.notes == [(said, "17/frame_9", 1)]
    with pytest.raises(FileNotFoundError, match=r"none\.csv is missing: --boxes names"):
        biwi_files.read_box_list(tmp_path / "none.csv")
