"""BIWI's real frames: angles, boxes over heads, depth, the annotations beside them."""

import shutil
import struct

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.sets import biwi, biwi_files
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.rotations import rotation_to_euler
from tests.biwi_raw import project, read, real_frame


def test_angles_of_the_real_frame(data_dir):
    folder = real_frame(data_dir)
    report, records = read(data_dir / "biwi", sequences=(12,))
    (record,) = records["test"]
    rows = np.loadtxt(folder / "frame_00054_pose.txt", max_rows=3)
    np.testing.assert_allclose(record["rotations"][0], rows, atol=1e-5)
    # canonical is Rx(-pitch) Ry(yaw) Rz(roll): intrinsic XYZ angles with the first one turned
    x, y, z = Rotation.from_matrix(rows).as_euler("XYZ", degrees=True)
    angles = rotation_to_euler(record["rotations"][0].astype(float), convention="canonical")
    np.testing.assert_allclose(angles, [y, -x, z], atol=1e-3)
    assert (angles[:2] > 20).all()  # he looks up and to the left of the image
    assert record["image"] == (folder / "frame_00054_rgb.png").read_bytes()
    assert record["image_id"] == "12/frame_00054"
    # rgb.cal calls the middle of the first pixel 0.
    matrix = np.loadtxt(folder / "rgb.cal", max_rows=3)
    expected = [matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5]
    np.testing.assert_allclose(record["intrinsics"], expected, rtol=1e-6)
    assert not record["has_heading"].any()
    assert not report.dropped_images


@pytest.mark.parametrize(
    ("frame", "by_hand", "rule", "least"),
    [  # the man of 12 has a large head: his hair leaves the average one
        ("12/frame_00054", [293, 135, 400, 270], "head", 0.7),
        ("12/frame_00054", [293, 135, 400, 270], "sphere", 0.7),
        ("01/frame_00170", [297, 190, 394, 314], "head", 0.85),
        ("01/frame_00170", [297, 190, 394, 314], "sphere", 0.7),
    ],
)
def test_boxes_lie_over_the_heads_of_real_frames(data_dir, frame, by_hand, rule, least):
    real_frame(data_dir)
    _, records = read(data_dir / "biwi", sequences=(1, 12), box_rule=rule)
    boxes = {record["image_id"]: record["boxes"] for record in records["test"]}
    assert iou_xyxy(boxes[frame], np.array([by_hand], float))[0] > least


def test_the_box_lies_over_the_depth_of_the_head(data_dir):
    # The depth camera sees the man against nothing: what is above his chin is his head.
    folder = real_frame(data_dir)
    depth = biwi_files.read_depth(folder / "frame_00054_depth.bin")
    numbers = np.array((folder / "rgb.cal").read_text().split(), float)
    matrix, turn, shift = numbers[:9].reshape(3, 3), numbers[13:22].reshape(3, 3), numbers[22:25]
    rows, columns = np.nonzero(depth[:260])
    z = depth[rows, columns].astype(float)
    cloud = np.stack([(columns - 320) / 575.816 * z, (rows - 240) / 575.816 * z, z], axis=1)
    pixels = project(cloud, turn, shift, matrix)
    _, records = read(data_dir / "biwi", sequences=(12,))
    left, top, right, bottom = records["test"][0]["boxes"][0]
    inside = (pixels[:, 0] > left) & (pixels[:, 0] < right)
    inside &= (pixels[:, 1] > top) & (pixels[:, 1] < bottom)
    assert inside.mean() > 0.85
    seen = np.array([[*np.percentile(pixels, 0.5, axis=0), *np.percentile(pixels, 99.5, axis=0)]])
    assert iou_xyxy(records["test"][0]["boxes"], seen)[0] > 0.7


def test_depth_of_the_real_frame(data_dir):
    folder = real_frame(data_dir)
    content = (folder / "frame_00054_depth.bin").read_bytes()
    width, height = struct.unpack_from("<ii", content)
    expected, position = [], 8
    while len(expected) < width * height:
        empty, full = struct.unpack_from("<ii", content, position)
        expected += [0] * empty
        expected += struct.unpack_from(f"<{full}h", content, position + 8)
        position += 8 + 2 * full
    depth = biwi_files.read_depth(folder / "frame_00054_depth.bin")
    np.testing.assert_array_equal(depth, np.array(expected).reshape(480, 640))
    assert depth[depth > 0].min() > 700
    assert depth.max() < 1100
    # 878 mm in front of the centre, which is at 920.5 (read off by hand)
    _, centre = biwi_files.read_pose(folder / "frame_00054_pose.txt")
    distance = biwi.surface_distance(
        depth, centre, biwi_files.read_calibration(folder / "depth.cal")
    )
    assert distance == pytest.approx(42.5, abs=1)


def test_check_depth_passes_the_real_frame_and_notes_a_shifted_one(data_dir, tmp_path):
    folder = tmp_path / "hpdb" / "12"
    shutil.copytree(real_frame(data_dir), folder, copy_function=shutil.copyfile)
    report, _ = read(tmp_path, sequences=(12,), check_depth=True)
    assert not report.notes
    rows = (folder / "frame_00054_pose.txt").read_text().split("\n")
    rows[4] = "13.8958 -54.6151 1220.5"
    (folder / "frame_00054_pose.txt").write_text("\n".join(rows))
    report, _ = read(tmp_path, sequences=(12,), check_depth=True)
    assert report.notes == {
        "the head centre is not 0 to 150 mm behind the surface": ["12/frame_00054"]
    }
    (folder / "frame_00054_depth.bin").write_bytes(b"\0" * 5)
    report, _ = read(tmp_path, sequences=(12,), check_depth=True)
    assert list(report.notes) == ["the depth cannot be read"]


def test_calibrated_rotations(data_dir):
    folder = real_frame(data_dir)
    _, records = read(data_dir / "biwi", sequences=(12,), calibrated=True)
    rows = np.loadtxt(folder / "frame_00054_pose.txt", max_rows=3)
    camera = np.loadtxt(folder / "rgb.cal", skiprows=6, max_rows=3)
    np.testing.assert_allclose(records["test"][0]["rotations"][0], camera @ rows, atol=1e-5)
    before, after = (
        Rotation.from_matrix(r).as_euler("XYZ", degrees=True) for r in (rows, camera @ rows)
    )
    shift = (after - before) * [-1, 1, 1]  # pitch, yaw, roll
    assert 0.5 < shift[0] < 1.5  # the mean over the data set is 1.08
    _, plain = read(data_dir / "biwi", sequences=(12,))
    np.testing.assert_array_equal(plain["test"][0]["boxes"], records["test"][0]["boxes"])


# --- db_annotations ------------------------------------------------------------------------------


def test_annotations_stand_in_for_a_missing_pose(data_dir):
    folder = data_dir / "biwi" / "db_annotations" / "01"
    if not folder.is_dir():
        pytest.skip(f"no BIWI at {folder}")
    report, records = read(data_dir / "biwi", sequences=(1,))
    assert [len(places) for places in report.notes.values()] == [5]
    assert next(iter(report.notes)).startswith("poses from db_annotations")
    angles = {
        record["image_id"]: rotation_to_euler(
            record["rotations"][0].astype(float), convention="canonical"
        )
        for record in records["test"]
    }
    # The file holds turns about x, y, z: -10.1728, 5.00857, -0.250349.
    np.testing.assert_allclose(angles["01/frame_00174"], [5.00857, 10.1728, -0.250349], atol=1e-3)


def nose(data_dir, number) -> np.ndarray:
    """(2,) where the pose of db_annotations puts the tip of the nose, 67 mm before the centre."""
    folder = data_dir / "biwi"
    rotation, centre = biwi_files.read_annotation(
        folder / f"db_annotations/01/frame_{number:05d}_pose.bin"
    )
    calibration = biwi_files.read_calibration(folder / "hpdb/01/rgb.cal")
    return biwi.head_box(rotation, centre, calibration, np.array([[0.0, 0.0, -67.0]]))[:2]


def test_annotations_point_at_the_nose(data_dir):
    # The tip of the nose as marked by hand. With the other sign of the pitch it would lie 13 pixels
    # lower: she looks up, her nostrils show.
    if not (data_dir / "biwi" / "db_annotations").is_dir():
        pytest.skip(f"no BIWI in {data_dir}")
    np.testing.assert_allclose(nose(data_dir, 170), [350, 267], atol=3)


def test_annotations_move_the_nose_as_the_images_do(data_dir):
    # Between these frames the woman turns her head by 6 degrees. With the other sign of the yaw the
    # nose would not move to the left.
    folder = data_dir / "biwi" / "hpdb" / "01"
    if not folder.is_dir():
        pytest.skip(f"no BIWI at {folder}")
    places = [nose(data_dir, number) for number in (166, 174)]
    images = [
        cv2.imread(str(folder / f"frame_00{number}_rgb.png"), cv2.IMREAD_GRAYSCALE)
        for number in (166, 174)
    ]
    x, y = places[0].astype(int)
    tip = images[0][y - 8 : y + 9, x - 8 : x + 9]
    around = images[1][y - 28 : y + 29, x - 28 : x + 29]
    match = cv2.matchTemplate(around, tip, cv2.TM_CCOEFF_NORMED)
    _, likeness, _, (column, row) = cv2.minMaxLoc(match)
    assert likeness > 0.9
    np.testing.assert_allclose(places[1] - places[0], [column - 20, row - 20], atol=3)
