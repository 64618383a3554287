"""300W-LP and AFLW2000: poses and places of the .mat files, boxes, filter, and broken files."""

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from scipy.spatial.transform import Rotation

from data_prep.engine import head_model
from data_prep.engine.report import Report
from data_prep.sets import aflw2000, mat_faces, w300_lp
from data_prep.sets.mat_faces import Options
from mtnet_jax.data.example import check_record
from tests.panoptic_raw import HEAD as ANTHROPOMETRIC  # another model of a face

SIDE = 450
POSE = np.array([[0.1, -0.4, 0.2, 230.0, 210.0, -50.0, 1.2e-3]], np.float32)


def jpeg(size=SIDE) -> bytes:
    return cv2.imencode(".jpg", np.full((size, size, 3), 90, np.uint8))[1].tobytes()


def face_68() -> np.ndarray:
    """(2, 68) points from (120, 130) to (320, 330)."""
    points = np.random.default_rng(0).uniform(150, 300, (2, 68))
    points[:, :2] = [[120, 320], [130, 330]]
    return points


@pytest.fixture
def raw(tmp_path):
    """A folder with a space and accents in its name; call it to add an image with its .mat."""
    folder = tmp_path / "vidéos à trier"
    folder.mkdir()

    def add(name, image=None, **content):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg() if image is None else image)
        if content:
            scipy.io.savemat(path.with_suffix(".mat"), content)
        return path.with_suffix(".mat")

    add.raw = folder
    return add


def read(conversion):
    """Report, and records by image_id, of all splits."""
    report = Report(conversion.description)
    records = {}
    for items in conversion.splits.values():
        for item in items:
            for record in conversion.read(item, report):
                check_record(record)
                records[record["image_id"]] = record
    return report, records


def real_mats(data_dir, name, count):
    paths = sorted((data_dir / name).glob("*.mat"))
    if not paths:
        pytest.skip(f"no {name} in {data_dir}")
    assert len(paths) == count
    return paths


# --- the real files ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("aflw2000", 400), ("300w_lp", 60)])
def test_rotations_of_all_files(data_dir, name, count):
    converter = aflw2000 if name == "aflw2000" else w300_lp
    conversion = converter.conversion(data_dir / name, Options(max_angle=np.inf))
    report, records = read(conversion)
    assert len(records) == count
    assert not report.dropped_images
    for path in real_mats(data_dir, name, count):
        pitch, yaw, roll = scipy.io.loadmat(path)["Pose_Para"][0, :3].astype(float)
        # Rx(-pitch) Ry(yaw) Rz(roll): turns about the axes as they are carried along
        expected = Rotation.from_euler("XYZ", [-pitch, yaw, roll]).as_matrix()
        np.testing.assert_allclose(records[path.stem]["rotations"][0], expected, atol=1e-6)
        assert records[path.stem]["image"] == path.with_suffix(".jpg").read_bytes()


def test_rotations_agree_with_the_landmarks(data_dir):
    # A rotation fitted to pt3d_68 with another model of a face. The two models disagree by a fixed
    # pitch about what looks straight ahead (5.4 degrees); faces differ, too.
    reference = np.array(list(ANTHROPOMETRIC.values())) * [1, -1, -1]
    reference -= reference.mean(axis=0)
    rest = []
    for path in real_mats(data_dir, "aflw2000", 400):
        points = scipy.io.loadmat(path)["pt3d_68"][:, list(ANTHROPOMETRIC)].astype(float).T
        points = points * [1, 1, -1]  # z of the file points to the camera
        fitted, _ = Rotation.align_vectors(points - points.mean(axis=0), reference)
        labelled = Rotation.from_matrix(mat_faces.rotation(mat_faces.read_face(path)))
        rest.append((fitted.inv() * labelled).as_rotvec(degrees=True))
    bias = np.median(rest, axis=0)
    np.testing.assert_allclose(bias, [5.4, 0, 0], atol=0.3)
    assert np.percentile(np.linalg.norm(rest - bias, axis=1), 95) < 6


def test_the_average_head_stands_where_the_face_is(data_dir):
    tip = np.array(head_model.FACE_POINTS)[5]
    misses, inside = [], []
    for path in real_mats(data_dir, "aflw2000", 400):
        face = mat_faces.read_face(path)
        x, up, scale = face.place
        landmarks = face.landmarks["pt3d_68"]
        nose = (mat_faces.rotation(face) @ tip)[:2] * scale + [x, SIDE - up]
        misses.append(np.hypot(*(landmarks[30] - nose)) / scale)
        left, top, right, bottom = mat_faces.head_box(face, SIDE)
        inside.append((landmarks > [left, top]).all(axis=1) & (landmarks < [right, bottom]).all(1))
    assert np.median(misses) < 4  # mm, of the 130 from the middle of the head
    assert np.percentile(misses, 95) < 10
    assert np.mean(inside) > 0.97  # but for chins below open mouths


def test_300w_lp_repeats_the_landmarks_of_the_photo(data_dir):
    # What the rule `landmarks` is warned of: pt2d stays while the face turns and moves.
    paths = [p for p in real_mats(data_dir, "300w_lp", 60) if p.stem.startswith("AFW_134212_2_")]
    faces = [mat_faces.read_face(path) for path in paths]
    assert np.ptp([face.angles[0] for face in faces]) > 70
    for face in faces:
        np.testing.assert_array_equal(face.landmarks["pt2d"], faces[0].landmarks["pt2d"])
    rules = Options(box_rule="landmarks")
    report, records = read(w300_lp.conversion(data_dir / "300w_lp", rules))
    # of all but rendering 0 of each of four faces
    assert dict(report.notes.counts) == {
        "pt2d is that of the photo, not of this rendering: the box is off": 60 - 4
    }
    assert len(records) == 60


def test_the_filter_drops_the_images_beyond_99_degrees(data_dir):
    beyond = []
    for path in real_mats(data_dir, "aflw2000", 400):
        angles = np.rad2deg(scipy.io.loadmat(path)["Pose_Para"][0, :3])
        if np.abs(angles).max() > 99:
            beyond.append(path.stem)
    report, records = read(aflw2000.conversion(data_dir / "aflw2000"))
    assert report.dropped_images == {"an angle is beyond 99 degrees": beyond}
    assert dict(report.dropped_images.counts) == {"an angle is beyond 99 degrees": len(beyond)}
    assert len(beyond) == 4
    assert len(records) == 396


# --- boxes ---------------------------------------------------------------------------------------


def test_head_box_is_the_extent_of_ellipsoid_and_face(raw):
    face = mat_faces.read_face(raw("a", Pose_Para=POSE))
    turn = Rotation.from_euler("XYZ", [-0.1, -0.4, 0.2]).as_matrix()
    # The extent of a turned ellipsoid along an axis, from its dual quadric.
    reach = np.sqrt((turn @ np.diag(np.square(head_model.SKULL_SEMI_AXES)) @ turn.T).diagonal())
    centre = turn @ head_model.SKULL_CENTRE
    corners = [centre - reach, centre + reach, *(np.array(head_model.FACE_POINTS) @ turn.T)]
    low, high = np.min(corners, axis=0)[:2] * 1.2, np.max(corners, axis=0)[:2] * 1.2
    expected = [*low + [230, SIDE - 210], *high + [230, SIDE - 210]]
    np.testing.assert_allclose(mat_faces.head_box(face, SIDE), expected, atol=0.3)


def test_landmarks_and_margin(raw):
    raw("a", Pose_Para=POSE, pt2d=face_68())
    _, records = read(aflw2000.conversion(raw.raw, Options(box_rule="landmarks", margin=0.1)))
    np.testing.assert_allclose(records["a"]["boxes"], [[100, 110, 340, 350]])
    _, records = read(aflw2000.conversion(raw.raw, Options(box_rule="landmarks", margin=0)))
    np.testing.assert_allclose(records["a"]["boxes"], [[120, 130, 320, 330]])


def test_which_landmarks(raw):
    larger = np.vstack([face_68() + 10, np.zeros(68)])
    raw("a", Pose_Para=POSE, pt2d=face_68()[:, :21], pt3d_68=larger)

    def box(landmarks):
        options = Options(box_rule="landmarks", margin=0, landmarks=landmarks)
        return read(aflw2000.conversion(raw.raw, options))[1]["a"]["boxes"][0].tolist()

    assert box("auto") == box("pt3d_68") == [130, 140, 330, 340]
    assert box("pt2d") == [120, 130, 320, 330]


@pytest.mark.parametrize("gap", [(-1, -1), (-1, np.nan), (np.nan, np.nan), (np.inf, 5)])
def test_missing_points(raw, gap):
    points = face_68()[:, :21]
    points[:, 5:9] = np.reshape(gap, (2, 1))
    raw("a", Pose_Para=POSE, pt2d=points)
    raw("few", Pose_Para=POSE, pt2d=np.hstack([points[:, 5:9], points[:, :3]]))
    raw("none", Pose_Para=POSE)
    report, records = read(aflw2000.conversion(raw.raw, Options(box_rule="landmarks", margin=0)))
    np.testing.assert_allclose(records["a"]["boxes"], [[120, 130, 320, 330]])
    assert report.notes == {"some landmarks of pt2d are missing, the box may be small": ["a"]}
    assert report.dropped_images == {
        "fewer than 4 landmarks in pt2d": ["few"],
        "no landmarks (pt3d_68 or pt2d)": ["none"],
    }


def test_rules_are_named(raw):
    raw("a", Pose_Para=POSE)
    assert aflw2000.conversion(raw.raw).description.box_rule == "head"
    rules = Options(box_rule="landmarks", margin=0.25)
    assert aflw2000.conversion(raw.raw, rules).description.box_rule == "landmarks + 25%"


# --- splits --------------------------------------------------------------------------------------


def test_folders_of_300w_lp(raw):
    for name in ("AFW/AFW_1_1_0", "AFW_Flip/AFW_1_1_0", "HELEN/HELEN_2_1_0", "Code/demo"):
        raw(name, Pose_Para=POSE)
    conversion = w300_lp.conversion(raw.raw)
    assert list(conversion.splits) == ["train"]
    _, records = read(conversion)
    assert set(records) == {"AFW/AFW_1_1_0", "AFW_Flip/AFW_1_1_0", "HELEN/HELEN_2_1_0"}


@pytest.mark.parametrize(
    ("stem", "photo"),
    [
        ("AFW_134212_1_0", "AFW_134212"),
        ("AFW_134212_2_16", "AFW_134212"),
        ("HELEN_100591971_1_3", "HELEN_100591971"),
        ("LFPW_image_train_0001_12", "LFPW_image_train_0001"),
        ("IBUG_image_003_1_0", "IBUG_image_003"),
        ("holiday", "holiday"),
    ],
)
def test_photo(stem, photo):
    assert w300_lp.photo(Path("AFW_Flip") / f"{stem}.jpg") == photo


def test_photos_are_held_out_whole(raw):
    for photo in range(40):
        for folder in ("AFW", "AFW_Flip"):
            for rendering in range(3):
                raw(f"{folder}/AFW_{photo + 100}_1_{rendering}", b"")
    splits = w300_lp.conversion(raw.raw, valid_percent=25).splits
    photos = {name: {w300_lp.photo(i.image) for i in items} for name, items in splits.items()}
    assert photos["train"].isdisjoint(photos["valid"])
    assert {name: len(items) / 6 for name, items in splits.items()} == {
        name: len(found) for name, found in photos.items()
    }
    assert 4 <= len(photos["valid"]) <= 16
    with pytest.raises(ValueError, match="must be 0 to 99"):
        w300_lp.conversion(raw.raw, valid_percent=100)


def test_a_photo_whose_name_is_no_utf8_has_a_split(raw):
    raw(os.fsdecode(b"AFW_\xe9_1_0"), Pose_Para=POSE)
    splits = w300_lp.conversion(raw.raw, valid_percent=25).splits
    assert sum(map(len, splits.values())) == 1


# --- bad input -----------------------------------------------------------------------------------


def test_images_without_a_good_label_are_dropped(raw):
    nan = POSE.copy()
    nan[0, 1] = np.nan
    raw("good", Pose_Para=POSE)
    raw("no mat")
    raw("no pose", pt2d=face_68())
    raw("nan", Pose_Para=nan)
    raw("no place", Pose_Para=POSE[:, :3])
    raw("turned", Pose_Para=POSE * [[1, 5, 1, 1, 1, 1, 1]])
    raw("cut short", Pose_Para=POSE, pt2d=face_68())
    raw("outside", Pose_Para=POSE + [[0, 0, 0, 5000, 0, 0, 0]])
    mat = raw.raw / "cut short.mat"
    mat.write_bytes(mat.read_bytes()[:-300])
    raw("empty", Pose_Para=POSE)
    (raw.raw / "empty.mat").write_bytes(b"")
    report, records = read(aflw2000.conversion(raw.raw))
    assert list(records) == ["good"]
    dropped = report.dropped_images
    assert dropped.pop("no .mat beside the image") == ["no mat"]
    assert dropped.pop("the pose is not finite") == ["nan"]
    assert dropped.pop("an angle is beyond 99 degrees") == ["turned"]
    assert dropped.pop("Pose_Para has no place and scale for the rule 'head'") == ["no place"]
    assert dropped.pop("its only head was dropped") == ["outside"]
    assert report.dropped_heads == {"box is outside the image": ["outside"]}
    assert list(dropped) == ["the .mat cannot be read"]
    assert dropped.counts["the .mat cannot be read"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pt2d": face_68()}, "has no Pose_Para, so no pose"),
        ({"Pose_Para": POSE[:, :2]}, r"Pose_Para is not pitch, yaw, roll \(shape \(1, 2\)\)"),
        ({"Pose_Para": "front"}, "Pose_Para is not pitch, yaw, roll"),
        ({"Pose_Para": POSE, "pt2d": "none"}, r"pt2d is not \(2 or 3, n\) numbers"),
        ({"Pose_Para": POSE, "pt2d": face_68().T}, r"pt2d is not .* but \(68, 2\)"),
    ],
)
def test_what_is_wrong_with_a_mat_is_named(raw, content, message):
    with pytest.raises(ValueError, match=rf"à trier/a\.mat: {message}"):
        mat_faces.read_face(raw("a", **content))


def test_a_real_file_cut_short_at_any_place_is_no_label(data_dir, tmp_path):
    path = real_mats(data_dir, "aflw2000", 400)[0]
    content, whole = path.read_bytes(), mat_faces.read_face(path)
    for length in range(0, len(content), 97):
        (tmp_path / "cut.mat").write_bytes(content[:length])
        with contextlib.suppress(ValueError):  # any other error fails the test
            face = mat_faces.read_face(tmp_path / "cut.mat")
            # what comes after the cut was not needed
            np.testing.assert_array_equal(face.angles, whole.angles)


def test_damaged_images_are_dropped(raw):
    raw("good", Pose_Para=POSE)
    raw("short", jpeg()[:-40], Pose_Para=POSE)
    raw("empty", b"", Pose_Para=POSE)
    report, records = read(aflw2000.conversion(raw.raw))
    assert list(records) == ["good"]
    places = [place for found in report.dropped_images.values() for place in found]
    assert sorted(Path(place).stem for place in places) == ["empty", "short"]


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No \*\.jpg in"):
        aflw2000.conversion(tmp_path)
    with pytest.raises(FileNotFoundError, match="unpacked 300W_LP"):
        w300_lp.conversion(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"box_rule": "face"}, "Box rule 'face': choose one of head, landmarks"),
        ({"landmarks": "pt5"}, "Landmarks 'pt5': auto, pt3d_68, pt2d"),
        ({"margin": -0.1}, "--margin -0.1"),
        ({"margin": np.nan}, "--margin nan"),
        ({"max_angle": 0}, "--max-angle 0"),
    ],
)
def test_wrong_options(wrong, message):
    with pytest.raises(ValueError, match=message):
        Options(**wrong)
