"""The studio's raw data in the layout of 300W-LP: its converter reads what was rendered."""

import dataclasses

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.sets import mat_faces, w300_lp
from data_prep.studio.layouts.w300_lp import W300Lp
from data_prep.studio.random_scene import PoseSpread
from mtnet_jax.rotations import rotation_to_euler
from tests.studio_raw import angle, converted, everybody, iou, written

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")


@pytest.fixture(scope="module")
def faces(assets_dir, tmp_path_factory):
    layout = W300Lp(assets_dir, 6, seed=1, size=(200, 200))
    return layout, written(layout, tmp_path_factory.mktemp("w300lp") / "raw")


def photo_number(record) -> int:
    return int(record["image_id"].split("_")[1])


def test_300w_lp_rotations_are_exact(faces):
    layout, raw = faces
    records, report = converted(w300_lp.conversion(raw))
    assert [photo_number(record) for record in records["train"]] == list(range(6))
    assert not report.dropped_images.counts
    for record in records["train"]:
        scene = layout.scene(photo_number(record))
        assert angle(record["rotations"][0], scene.people[0].head_rotation) < 1e-3
        assert record["image"] == (raw / f"{record['image_id']}.jpg").read_bytes()


def test_300w_lp_boxes_of_the_average_head_lie_on_the_heads(faces):
    layout, raw = faces
    records, _ = converted(w300_lp.conversion(raw))
    overlaps = []
    for record in records["train"]:
        scene = layout.scene(photo_number(record))
        overlaps.append(iou(record["boxes"][0], everybody(scene, scene.cameras[0])[0].box))
    assert min(overlaps) > 0.7
    assert np.mean(overlaps) > 0.8


def test_300w_lp_landmarks_are_those_of_weak_perspective_within_three_percent(faces):
    layout, raw = faces
    for photo in range(6):
        scene = layout.scene(photo)
        placed = scene.people[0]
        face = mat_faces.read_face(raw / f"{layout.name(photo)}.mat")
        x, up, scale = face.place  # pixels, pixels a millimetre
        turn = Rotation.from_matrix(placed.head_rotation)
        origin = placed.person.landmarks[30] * [0, 1, 1] + [0, -0.006, 0.132]
        points = turn.apply(placed.person.landmarks[:68] - origin) * 1000
        expected = points[:, :2] * scale + [x, 200 - up]
        reach = np.linalg.norm(points, axis=1).max() * scale
        assert face.landmarks["pt2d"].shape == (68, 2)
        assert np.abs(face.landmarks["pt2d"] - expected).max() < 0.03 * reach
        exact = everybody(scene, scene.cameras[0])[0].landmarks[:68]
        pixels = cv2.projectPoints(exact, np.zeros(3), np.zeros(3), scene.cameras[0].matrix, None)
        np.testing.assert_allclose(face.landmarks["pt2d"], pixels[0][:, 0], atol=1e-6)


def test_300w_lp_keeps_the_limit_of_99_degrees(assets_dir, tmp_path):
    wide = PoseSpread(yaw_limit=180.0, limit=80.0, nod=(40, 40), tilt=(40, 40))
    layout = W300Lp(assets_dir, 8, seed=2, size=(64, 64), poses=wide)

    def largest(layout):
        turns = [layout.scene(n).people[0].head_rotation for n in range(8)]
        return np.abs(rotation_to_euler(np.array(turns), convention="canonical")).max(axis=1)

    assert (largest(layout) <= 99).all()
    without = dataclasses.replace(layout, max_angle=np.inf)
    beyond = largest(without) > 99
    assert 0 < beyond.sum() < 8
    records, report = converted(w300_lp.conversion(written(without, tmp_path / "raw")))
    kept = [photo_number(record) for record in records["train"]]
    assert kept == np.flatnonzero(~beyond).tolist()
    assert report.dropped_images.counts["an angle is beyond 99 degrees"] == beyond.sum()
