"""BIWI: poses, projected heads, depth, protocols, and what happens to broken files."""

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.engine.report import Report
from data_prep.sets import biwi, biwi_files, head_model
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data.example import check_record
from mtnet_jax.rotations import rotation_to_euler

SIZE = (64, 48)
CALIBRATION = """50 0 32
0 52 24
0 0 1

0.05 -0.02 0.001 -0.002

1 0 0
0 1 0
0 0 1

-24 6 -13

64 48
"""
# A rotation of BIWI, with the Euler angles that are published for it.
FIXTURE = "0.45684 -0.404949 -0.792031\n-0.103806 0.860022 -0.499587\n0.883471 0.310449 0.350856"
POSE = "1 0 0 \n0 1 0 \n0 0 1 \n\n{centre} \n\n"


def png(size=SIZE) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


def pose(rotation="1 0 0\n0 1 0\n0 0 1", centre="5 -10 900") -> str:
    return f"{rotation}\n\n{centre}\n\n"


@pytest.fixture
def raw(tmp_path) -> Path:
    """Sequences 01 and 17 with a frame each, in a folder whose name has a space and accents."""
    root = tmp_path / "têtes à voir" / "hpdb"
    for number in (1, 17):
        folder = root / f"{number:02d}"
        folder.mkdir(parents=True)
        (folder / "rgb.cal").write_text(CALIBRATION)
        (folder / "frame_00003_rgb.png").write_bytes(png())
        (folder / "frame_00003_pose.txt").write_text(pose())
    return root.parent


def read(raw, **options):
    """Report and records, name of the split -> list, of a conversion of sequences 1 and 17."""
    conversion = biwi.conversion(raw, **{"sequences": (1, 17), **options})
    report = Report(conversion.description)
    records = {
        split: [record for item in items for record in conversion.read(item, report)]
        for split, items in conversion.splits.items()
    }
    for found in records.values():
        for record in found:
            check_record(record)
    return report, records


def real_frame(data_dir) -> Path:
    folder = data_dir / "biwi" / "hpdb" / "12"
    if not folder.is_dir():
        pytest.skip(f"no BIWI at {folder}")
    return folder


def project(points, rotation, translation, matrix, distortion=(0, 0, 0, 0)):
    """(n, 2) pixels of the textbook camera with k1, k2, p1, p2, one point at a time."""
    k1, k2, p1, p2 = distortion
    pixels = []
    for point in points:
        x, y, z = rotation @ point + translation
        x, y = x / z, y / z
        r = x * x + y * y
        radial = 1 + k1 * r + k2 * r * r
        xd = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
        yd = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
        pixels.append([matrix[0, 0] * xd + matrix[0, 2], matrix[1, 1] * yd + matrix[1, 2]])
    return np.array(pixels)


# --- the real frames -----------------------------------------------------------------------------


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
        ("image,x1,y1,x2,y2\n01/a,1,2,3,4\n01/a_rgb.png,1,2,3,4\n", "line 3: a second box of 01/a"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        biwi_files.read_box_list(tmp_path / "boxes.csv")


# --- bad input -----------------------------------------------------------------------------------


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
