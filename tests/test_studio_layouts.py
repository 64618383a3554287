"""Rendered people as raw data of other sets, through the converters of these, back to the truth."""

import dataclasses
import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.engine.report import Report
from data_prep.panoptic import converter
from data_prep.panoptic.video import read_frames
from data_prep.sets import biwi, biwi_files, mat_faces, w300_lp
from data_prep.studio.layouts.biwi import Biwi, centre_of
from data_prep.studio.layouts.panoptic import Panoptic
from data_prep.studio.layouts.w300_lp import W300Lp
from data_prep.studio.layouts.writing import write_layout
from data_prep.studio.people import make_person
from data_prep.studio.random_scene import PoseSpread
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.truth import sphere_box, truth
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.cli import main
from mtnet_jax.data.example import check_record
from mtnet_jax.rotations import geodesic_degrees, rotation_to_euler
from tests.panoptic_raw import HEAD


def written(layout, out: Path) -> Path:
    """Writes raw data in this process."""
    write_layout(layout, out, about={"layout": "a test"})
    return out


def converted(conversion) -> tuple[dict[str, list[dict]], Report]:
    """Split -> records, without writing them."""
    report = Report(conversion.description)
    records = {}
    for split, items in conversion.splits.items():
        records[split] = [record for item in items for record in conversion.read(item, report)]
        for record in records[split]:
            check_record(record)
    return records, report


def iou(a, b) -> float:
    a, b = (np.asarray(box, np.float32) for box in (a, b))
    return float(np.asarray(iou_xyxy(a, b)))


def angle(a, b) -> float:
    return float(np.asarray(geodesic_degrees(a, b)))


def everybody(scene, camera, box_rule="head") -> dict[int, object]:
    """Number of the person -> truth, as if nobody hid anybody."""
    found = {}
    for number in range(len(scene.people)):
        ids = np.full((camera.height, camera.width), number + 1)
        for head in truth(scene, camera, ids, box_rule=box_rule)[0]:
            if head.person == number:
                found[number] = head
    return found


# CMU Panoptic


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


# BIWI


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


# 300W-LP


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


# All


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def studio(assets_dir, out, layout, *options) -> int:
    return main(
        ["studio", "--assets", str(assets_dir), "--out", str(out), "--layout", layout, *options]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("panoptic", ["--frames", "2", "--test-frames", "1", "--cameras", "2", "--people", "2"]),
        ("panoptic", ["--frames", "2", "--cameras", "2", "--every", "4", "--video"]),
        ("biwi", ["--frames", "24"]),
        ("w300lp", ["--frames", "3"]),
    ],
)
def test_the_same_seed_gives_the_same_files_for_any_number_of_processes(
    assets_dir, tmp_path, capsys, layout, options
):
    for processes in ("1", "2"):
        options = [*options, "--size", "128x72", "--processes", processes]
        assert studio(assets_dir, tmp_path / processes, layout, *options) == 0
        assert "mtnet data convert" in capsys.readouterr().out
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert len(one) > 6
    assert one == two
    assert studio(assets_dir, tmp_path / "3", layout, *options, "--seed", "9") == 0
    assert not set(files(tmp_path / "3").values()) & {
        value for name, value in one.items() if name.endswith((".jpg", ".png", ".mp4"))
    }


def test_the_command_refuses_what_it_cannot_do(assets_dir, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for layout, out, options, word in (
        ("biwi", "new", ["--frames", "5"], "--frames 5"),
        ("biwi", "new", ["--frames", "24", "--test-frames", "2"], "--test-frames"),
        ("panoptic", "new", ["--cameras", "32"], "--cameras 32"),
        ("w300lp", "mine", [], "--overwrite"),
        ("w300lp", "mine", ["--overwrite"], "studio.json"),
    ):
        assert studio(assets_dir, tmp_path / out, layout, *options) == 1
        assert word in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing_behind(assets_dir, tmp_path):
    layout = W300Lp(assets_dir, 2, backgrounds=(tmp_path / "no image.jpg",) * 2, size=(64, 64))
    with pytest.raises(ValueError, match="is not an image"):
        written(layout, tmp_path / "raw")
    assert not list(tmp_path.iterdir())
