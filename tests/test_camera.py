"""The ray frame against scipy, OpenCV's pinhole camera and PnP, and as record sources give it."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax import camera
from mtnet_jax.data import geometry
from mtnet_jax.data.records import RecordSource
from tests.record_sets import a_record, write_record_set

INTRINSICS = np.array([700.0, 650.0, 320.5, 250.0])
MATRIX = np.array([[700, 0, 320.5], [0, 650, 250], [0, 0, 1]])
AXIS = np.array([0.0, 0.0, 1.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_rays(rng, count: int) -> np.ndarray:
    """Unit vectors all round, but for the one that looks straight back."""
    rays = rng.normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def box_round(centre, extent=(40, 50)) -> np.ndarray:
    centre, half = np.asarray(centre, float), np.asarray(extent) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


# --- rays and the turn onto the axis -------------------------------------------------------------


def test_rays_go_through_their_points():
    """OpenCV's camera puts a point of each ray, at any depth, back on its pixel."""
    points = np.array([[320.5, 250], [0, 0], [640, 480], [100, 400.25]])
    rays = camera.rays(points, INTRINSICS)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
    np.testing.assert_allclose(rays[0], AXIS, atol=1e-12)
    scene = rays * np.array([[1.0], [2.5], [0.3], [8.0]])
    found = cv2.projectPoints(scene, np.zeros(3), np.zeros(3), MATRIX, None)[0][:, 0]
    np.testing.assert_allclose(found, points, atol=1e-9)


def test_q_is_the_smallest_rotation_onto_the_axis(rng):
    rays = np.concatenate([random_rays(rng, 200), [[1, 0, 0], [0, -1, 0], [0, 0, 1]]])
    turns = camera.turns_to_axis(rays)
    for ray, q in zip(rays, turns, strict=True):
        expected, off = Rotation.align_vectors(AXIS, ray)
        assert off < 1e-6
        np.testing.assert_allclose(q, expected.as_matrix(), atol=1e-7)
        # By its own means: a rotation, onto the axis, by no more than the angle between the two,
        # about a line at right angles to both.
        np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(q @ ray, AXIS, atol=1e-12)
        turned = Rotation.from_matrix(q).as_rotvec()
        assert np.linalg.norm(turned) == pytest.approx(np.arccos(ray[2]), abs=1e-6)
        assert abs(turned @ ray) < 1e-9
        assert abs(turned[2]) < 1e-9


def test_q_of_any_shape_and_almost_straight_back(rng):
    rays = random_rays(rng, 12).reshape(3, 4, 3)
    turns = camera.turns_to_axis(rays)
    assert turns.shape == (3, 4, 3, 3)
    np.testing.assert_array_equal(turns[1, 2], camera.turns_to_axis(rays[1, 2]))
    back = np.array([np.sin(3.1), 0, np.cos(3.1)])  # 177.6 degrees
    q = camera.turns_to_axis(back)
    np.testing.assert_allclose(q @ back, AXIS, atol=1e-9)
    np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-9)


# --- rotations -----------------------------------------------------------------------------------


def test_to_the_ray_and_back_is_nothing(rng):
    centres = rng.uniform([0, 0], [640, 480], (50, 2))
    rotations = Rotation.random(50, rng=rng).as_matrix()
    boxes = box_round(centres)
    there = camera.camera_to_ray(rotations, boxes, INTRINSICS)
    assert np.abs(there - rotations).max() > 0.1
    np.testing.assert_allclose(
        camera.ray_to_camera(there, boxes, INTRINSICS), rotations, atol=1e-12
    )
    none = np.zeros((0, 3, 3))
    assert camera.camera_to_ray(none, np.zeros((0, 4)), INTRINSICS).shape == (0, 3, 3)


def test_in_the_middle_of_the_image_the_frames_are_one(rng):
    rotations = Rotation.random(5, rng=rng).as_matrix()
    boxes = box_round(np.tile(INTRINSICS[2:], (5, 1)))
    np.testing.assert_allclose(
        camera.camera_to_ray(rotations, boxes, INTRINSICS), rotations, atol=1e-12
    )


def test_a_head_that_looks_at_the_eye_faces_the_camera_wherever_it_is(rng):
    """Its nose points back along its ray; tilted about that ray by any angle, it still does."""
    focal, width, height = 300.0, 640, 480  # 94 degrees
    intrinsics = np.array([focal, focal, width / 2, height / 2])
    for _ in range(60):
        place = np.array([*rng.uniform(-1, 1, 2), 1.0]) * rng.uniform(0.5, 4)
        pixel = focal * place[:2] / place[2] + [width / 2, height / 2]
        back = place / np.linalg.norm(place)  # third head axis, from the face to the back
        down = np.cross(back, [1.0, 0, 0])
        down /= np.linalg.norm(down)
        upright = np.stack([np.cross(down, back), down, back], axis=1)
        tilt = Rotation.from_rotvec(rng.uniform(-np.pi, np.pi) * back).as_matrix()
        rotation = tilt @ upright
        assert np.linalg.det(rotation) == pytest.approx(1)
        (seen,) = camera.camera_to_ray(rotation[None], box_round(pixel)[None], intrinsics)
        np.testing.assert_allclose(seen[:, 2], AXIS, atol=1e-9)
        # And one that looks past the eye by an angle is that angle off.
        past = Rotation.from_rotvec(0.4 * down).as_matrix() @ rotation
        (seen,) = camera.camera_to_ray(past[None], box_round(pixel)[None], intrinsics)
        assert np.arccos(seen[2, 2]) == pytest.approx(0.4, abs=1e-6)


def test_the_ray_frame_is_what_a_camera_turned_to_the_head_sees(rng):
    """PnP in the image of a second camera, which looks at the head, gives R_ray."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1.3, 1.3) for z in (-1, 1.2)]) * 0.1
    for _ in range(20):
        head = Rotation.random(rng=rng).as_matrix()
        place = np.array([*rng.uniform(-0.8, 0.8, 2), 1.0]) * rng.uniform(1, 3)
        pixel = MATRIX[:2] @ (place / place[2])
        look = Rotation.align_vectors(AXIS, place)[0].as_matrix()
        eye = cv2.Rodrigues(look)[0]
        seen = corners @ head.T + place
        image = cv2.projectPoints(seen, eye, np.zeros(3), MATRIX, None)[0]
        _, turn, shift = cv2.solvePnP(corners, image, MATRIX, None)
        assert np.abs(shift[:2]).max() < 1e-4  # the second camera has the head in its middle
        (found,) = camera.camera_to_ray(head[None], box_round(pixel)[None], INTRINSICS)
        np.testing.assert_allclose(found, cv2.Rodrigues(turn)[0], atol=1e-5)


def test_crops_and_scales_leave_the_ray_frame_alone(rng):
    """A part of the image, enlarged, has its own intrinsics; R_ray is the same there."""
    centres = rng.uniform([0, 0], [640, 480], (20, 2))
    rotations = Rotation.random(20, rng=rng).as_matrix()
    whole = camera.camera_to_ray(rotations, box_round(centres), INTRINSICS)
    scale, left, top = 1.7, 130.0, -40.0
    boxes = (box_round(centres) - [left, top, left, top]) * scale
    part = INTRINSICS * scale - [0, 0, left * scale, top * scale]
    np.testing.assert_allclose(camera.camera_to_ray(rotations, boxes, part), whole, atol=1e-12)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 20.0, -135.0])
def test_flips_and_turns_of_the_image_agree_with_the_ray_frame(rng, flip, degrees):
    """To map and then take the ray, or the other way: a turn about the axis keeps the camera."""
    intrinsics = np.array([500.0, 500.0, 320.0, 240.0])
    centres = rng.uniform([100, 100], [540, 380], (20, 2))
    rotations = Rotation.random(20, rng=rng).as_matrix()
    matrix = geometry.compose(geometry.shift_map(-320, -240), geometry.turn_map(degrees))
    matrix = geometry.compose(matrix, geometry.shift_map(320, 240))
    if flip:
        matrix = geometry.compose(geometry.mirror_map(640), matrix)
    new_boxes = box_round(centres @ matrix[:, :2].T + matrix[:, 2])
    first_mapped = camera.camera_to_ray(
        geometry.map_rotations(rotations, matrix), new_boxes, intrinsics
    )
    first_ray = geometry.map_rotations(
        camera.camera_to_ray(rotations, box_round(centres), intrinsics), matrix
    )
    np.testing.assert_allclose(first_mapped, first_ray, atol=1e-6)


# --- intrinsics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [30, 55, 80, 110])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (500, 500)])
def test_the_longer_side_spans_the_field_of_view(degrees, width, height):
    fx, fy, cx, cy = camera.intrinsics_of_view(degrees, width, height)
    assert fx == fy
    assert (cx, cy) == (width / 2, height / 2)
    half = np.array([width, 0]) / 2 if width >= height else np.array([0, height]) / 2
    ends = camera.rays(np.array([[cx, cy] - half, [cx, cy] + half]), np.array([fx, fy, cx, cy]))
    assert np.degrees(np.arccos(ends[0] @ ends[1])) == pytest.approx(degrees)


def test_a_right_angle_by_hand():
    """45 degrees to either side: the focal length is half of the side."""
    np.testing.assert_allclose(camera.intrinsics_of_view(90, 640, 480), [320, 320, 320, 240])


@pytest.mark.parametrize("degrees", [0, 180, -30, 200, float("nan")])
def test_fields_of_view_that_cannot_be_are_refused(degrees):
    with pytest.raises(ValueError, match="field of view"):
        camera.intrinsics_of_view(degrees, 640, 480)


def test_intrinsics_of_a_matrix_that_counts_from_pixel_centres():
    """Where such a matrix says 0, the middle of the first pixel, boxes say 0.5."""
    matrix = np.array([[610.0, 0.2, 300], [0, 620, 210], [0, 0, 1]])
    np.testing.assert_allclose(camera.intrinsics_of_matrix(matrix), [610, 620, 300.5, 210.5])
    matrix[0, 1] = 0
    point = np.array([[0.2, -0.3, 1.5]])
    pixel = cv2.projectPoints(point, np.zeros(3), np.zeros(3), matrix, None)[0][0] + 0.5
    ray = camera.rays(pixel, camera.intrinsics_of_matrix(matrix))
    np.testing.assert_allclose(ray, point / np.linalg.norm(point), atol=1e-9)


# --- record sources ------------------------------------------------------------------------------


@pytest.fixture
def records(tmp_path, rng):
    """Of a wide camera, the second head without a pose; of none; without heads; without poses."""
    boxes = [(2, 4, 12, 20), (30, 10, 40, 22), (50, 30, 62, 46)]
    rotations = Rotation.random(3, rng=rng).as_matrix()
    wide = a_record("wide", boxes=boxes, rotations=rotations, intrinsics=(40, 42, 33, 23))
    wide["has_pose"][1], wide["rotations"][1] = False, np.eye(3)
    unknown = a_record("unknown", boxes=boxes, rotations=rotations)
    empty = a_record("empty", boxes=[], intrinsics=(40, 42, 33, 23))
    unposed = a_record("unposed", boxes=boxes, intrinsics=(40, 42, 33, 23))
    content = [wide, unknown, empty, unposed]
    return write_record_set(tmp_path / "tiny", {"train": content}), content


def test_a_source_in_the_ray_frame(records):
    path, (wide, unknown, empty, unposed) = records
    source = RecordSource(path, "train", decode=False, frame="ray")
    found = source[0]["rotations"]
    assert found.dtype == np.float32
    fx, fy, cx, cy = wide["intrinsics"]
    for i in (0, 2):
        left, top, right, bottom = wide["boxes"][i]
        ray = [((left + right) / 2 - cx) / fx, ((top + bottom) / 2 - cy) / fy, 1]
        look = Rotation.align_vectors(AXIS, ray / np.linalg.norm(ray))[0].as_matrix()
        np.testing.assert_allclose(found[i], look @ wide["rotations"][i], atol=1e-5)
        assert np.abs(found[i] - wide["rotations"][i]).max() > 0.1
    np.testing.assert_array_equal(found[1], np.eye(3))  # what has no pose keeps the identity
    np.testing.assert_array_equal(source[1]["rotations"], unknown["rotations"])
    assert source[2]["rotations"].shape == empty["rotations"].shape == (0, 3, 3)
    np.testing.assert_array_equal(source[3]["rotations"], unposed["rotations"])
    np.testing.assert_array_equal(source[0]["intrinsics"], wide["intrinsics"])


def test_a_source_in_the_camera_frame_gives_what_is_stored(records):
    path, content = records
    for options in ({}, {"frame": "camera"}):
        source = RecordSource(path, "train", decode=False, **options)
        for i, record in enumerate(content):
            np.testing.assert_array_equal(source[i]["rotations"], record["rotations"])


def test_an_unknown_frame_is_refused(records):
    with pytest.raises(ValueError, match=r"Unknown frame 'world'.*'camera', 'ray'"):
        RecordSource(records[0], "train", frame="world")
