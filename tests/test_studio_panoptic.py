"""The studio's raw data in the layout of CMU Panoptic: its converter reads what was rendered."""

import dataclasses
import json

import av
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.panoptic import converter
from data_prep.panoptic.video import read_frames
from data_prep.studio.layouts.panoptic import Panoptic
from data_prep.studio.people import make_person
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.truth import sphere_box
from tests.panoptic_raw import HEAD
from tests.studio_raw import angle, converted, everybody, iou, written

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")


SMALL = (320, 180)


@pytest.fixture(scope="module")
def dome(assets_dir, tmp_path_factory):
    """Two sequences, four cameras: layout, raw folder, records by split, report."""
    layout = Panoptic(
        assets_dir, (2, 1), seed=3, cameras=4, size=SMALL, people=(3, 4), every=30, lost_share=0.0
    )
    raw = written(layout, tmp_path_factory.mktemp("panoptic") / "raw")
    records, report = converted(panoptic_conversion(raw, layout, every=30))
    return layout, raw, records, report


def panoptic_conversion(raw, layout, *, every, **options):
    train = [name for name in layout.sequences() if "train" in name]
    test = [name for name in layout.sequences() if "test" in name]
    options = converter.Options(min_kilobytes=0, **options)
    return converter.conversion(
        raw, options, every=every, train_sequences=train, test_sequences=test
    )


def pairs(layout, records):
    """(record, index in it, truth) of the heads, by position: both are in the order of people."""
    for record in (record for split in records.values() for record in split):
        sequence, camera, frame = record["image_id"].split("/")
        scene = layout.scene(sequence, int(frame))
        eye = scene.cameras[int(camera.removeprefix("00_"))]
        heads = everybody(scene, eye, "sphere18")
        assert len(record["boxes"]) == len(heads)
        for index, head in enumerate(heads.values()):
            yield record, index, head


def test_panoptic_gives_each_image_of_each_camera_once(dome):
    layout, raw, records, report = dome
    sequences = layout.sequences()
    expected = {
        f"{name}/00_{camera:02d}/{30 * moment:08d}"
        for name, count in sequences.items()
        for moment in range(count)
        for camera in range(4)
    }
    found = [record["image_id"] for split in records.values() for record in split]
    assert sorted(found) == sorted(expected)
    assert len(records["train"]) == 8
    assert len(records["test"]) == 4
    assert not report.dropped_images.counts
    for record in (*records["train"], *records["test"]):
        name, camera, frame = record["image_id"].split("/")
        assert (
            record["image"]
            == (raw / name / "hdImgs" / camera / f"{camera}_{frame}.jpg").read_bytes()
        )


def fitted_face(person) -> tuple[Rotation, float, np.ndarray]:
    """SciPy's fit of the 14 reference points to a face: turn, scale, (3,) place; head axes, cm."""
    reference = np.array(list(HEAD.values())) * [1, -1, -1]
    face = 100 * person.landmarks[list(HEAD)]
    a, b = reference - reference.mean(axis=0), face - face.mean(axis=0)
    turn, _ = Rotation.align_vectors(b, a)
    scale = (turn.apply(a) * b).sum() / (a * a).sum()
    return turn, scale, face.mean(axis=0) - scale * turn.apply(reference.mean(axis=0))


def test_panoptic_boxes_are_spheres_of_the_size_of_the_face(dome):
    """The converter's sphere is 18 cm for a face of the reference's size; these are smaller."""
    layout, _, records, _ = dome
    overlaps = []
    for record, index, head in pairs(layout, records):
        sequence, camera, frame = record["image_id"].split("/")
        scene = layout.scene(sequence, int(frame))
        eye = scene.cameras[int(camera.removeprefix("00_"))]
        placed = scene.people[head.person]
        turn, scale, place = fitted_face(placed.person)
        centre = place + scale * turn.apply([0, -5, 5])
        in_camera = eye.to_camera(placed.head_rotation @ (centre / 100) + placed.head_position)
        expected = sphere_box(in_camera, 0.18 * scale, eye)
        clipped = np.clip(expected, 0, [*SMALL, *SMALL])
        np.testing.assert_allclose(record["boxes"][index], clipped, atol=0.1)
        overlaps.append(iou(record["boxes"][index], head.box))
    assert len(overlaps) > 25
    # The studio's own rule `sphere18` has 18 cm for everybody.
    assert np.mean(overlaps) > 0.75
    assert np.min(overlaps) > 0.6


def test_panoptic_faces_read_some_degrees_upward(assets_dir):
    """How the reference face lies on many faces of the mesh, whose zero pose is known."""
    figure = figure_of(assets_dir)
    fits = [fitted_face(make_person(figure, identity, 0)) for identity in range(40)]
    pitch, yaw, roll = np.array([turn.as_rotvec(True) for turn, _, _ in fits]).T * [[-1], [1], [1]]
    assert 5 < pitch.mean() < 7.5
    assert pitch.std() < 3
    assert max(abs(yaw).max(), abs(roll).max()) < 0.5
    assert 0.8 < np.mean([scale for _, scale, _ in fits]) < 0.92


def test_panoptic_rotations_are_right_but_for_a_pitch_of_the_reference_face(dome):
    """The fit reads each face some degrees more upward: the same turn in each head's own axes."""
    layout, _, records, _ = dome
    turns = {}
    for record, index, head in pairs(layout, records):
        own = head.rotation.T @ record["rotations"][index]
        turns.setdefault(head.identity, []).append(Rotation.from_matrix(own).as_rotvec(True))
    for several in turns.values():  # whatever camera and moment, it is a matter of the face
        assert np.ptp(several, axis=0).max() < 0.02
    each = np.array([several[0] for several in turns.values()])
    assert len(each) >= 6
    assert np.abs(each[:, 1:]).max() < 0.5  # no yaw, no roll
    assert each[:, 0].min() > -12  # minus: upward
    assert each[:, 0].max() < 0


def test_panoptic_cameras_agree_on_one_rotation_in_the_world(dome):
    layout, raw, records, _ = dome
    found = {}
    for record, index, head in pairs(layout, records):
        sequence, camera, frame = record["image_id"].split("/")
        content = json.loads((raw / sequence / f"calibration_{sequence}.json").read_text())
        turn = np.array(next(c["R"] for c in content["cameras"] if c["name"] == camera))
        world = turn.T @ record["rotations"][index]
        found.setdefault((sequence, frame, head.identity), []).append(world)
    assert max(map(len, found.values())) == 4
    for worlds in found.values():
        assert max(angle(worlds[0], other) for other in worlds) < 1e-2


def test_panoptic_landmarks_lie_on_the_faces_in_the_images(dome):
    """The published json and calibration, projected by OpenCV, land on the person's pixels."""
    layout, raw, _, _ = dome
    inside = []
    for sequence in layout.sequences():
        content = json.loads((raw / sequence / f"calibration_{sequence}.json").read_text())
        faces = json.loads((raw / sequence / "hdFace3d/faceRecon3D_hd00000000.json").read_text())
        scene = layout.scene(sequence, 0)
        for entry, eye in zip(content["cameras"], scene.cameras, strict=True):
            rendering = render(scene, eye, supersample=1)
            for number, face in enumerate(faces["people"]):
                points = np.array(face["face70"]["landmarks"]).reshape(70, 3)
                pixels = cv2.projectPoints(
                    points,
                    cv2.Rodrigues(np.array(entry["R"]))[0],
                    np.array(entry["t"]),
                    np.array(entry["K"]),
                    np.array(entry["distCoef"]),
                )[0][:, 0]
                columns, rows = np.round(pixels).astype(int).T  # centres of pixels are whole
                there = (columns >= 0) & (rows >= 0) & (columns < SMALL[0]) & (rows < SMALL[1])
                away = (points @ np.array(entry["R"]).T + np.array(entry["t"]).ravel())[:, 2] / 100
                seen = abs(rendering.depth[rows[there], columns[there]] - away[there]) < 0.03
                inside += (rendering.ids[rows[there], columns[there]] == number + 1)[seen].tolist()
    assert len(inside) > 300
    assert np.mean(inside) > 0.97


def test_panoptic_people_are_disjoint_and_headings_go_all_the_way_round(dome, assets_dir):
    layout, _, records, _ = dome
    casts = {
        name: {person.identity for person in layout.cast(name).people}
        for name in layout.sequences()
    }
    train, test = (casts[f"studio3_{split}0"] for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
    yaws = [
        np.arctan2(record["rotations"][index][0, 2], record["rotations"][index][2, 2])
        for record, index, _ in pairs(layout, records)
    ]
    assert np.histogram(yaws, 4, (-np.pi, np.pi))[0].min() > 2


def test_panoptic_heads_turn_smoothly(dome):
    layout, _, _, _ = dome
    layout = dataclasses.replace(layout, frames=(3, 0), video=True)
    (sequence,) = layout.sequences()
    moved = []
    for frame in range(60):
        before, after = (layout.scene(sequence, f) for f in (frame, frame + 1))
        for one, two in zip(before.people, after.people, strict=True):
            moved.append(angle(one.head_rotation, two.head_rotation))
            assert np.linalg.norm(one.head_position - two.head_position) < 0.03
    assert max(moved) < 15  # degrees a thirtieth of a second: the quickest real heads do that
    assert sum(moved) > 60


def test_panoptic_lost_faces_are_ignored_and_counted(assets_dir, tmp_path):
    layout = Panoptic(
        assets_dir, (4, 0), seed=2, cameras=1, size=(160, 90), people=(4, 4), lost_share=0.4
    )
    raw = written(layout, tmp_path / "raw")
    conversion = panoptic_conversion(raw, layout, every=60, keep_empty=True)
    records, report = converted(conversion)
    (sequence,) = layout.sequences()
    lost = shown = 0
    for record in records["train"]:
        frame = int(record["image_id"].split("/")[2])
        expected = layout.lost(sequence, frame)
        # A lost face has no rotation; its box is in the image all the same.
        lost += int(record["ignore"].sum())
        shown += len(record["ignore"])
        np.testing.assert_array_equal(record["has_pose"], ~record["ignore"])
        if len(expected) == len(record["ignore"]):
            np.testing.assert_array_equal(record["ignore"], expected)
    assert 0 < lost < shown
    reason = "face with fewer than 7 landmarks of the reference head"
    assert report.ignored_heads.counts[reason] == lost


def test_panoptic_videos_show_the_frames_of_their_json(assets_dir, tmp_path):
    layout = Panoptic(
        assets_dir, (3, 0), seed=4, cameras=1, size=(240, 136), people=(4, 4), every=12, video=True
    )
    raw = written(layout, tmp_path / "raw")
    (sequence,) = layout.sequences()
    path = raw / sequence / "hdVideos" / "hd_00_00.mp4"
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 25
    numbers = range(9, 25)  # all turn by then
    rendered = {n: render(layout.scene(sequence, n), layout.cast(sequence).cameras[0]).image
                for n in numbers}  # fmt: skip
    for frame, image in read_frames(path, numbers):
        gaps = {k: np.abs(image[..., ::-1].astype(float) - rendered[k]).mean() for k in numbers}
        assert min(gaps, key=gaps.get) == frame
    records, _ = converted(panoptic_conversion(raw, layout, every=12))
    found = [record["image_id"][-8:] for record in records["train"]]
    assert found == ["00000000", "00000012", "00000024"]
