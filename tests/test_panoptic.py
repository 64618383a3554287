"""CMU Panoptic labels against the real calibration, scipy, OpenCV and plain loops."""

import json
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.engine.report import Report
from data_prep.panoptic import head_fit, labels, layout
from data_prep.panoptic.calibration import read_calibration
from data_prep.panoptic.converter import Options, conversion, frame_heads
from data_prep.panoptic.labels import HeadRule
from data_prep.panoptic.sphere import sphere_box
from mtnet_jax.rotations import geodesic_degrees
from tests.panoptic_raw import (
    HEAD,
    REAL,
    copy_calibration,
    hd_cameras,
    noise_jpeg,
    person,
    write_faces,
    write_image,
)

FACE_UP = np.diag([1.0, -1.0, -1.0])
SEQUENCE = "160906_pizza1"  # of the public split, train


@pytest.fixture(scope="module")
def calibration(data_dir):
    return data_dir / "panoptic" / REAL / f"calibration_{REAL}.json"


@pytest.fixture(scope="module")
def cameras(calibration):
    return hd_cameras(calibration)


def opencv_pixels(camera: dict, points) -> np.ndarray:
    """(n, 2) pixels, counted from the middle of the first pixel."""
    turn, _ = cv2.Rodrigues(camera["R"])
    points = np.ascontiguousarray(points)
    return cv2.projectPoints(points, turn, camera["t"], camera["K"], camera["distCoef"])[0][:, 0]


def slow_box(camera: dict, centre, radius, count=8_000) -> np.ndarray:
    """Points all over the sphere, projected by OpenCV, minimum and maximum; unclipped."""
    turn = np.arange(count) + 0.5
    z = 1 - 2 * turn / count
    angle = np.pi * (1 + np.sqrt(5)) * turn
    ring = np.sqrt(1 - z * z)
    points = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    pixels = opencv_pixels(camera, centre + radius * points) + 0.5
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def in_camera(camera: dict, point) -> np.ndarray:
    return camera["R"] @ point + camera["t"][:, 0]


# --- cameras -------------------------------------------------------------------------------------


def test_projection_is_that_of_opencv_in_all_cameras(calibration, cameras):
    points = np.random.default_rng(0).uniform([-150, -200, -150], [150, 0, 150], (500, 3))
    found = read_calibration(calibration)
    assert sorted(found) == sorted(cameras) == list(range(31))
    for number, camera in cameras.items():
        assert found[number].size == (1920, 1080)
        expected = opencv_pixels(camera, points)
        inside = found[number].to_camera(points)
        np.testing.assert_allclose(inside, [in_camera(camera, p) for p in points], atol=1e-9)
        assert (inside[:, 2] > 0).all()
        near = np.linalg.norm(inside[:, :2] / inside[:, 2:], axis=1) < found[number].radius_limit
        assert near.sum() > 300
        pixels = found[number].project(inside)
        np.testing.assert_allclose(pixels[near], expected[near] + 0.5, atol=1e-6)


def test_what_lies_far_off_the_axis_stays_out_of_the_image(calibration):
    """A lens polynomial that folds back must not bring the unseen into the image."""
    camera = read_calibration(calibration)[0]
    folding = type(camera)(
        camera.name,
        camera.size,
        camera.matrix,
        np.array([-0.3, 0.0, 0.0, 0.0, 0.0]),
        camera.rotation,
        camera.translation,
        radius_limit=1 / np.sqrt(0.9),
    )
    radius = np.array([1.05, 1.5, 1.8257, 3.0, 50.0])  # unlimited, the third is on the axis again
    points = np.stack([radius, 0 * radius, np.ones_like(radius)], axis=1)
    assert (folding.project(points)[:, 0] > camera.size[0]).all()


def test_the_limit_of_the_radius_is_where_the_polynomial_turns(data_dir, calibration):
    for camera in read_calibration(calibration).values():
        k1, k2, _, _, k3 = camera.distortion
        radius = np.linspace(0, 10, 100_001)
        value = radius * (1 + k1 * radius**2 + k2 * radius**4 + k3 * radius**6)
        falls = np.flatnonzero(np.diff(value) < 0)
        expected = radius[falls[0]] if len(falls) else 10.0
        assert camera.radius_limit == pytest.approx(expected, abs=2e-4)
        assert camera.radius_limit > 0.8  # the corners of the image lie at 0.67


# --- the fit -------------------------------------------------------------------------------------


def test_the_reference_head_is_the_one_of_the_notes():
    assert {n: tuple(p) for n, p in head_fit.REFERENCE_HEAD.items()} == HEAD


def test_fit_against_scipy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        data = rng.normal(size=(9, 3)) * 5 + 40
        reference = rng.normal(size=(9, 3))
        fit = head_fit.fit_similarity(reference, data)
        a, b = reference - reference.mean(0), data - data.mean(0)
        turn, _ = Rotation.align_vectors(b, a)
        np.testing.assert_allclose(fit.rotation, turn.as_matrix(), atol=1e-8)
        assert np.linalg.det(fit.rotation) == pytest.approx(1)
        # The best scale for a rotation is a one-dimensional least squares problem.
        moved = turn.apply(a).reshape(-1, 1)
        scale = np.linalg.lstsq(moved, b.reshape(-1), rcond=None)[0][0]
        assert fit.scale == pytest.approx(scale)
        errors = [np.linalg.norm(fit.move(p) - q) for p, q in zip(reference, data, strict=True)]
        assert fit.residual == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_mirrored_points_never_give_a_reflection():
    points = head_fit.REFERENCE_POINTS
    fit = head_fit.fit_similarity(points, points * [1, 1, -1])
    assert np.linalg.det(fit.rotation) == pytest.approx(1)
    assert fit.residual > 0.5


def test_points_on_a_line_have_no_fit():
    line = np.outer(np.arange(8.0), [1, 2, 3])
    assert head_fit.fit_similarity(head_fit.REFERENCE_POINTS[:8], line) is None
    few = head_fit.REFERENCE_POINTS[:1]
    assert head_fit.fit_similarity(few, few) is None
    assert head_fit.fit_similarity(line, head_fit.REFERENCE_POINTS[:8]) is None
    assert head_fit.fit_similarity(head_fit.REFERENCE_POINTS[:8], np.ones((8, 3))) is None


# --- placed heads in all 31 cameras --------------------------------------------------------------


def placed_heads() -> list[tuple[np.ndarray, np.ndarray, float, tuple[int, ...]]]:
    """Rotation to the dome, position, scale, lost landmarks; y of the dome points down."""
    upright = [
        Rotation.from_euler("Y", yaw, degrees=True).as_matrix() @ FACE_UP
        for yaw in range(-180, 180, 45)
    ]
    wild = list(Rotation.random(4, rng=np.random.default_rng(2)).as_matrix())
    wild += [Rotation.from_euler("ZXY", [50, -40, 100], degrees=True).as_matrix() @ FACE_UP]
    rng = np.random.default_rng(3)
    heads = []
    for number, rotation in enumerate(upright + wild):
        position = rng.uniform([-120, -170, -120], [120, -90, 120])
        lost = tuple(rng.permutation(list(HEAD))[: number % 8])  # 7 lost leave 7
        heads.append((rotation, position, rng.uniform(0.85, 1.15), lost))
    return heads


def test_rotations_and_boxes_come_back_in_all_31_cameras(data_dir, tmp_path):
    cameras = copy_calibration(data_dir, tmp_path, SEQUENCE)
    heads = placed_heads()
    frames = {0: heads[:6], 60: heads[6:]}
    for frame, group in frames.items():
        people = [person(*head, number=n) for n, head in enumerate(group)]
        write_faces(tmp_path, SEQUENCE, frame, people)
    encoded = noise_jpeg()
    for number in cameras:
        for frame in frames:
            write_image(tmp_path, SEQUENCE, number, frame, encoded)
    converted = conversion(tmp_path)
    report = Report(converted.description)
    records = {
        record["image_id"]: record
        for item in converted.splits["train"]
        for record in converted.read(item, report)
    }
    seen, boxes_off, angles_off = np.zeros(len(heads), int), [], []
    for number, camera in cameras.items():
        index = 0
        for frame, group in frames.items():
            expected = []
            for rotation, position, scale, _ in group:
                middle = position + scale * rotation @ np.array([0, 5, -5])
                if in_camera(camera, middle)[2] <= 0:
                    continue
                box = np.clip(slow_box(camera, middle, 18 * scale), 0, [1920, 1080, 1920, 1080])
                if (box[2:] - box[:2]).min() > 0:
                    # Head axes of the project seen from the camera, column by column: the
                    # subject's left, down, and to the back of the head.
                    left, up, out = rotation.T
                    axes = np.stack([camera["R"] @ v for v in (left, -up, -out)], axis=1)
                    expected.append((box, axes, index))
                index += 1
            record = records.get(f"{SEQUENCE}/00_{number:02d}/{frame:08d}")
            if record is None:
                shapes = [box[2:] - box[:2] for box, *_ in expected]
                assert all(max(s) / min(s) >= 1.4 for s in shapes)
                continue
            assert record["image"] == encoded
            assert record["has_pose"].all()
            assert len(record["boxes"]) == len(expected)
            for i, (box, axes, head) in enumerate(expected):
                boxes_off.append(np.abs(record["boxes"][i] - box).max())
                angles_off.append(geodesic_degrees(record["rotations"][i].astype(float), axes))
                seen[head % len(heads)] += 1
                width, height = box[2:] - box[:2]
                cut = max(width / height, height / width) >= 1.5
                assert record["ignore"][i] == cut
    assert len({image_id.split("/")[1] for image_id in records}) == 31
    assert seen.min() >= 10
    assert len(boxes_off) > 250
    assert max(boxes_off) < 0.1
    assert max(angles_off) < 1e-3
    # "back": in every frame some cameras look at the back of each head, and that changes nothing.
    assert not report.dropped_heads


def test_a_face_that_looks_into_a_camera(data_dir, tmp_path, cameras):
    """What the axes mean: straight into the lens is the identity, the left eye on the right."""
    for number, camera in cameras.items():
        rotation = camera["R"].T @ FACE_UP  # x right, y up, z to the camera
        position = camera["R"].T @ (np.array([0, 0, 250.0]) - camera["t"][:, 0])
        write_faces(tmp_path, SEQUENCE, number, [person(rotation, position)])
        (head,) = frame_heads(tmp_path, SEQUENCE, number, Options())
        assert geodesic_degrees(camera["R"] @ head.rotation, np.eye(3)) < 1e-3
        landmarks = labels.read_faces(layout.face_path(tmp_path, SEQUENCE, number))[0][0]
        left_eye, right_eye, chin = (in_camera(camera, landmarks[n]) for n in (45, 36, 8))
        assert left_eye[0] > right_eye[0]
        assert chin[1] > left_eye[1]
        assert in_camera(camera, head.centre)[2] > left_eye[2]  # the skull is behind the face


@pytest.mark.parametrize("radius", [18.0, 22.0])
def test_sphere_box_at_the_border_and_near_the_lens(calibration, cameras, radius):
    camera = read_calibration(calibration)[7]
    places = [(0, 0, 40.0), (30, 10, 60.0), (-160, 90, 260.0), (190, 0, 300.0), (0, 0, 900.0)]
    for place in places:
        centre = camera.rotation.T @ (np.array(place) - camera.translation)
        expected = slow_box(cameras[7], centre, radius, count=60_000)
        np.testing.assert_allclose(sphere_box(camera, centre, radius), expected, atol=0.1)


def test_spheres_that_are_not_before_the_camera_have_no_box(calibration):
    camera = read_calibration(calibration)[7]
    for depth in (-200.0, -18.0, 0.0, 17.9):
        centre = camera.rotation.T @ (np.array([0, 0, depth]) - camera.translation)
        assert sphere_box(camera, centre, 18.0) is None


# --- lost faces ----------------------------------------------------------------------------------


def test_seven_points_fit_and_six_do_not(tmp_path):
    numbers = list(HEAD)
    rotation, position = FACE_UP, np.array([0.0, -120, 0])
    for lost, fits in ((7, True), (8, False)):
        people = [person(rotation, position, lost=numbers[::-1][:lost])]
        write_faces(tmp_path, SEQUENCE, 0, people)
        (head,) = frame_heads(tmp_path, SEQUENCE, 0, Options())
        assert (head.rotation is not None) == fits
    assert "fewer than 7" in head.fault
    # The sphere lies round the mean of what is visible, which the face surrounds.
    visible = [position + rotation @ np.array(HEAD[n]) for n in numbers[:6]]
    np.testing.assert_allclose(head.centre, np.mean(visible, axis=0), atol=1e-9)
    assert head.radius == 18
    eight = Options(heads=HeadRule(min_points=6))
    assert frame_heads(tmp_path, SEQUENCE, 0, eight)[0].rotation is not None


def test_scores_and_numbers_decide_what_is_visible(tmp_path):
    entry = person(FACE_UP, np.zeros(3))
    entry["face70"]["averageScore"][17] = 0.1  # not above
    entry["face70"]["landmarks"][3 * 17] = 500.0
    entry["face70"]["landmarks"][3 * 21 + 1] = float("nan")
    write_faces(tmp_path, SEQUENCE, 0, [entry])
    (head,) = frame_heads(tmp_path, SEQUENCE, 0, Options())
    np.testing.assert_allclose(head.rotation, np.eye(3), atol=1e-9)
    (head,) = frame_heads(tmp_path, SEQUENCE, 0, Options(heads=HeadRule(min_score=0.05)))
    assert geodesic_degrees(head.rotation, np.eye(3)) > 1


def test_a_bad_fit_can_be_refused(tmp_path):
    entry = person(FACE_UP, np.zeros(3))
    landmarks = np.array(entry["face70"]["landmarks"]).reshape(70, 3)
    landmarks += np.random.default_rng(0).normal(size=(70, 3))
    entry["face70"]["landmarks"] = landmarks.reshape(-1).tolist()
    write_faces(tmp_path, SEQUENCE, 0, [entry])
    assert frame_heads(tmp_path, SEQUENCE, 0, Options())[0].rotation is not None
    (head,) = frame_heads(tmp_path, SEQUENCE, 0, Options(heads=HeadRule(max_residual=0.5)))
    assert head.rotation is None
    assert "more than 0.5 cm" in head.fault


# --- real joints ---------------------------------------------------------------------------------


REAL_FRAMES = {"160906_band1": (168, 187), "160906_band2": (139, 158)}  # first and last there are


def test_real_joints_land_in_the_boxes_and_all_cameras_agree(data_dir, tmp_path):
    """Three musicians, four frames, 31 cameras, through the whole converter."""
    raw = data_dir / "panoptic"
    blank = cv2.imencode(".jpg", np.zeros((1080, 1920, 3), np.uint8))[1].tobytes()
    for sequence, frames in REAL_FRAMES.items():
        (tmp_path / sequence).mkdir()
        calibration = layout.calibration_path(raw, sequence)
        shutil.copyfile(calibration, layout.calibration_path(tmp_path, sequence))
        for frame in frames:
            copy = layout.body_path(tmp_path, sequence, frame)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(layout.body_path(raw, sequence, frame), copy)
            for number in range(31):
                write_image(tmp_path, sequence, number, frame, blank)
    options = Options(body_only=True, min_kilobytes=0, keep_empty=True)
    converted = conversion(tmp_path, options, every=1, train_sequences=("all",), test_sequences=())
    report = Report(converted.description)
    records = {
        record["image_id"]: record
        for item in converted.splits["train"]
        for record in converted.read(item, report)
    }
    assert len(records) == 4 * 31
    assert {record["source"] for record in records.values()} == {"panoptic-body"}
    landed = lost = 0
    for sequence, frames in REAL_FRAMES.items():
        cameras = hd_cameras(layout.calibration_path(raw, sequence))
        for frame in frames:
            bodies = json.loads(layout.body_path(raw, sequence, frame).read_text())["bodies"]
            assert len(bodies) == 3
            for body in bodies:
                joints = np.array(body["joints19"]).reshape(19, 4)
                head = joints[[1, 15, 16, 17, 18]]  # nose, left eye and ear, right eye and ear
                if not (head[:, 3] > 0.1).all():
                    lost += 1
                    continue
                rotations = rotations_where_seen(head[:, :3], sequence, frame, cameras, records)
                assert len(rotations) >= 8
                assert geodesic_degrees(rotations, rotations[0]).max() < 1e-3
                landed += len(rotations)
                out = head[0, :3] - head[[2, 4], :3].mean(axis=0)
                left = head[2, :3] - head[4, :3]
                down = joints[0, :3] - head[0, :3]  # from the nose to the neck
                for axis, direction, limit in ((2, -out, 25), (0, left, 25), (1, down, 60)):
                    cosine = rotations[0][:, axis] @ direction / np.linalg.norm(direction)
                    assert cosine > np.cos(np.deg2rad(limit))
    assert landed > 150
    assert lost == 1
    faults = report.as_dict()["ignored heads"]
    assert "body with fewer than 4 landmarks of the reference head" in faults


def rotations_where_seen(points, sequence, frame, cameras, records) -> np.ndarray:
    """Rotations to the dome of the head whose box holds the points, by camera that sees them."""
    found = []
    for number, camera in cameras.items():
        pixels = opencv_pixels(camera, points)
        depths = [in_camera(camera, point)[2] for point in points]
        if min(depths) < 0 or not ((pixels > 0) & (pixels < [1919, 1079])).all():
            continue
        record = records[f"{sequence}/00_{number:02d}/{frame:08d}"]
        boxes = record["boxes"]
        holds = [(pixels >= b[:2]).all() and (pixels <= b[2:]).all() for b in boxes]
        assert any(holds)
        if sum(holds) == 1:  # where heads hide one another, whose box it is would be a guess
            turn = record["rotations"][holds.index(True)]
            found.append(camera["R"].T @ turn)
    return np.array(found)
