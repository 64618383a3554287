"""The studio's raw data in the layout of BIWI: its converter reads what was rendered."""

import cv2
import numpy as np
import pytest

from data_prep.sets import biwi, biwi_files
from data_prep.studio.layouts.biwi import Biwi, centre_of
from data_prep.studio.render import render
from tests.studio_raw import angle, converted, everybody, iou, written

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")


@pytest.fixture(scope="module")
def kinect(assets_dir, tmp_path_factory):
    """Sequences 2, 21 (the same person) and 5, two frames each."""
    layout = Biwi(assets_dir, 6, seed=6, sequences=(2, 5, 21), size=(320, 240))
    return layout, written(layout, tmp_path_factory.mktemp("biwi") / "raw")


def biwi_scene(layout, record):
    sequence, frame = record["image_id"].split("/frame_")
    return layout.scene(int(sequence), int(frame))


def test_biwi_rotations_are_exact_in_both_cameras(kinect):
    layout, raw = kinect
    for calibrated in (False, True):
        records, report = converted(
            biwi.conversion(raw, sequences=layout.sequences, calibrated=calibrated)
        )
        assert len(records["test"]) == 6
        assert not report.dropped_images.counts
        for record in records["test"]:
            scene = biwi_scene(layout, record)
            camera = scene.cameras[int(calibrated)]
            expected = camera.rotation @ scene.people[0].head_rotation
            assert angle(record["rotations"][0], expected) < 1e-3
            assert record["image"] == (raw / "hpdb" / f"{record['image_id']}_rgb.png").read_bytes()
    assert 0.5 < angle(scene.cameras[0].rotation, scene.cameras[1].rotation) < 3


def test_biwi_boxes_of_the_average_head_lie_on_the_heads(kinect):
    layout, raw = kinect
    records, _ = converted(biwi.conversion(raw, sequences=layout.sequences))
    overlaps = []
    for record in records["test"]:
        scene = biwi_scene(layout, record)
        overlaps.append(iou(record["boxes"][0], everybody(scene, scene.cameras[1])[0].box))
    assert min(overlaps) > 0.7
    assert np.mean(overlaps) > 0.8


def test_biwi_depth_is_the_rendered_depth_to_a_millimetre(kinect):
    layout, raw = kinect
    for path in sorted((raw / "hpdb").glob("*/*_depth.bin")):
        scene = layout.scene(int(path.parent.name), int(path.name[6:11]))
        depth = biwi_files.read_depth(path)
        rendering = render(scene, scene.cameras[0], supersample=1)
        assert depth.shape == (240, 320)
        full = depth > 0
        assert (full == (rendering.depth < scene.people[0].head_position[2] + 0.6)).all()
        assert full[rendering.ids == 1].mean() > 0.95
        assert np.abs(depth[full] - 1000 * rendering.depth[full]).max() <= 1


def test_biwi_centres_lie_inside_the_heads(kinect):
    layout, raw = kinect
    _, report = converted(biwi.conversion(raw, sequences=layout.sequences, check_depth=True))
    assert not report.notes.counts
    for path in sorted((raw / "hpdb").glob("*/*_pose.txt")):
        scene = layout.scene(int(path.parent.name), int(path.name[6:11]))
        placed = scene.people[0]
        rotation, centre = biwi_files.read_pose(path)
        np.testing.assert_allclose(centre, 1000 * centre_of(placed), atol=1e-4)
        in_head = rotation.T @ (centre / 1000 - placed.head_position)
        skull = placed.person.outline
        assert (skull.min(axis=0) + 0.03 < in_head).all()
        assert (in_head < skull.max(axis=0) - 0.03).all()
        tip = placed.person.landmarks[30]
        assert 0.06 < in_head[2] - tip[2] < 0.075


def test_biwi_colour_camera_sees_the_depth_where_the_calibration_says(kinect):
    """The tip of the nose, from pose.txt through rgb.cal by OpenCV, is where it is rendered."""
    layout, raw = kinect
    checked = 0
    for path in sorted((raw / "hpdb").glob("*/*_pose.txt")):
        scene = layout.scene(int(path.parent.name), int(path.name[6:11]))
        rotation, centre = biwi_files.read_pose(path)
        calibration = biwi_files.read_calibration(path.with_name("rgb.cal"))
        tip = rotation @ [0, 0, -67.0] + centre
        pixel = cv2.projectPoints(
            tip[None],
            cv2.Rodrigues(calibration.rotation)[0],
            calibration.translation,
            calibration.matrix,
            None,
        )[0][0, 0]
        rendering = render(scene, scene.cameras[1], supersample=1)
        column, row = np.round(pixel).astype(int)
        away = (calibration.rotation @ tip + calibration.translation)[2] / 1000
        checked += abs(rendering.depth[row, column] - away) < 0.006
    assert checked >= 5  # of 6


def test_biwi_sequences_of_one_person_show_one_person(kinect):
    layout, _ = kinect
    who = {n: layout.person(n).identity for n in biwi.SEQUENCES}
    assert len(set(who.values())) == 20
    train = {who[n] for n in biwi.SEQUENCES if n not in biwi.TEST_SEQUENCES["subject-disjoint"]}
    assert not train & {who[n] for n in biwi.TEST_SEQUENCES["subject-disjoint"]}


def test_biwi_needs_a_frame_for_each_sequence(assets_dir):
    with pytest.raises(ValueError, match="--frames 10"):
        Biwi(assets_dir, 10)
