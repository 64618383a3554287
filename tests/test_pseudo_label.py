"""Labels by a network that agrees with itself: agreement, flips, what records keep."""

import argparse
import functools
import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.engine.builder import write_record_set
from data_prep.engine.conversion import Description
from data_prep.engine.report import Report
from data_prep.own import csv_heads, looks, pseudo_label
from data_prep.own.looks import Agreement, Labeller, Trusted, agree, missed, taught
from data_prep.own.pseudo_label import read_record, read_unlabelled
from data_prep.own.record_items import RecordItem
from data_prep.own.teacher import TRUST, Trust, read_teacher
from mtnet_jax.errors import BadInput
from mtnet_jax.predict.head import Head
from mtnet_jax.rotations import heading_degrees

BOX = np.array([10, 20, 50, 80], np.float32)
OPTIONS = Agreement()


def turned(yaw, pitch=0.0):
    return Rotation.from_euler("YX", [yaw, -pitch], degrees=True).as_matrix()


def look(rotation, box=BOX, score=0.9):
    return {
        "boxes": np.array([box], np.float32),
        "scores": np.array([score], np.float32),
        "rotations": np.array([rotation], np.float32),
    }


NOTHING = {
    "boxes": np.zeros((0, 4), np.float32),
    "scores": np.zeros(0, np.float32),
    "rotations": np.zeros((0, 3, 3), np.float32),
}


def a_report():
    return Report(Description("mine", "1.0.0", "", "head", ("head",), "", "", ""))


def test_looks_that_agree_give_the_mean_rotation_and_box():
    (found,) = agree([look(turned(20)), look(turned(30), BOX + 2)], OPTIONS)
    assert found.agreed
    assert found.heading is None
    off = Rotation.from_matrix(found.rotation) * Rotation.from_euler("y", 25, degrees=True).inv()
    assert np.rad2deg(off.magnitude()) < 1e-3
    np.testing.assert_allclose(found.box, BOX + 1)


def test_nods_that_differ_leave_the_heading_over_the_seam():
    (found,) = agree([look(turned(175, 30)), look(turned(-175, -30))], OPTIONS)
    assert found.agreed
    assert found.rotation is None
    assert abs(found.heading) == pytest.approx(180, abs=1e-3)


def test_headings_that_differ_leave_the_box_alone():
    (found,) = agree([look(turned(0)), look(turned(90))], OPTIONS)
    assert found.agreed
    assert found.rotation is None
    assert found.heading is None


@pytest.mark.parametrize("second", [NOTHING, look(turned(0), BOX + 40), look(turned(0), score=0.3)])
def test_a_look_that_misses_the_head_or_doubts_it(second):
    (found,) = agree([look(turned(0)), second], OPTIONS)
    assert not found.agreed


class _Sees:
    """A network that finds the white square of an image and looks to the side it lies on."""

    frame, class_names = "ray", ("head",)

    def __call__(self, image):
        rows, columns = np.nonzero(image[..., 0] > 128)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        left = (box[0] + box[2]) / 2 < image.shape[1] / 2
        rotation = turned(40 if left else -40)
        return [Head(tuple(map(float, box)), 0.9, rotation, 0.0, 0.0, 0.0, "head")]


def an_image():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 30:70] = 255
    return pixels


@pytest.fixture
def labeller(tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "predictors", lambda *_: [_Sees(), _Sees()])
    return Labeller(tmp_path, (416, 608), OPTIONS)


def test_flipped_looks_come_back_to_where_the_head_is(labeller):
    (found,) = labeller(an_image(), "a")
    np.testing.assert_allclose(found.box, [30, 20, 70, 60])
    np.testing.assert_allclose(found.rotation, turned(40), atol=1e-6)


def test_images_become_records(tmp_path, labeller):
    # Of 16 bits, which records do not hold.
    cv2.imwrite(str(tmp_path / "a.png"), an_image().astype(np.uint16) * 257)
    report = a_report()
    (record,) = read_unlabelled(
        tmp_path / "a.png", report, raw=tmp_path, source="mine", label=labeller
    )
    assert record["image_id"] == "a.png"
    stored = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, an_image())
    assert record["has_pose"].tolist() == [True]
    np.testing.assert_allclose(record["rotations"][0], turned(40), atol=1e-6)
    assert report.notes.counts["heads labelled with a rotation"] == 1


def records_of(tmp_path, monkeypatch, label, **heads):
    """What `read_record` makes of a record with the head of `an_image` and one elsewhere."""
    record = {
        "image": cv2.imencode(".png", an_image())[1].tobytes(),
        "image_id": "r",
        "source": "theirs",
        "boxes": np.array([[30, 20, 70, 60], [120, 20, 160, 60]], np.float32),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (2, 1, 1)),
        "has_pose": np.zeros(2, bool),
        "ignore": np.zeros(2, bool),
        "labels": np.zeros(2, np.int32),
        "headings": np.zeros(2, np.float32),
        "has_heading": np.zeros(2, bool),
        "intrinsics": np.array([100, 100, 50, 50], np.float32),
        **heads,
    }
    monkeypatch.setattr(pseudo_label, "record_of", lambda item, frame: record)
    read = functools.partial(read_record, label=label, frame="ray")
    (made,) = read(RecordItem("folder", "train", 0, tmp_path), a_report())
    return made


def test_a_record_keeps_what_it_knew_and_gains_a_pose(tmp_path, monkeypatch, labeller):
    made = records_of(tmp_path, monkeypatch, labeller)
    assert made["has_pose"].tolist() == [True, False]
    np.testing.assert_allclose(made["rotations"][0], turned(40), atol=1e-6)
    assert not made["intrinsics"].any()  # the rotations are relative to the ray
    posed = records_of(tmp_path, monkeypatch, labeller, has_pose=np.array([True, False]))
    np.testing.assert_allclose(posed["rotations"][0], np.eye(3))


@pytest.mark.parametrize(("heading", "becomes_rotation"), [(50.0, True), (-50.0, False)])
def test_a_labelled_heading_is_asked(tmp_path, monkeypatch, labeller, heading, becomes_rotation):
    made = records_of(
        tmp_path,
        monkeypatch,
        labeller,
        headings=np.array([heading, 0], np.float32),
        has_heading=np.array([True, False]),
    )
    assert bool(made["has_pose"][0]) == becomes_rotation
    assert bool(made["has_heading"][0]) != becomes_rotation
    if becomes_rotation:  # it looks where the label says, nods and tilts as predicted
        assert heading_degrees(made["rotations"][0]) == pytest.approx(heading, abs=1e-4)
        assert made["rotations"][0][1] == pytest.approx(turned(40)[1], abs=1e-6)


def test_predictions_on_no_head_are_ignored(tmp_path, monkeypatch):
    far = Trusted(np.array([150.0, 60, 190, 98]), True, turned(0))
    doubtful = Trusted(np.array([5.0, 60, 25, 90]), False)
    made = records_of(tmp_path, monkeypatch, _Says([far, doubtful]))
    assert made["ignore"].tolist() == [False, False, True]
    np.testing.assert_allclose(made["boxes"][2], far.box)


class _Says:
    options = OPTIONS

    def __init__(self, trusted):
        self._trusted = trusted

    def __call__(self, image, image_id):
        return self._trusted


# A teacher


def seen(rotation, box=BOX):
    return {"boxes": np.array([box], float), "rotations": np.array([rotation], float)}


def asked(network, *rotations, heading=None):
    looks_of_teacher = [seen(rotation) for rotation in rotations]
    return taught(Trusted(BOX, True, network, heading), looks_of_teacher, OPTIONS, TRUST)


def test_a_teacher_whose_looks_agree_gives_the_rotation():
    found = asked(turned(30), turned(10), turned(20))
    off = Rotation.from_matrix(found.rotation) * Rotation.from_euler("y", 15, degrees=True).inv()
    assert np.rad2deg(off.magnitude()) < 1e-3
    assert found.taught == "yes"


def test_a_teacher_upgrades_a_heading_and_a_box():
    for heading in (20.0, None):
        found = asked(None, turned(10), turned(10), heading=heading)
        np.testing.assert_allclose(found.rotation, turned(10), atol=1e-6)
        assert found.heading is None


@pytest.mark.parametrize(
    "rotations",
    [
        pytest.param([turned(-20), turned(20)], id="its looks differ"),
        pytest.param([turned(60), turned(60)], id="too far to the side"),
    ],
)
def test_a_teacher_that_is_not_believed_leaves_what_the_network_says(rotations):
    found = asked(turned(30), *rotations)
    np.testing.assert_allclose(found.rotation, turned(30))
    assert found.taught == "no"


def test_a_teacher_that_says_too_little_is_turned_out():
    """By a share of the heading, about the vertical; asked as far as what it says itself."""
    trust = Trust(heading=45.0, outward=1.2)
    nodding = Rotation.from_euler("xyz", [15, 40, 5], degrees=True).as_matrix()
    heading = np.rad2deg(np.arctan2(nodding[0, 2], nodding[2, 2]))
    found = taught(Trusted(BOX, True, turned(30)), [seen(nodding)] * 2, OPTIONS, trust)
    expected = Rotation.from_euler("y", 0.2 * heading, degrees=True).as_matrix() @ nodding
    np.testing.assert_allclose(found.rotation, expected, atol=1e-6)
    assert np.rad2deg(np.arctan2(*found.rotation[[0, 2], 2])) == pytest.approx(1.2 * heading)


def test_a_network_that_contradicts_its_teacher_leaves_the_box_alone():
    found = asked(turned(170), turned(10), turned(10))
    assert (found.agreed, found.rotation, found.heading) == (True, None, None)
    assert found.taught == "contradicted"


def test_a_teacher_is_not_asked_where_it_sees_no_face_or_the_network_doubts():
    nobody = {"boxes": np.zeros((0, 4)), "rotations": np.zeros((0, 3, 3))}
    trusted, doubtful = Trusted(BOX, True, turned(30)), Trusted(BOX, False)
    assert taught(trusted, [seen(turned(10)), nobody], OPTIONS, TRUST) is trusted
    assert taught(trusted, [seen(turned(10), BOX + 40)] * 2, OPTIONS, TRUST) is trusted
    assert taught(doubtful, [seen(turned(10))] * 2, OPTIONS, TRUST) is doubtful


def test_a_face_that_the_network_misses_is_doubtful():
    faces = {"boxes": np.array([BOX, [100, 20, 140, 80]], float)}
    (found,) = missed(faces, [Trusted(BOX + 20, True)])  # the first face touches it
    assert (found.agreed, found.taught) == (False, "missed")
    np.testing.assert_array_equal(found.box, [100, 20, 140, 80])
    assert len(missed(faces, [])) == 2


def predictions(path, rotation, box, *, frame="ray", image="a.png"):
    aside = {"box": [90, 60, 99, 80]}  # a face of which it says no more
    heads = [{"box": box, "rotation": rotation.tolist()}, aside]
    path.write_text(json.dumps({"frame": frame, "images": [{"image": image, "heads": heads}]}))
    return path


def test_images_get_the_rotations_of_files_of_predictions(tmp_path, monkeypatch):
    """The head lies at 30 to 70 of 200 pixels, so at 130 to 170 of the flipped image."""
    monkeypatch.setattr(looks, "predictors", lambda *_: [_Sees()])
    monkeypatch.setattr(pseudo_label, "predictors", lambda *_: [_Sees()])
    raw = tmp_path / "images"
    raw.mkdir()
    cv2.imwrite(str(raw / "a.png"), an_image())
    files = (
        predictions(tmp_path / "plain.json", turned(36, 10), [30, 20, 70, 60]),
        predictions(tmp_path / "flipped.json", turned(-36, 10), [130, 20, 170, 60]),
    )
    parser = argparse.ArgumentParser()
    pseudo_label.add_arguments(parser)
    args = parser.parse_args(["--split", "test", "--teacher", *map(str, files)])
    args.raw, args.out = raw, tmp_path / "mine"
    made = pseudo_label.from_arguments(args)
    (item,) = made.splits["test"]
    report = a_report()
    (record,) = made.read(item, report)
    np.testing.assert_allclose(record["rotations"][0], turned(36, 10), atol=1e-5)
    assert report.notes.counts["heads labelled with a rotation of the teacher"] == 1
    assert record["ignore"].tolist() == [False, True]
    np.testing.assert_allclose(record["boxes"][1], [90, 60, 99, 80])
    assert report.notes.counts["faces of the teacher that the network misses"] == 1


def test_faces_that_nobody_labelled_are_ignored_in_records(tmp_path, monkeypatch):
    """Where they touch no head of the record, which has them at 30 to 70 and 120 to 160."""
    boxes = ([40.0, 30, 80, 70], [172.0, 70, 190, 90])
    missed_faces = [Trusted(np.array(box), False, taught="missed") for box in boxes]
    made = records_of(tmp_path, monkeypatch, _Says(missed_faces))
    assert made["ignore"].tolist() == [False, False, True]
    np.testing.assert_allclose(made["boxes"][2], boxes[1])


def test_a_teacher_of_a_record_set_is_asked_for_all_of_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "predictors", lambda *_: [_Sees()])
    monkeypatch.setattr(pseudo_label, "predictors", lambda *_: [_Sees()])
    raw = tmp_path / "images"
    (raw / "sub").mkdir(parents=True)
    cv2.imwrite(str(raw / "sub" / "a.png"), an_image())
    (tmp_path / "t.csv").write_text("image,x1,y1,x2,y2\nsub/a.png,30,20,70,60\n")
    write_record_set(csv_heads.conversion(raw, tmp_path / "t.csv", name="mine"), tmp_path / "mine")
    files = [
        predictions(tmp_path / "plain.json", turned(36, 10), [30, 20, 70, 60]),
        predictions(tmp_path / "flipped.json", turned(-36, 10), [130, 20, 170, 60]),
    ]
    options = {"name": "posed", "weights": tmp_path, "sizes": (416,), "options": OPTIONS}
    made = pseudo_label.conversion(tmp_path / "mine", teacher=files, **options)
    (record,) = made.read(made.splits["train"][0], a_report())
    np.testing.assert_allclose(record["rotations"][0], turned(36, 10), atol=1e-5)
    files[1].write_text('{"frame": "ray", "images": []}')
    with pytest.raises(BadInput, match="says nothing of 1 of 1 images"):
        pseudo_label.conversion(tmp_path / "mine", teacher=files, **options)


def test_images_and_a_record_set_below_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_label, "predictors", lambda *_: [_Sees()])
    options = {"name": "posed", "weights": tmp_path, "sizes": (416,), "options": OPTIONS}
    photos = tmp_path / "photos"
    (photos / "old" / "of mine").mkdir(parents=True)
    cv2.imwrite(str(photos / "a.png"), an_image())
    (photos / "t.csv").write_text("image,x1,y1,x2,y2\na.png,30,20,70,60\n")
    old = csv_heads.conversion(photos, photos / "t.csv", name="set")
    write_record_set(old, photos / "old" / "of mine" / "set")
    # Too far below for a record set that is meant.
    made = pseudo_label.conversion(photos, **options)
    assert made.splits == {"train": [photos / "a.png"]}
    (photos / "old" / "of mine" / "set").rename(photos / "old" / "set")
    with pytest.raises(BadInput, match=r"holds images .*a\.png.* and a record set .*old/set"):
        pseudo_label.conversion(photos, **options)
    (photos / "a.png").rename(photos / "old" / "set" / "sheet.png")
    assert pseudo_label.conversion(photos / "old" / "set", **options).splits["train"]


@pytest.mark.parametrize(
    ("frame", "field", "message"),
    [
        ("ray", {"frame": "camera"}, 'write "frame": "ray" into the file'),
        ("camera", {"frame": "ray"}, "Take --weights of the other frame"),
        ("ray", {"image": "b.png"}, "says nothing of 1"),
    ],
)
def test_a_teacher_of_other_images_or_another_frame(tmp_path, frame, field, message):
    file = predictions(tmp_path / "plain.json", turned(0), [1, 2, 30, 40], **field)
    with pytest.raises(BadInput, match=message):
        read_teacher([file, file], ["a.png"], frame, TRUST)


@pytest.mark.parametrize("resized", [None, 0, 1])
def test_a_teacher_of_images_of_another_size_is_refused(tmp_path, monkeypatch, resized):
    """Its boxes, in pixels of half the size, would lie on no head and label nothing."""
    monkeypatch.setattr(looks, "predictors", lambda *_: [_Sees()])
    files = []
    for number, left in enumerate((30, 130)):
        scale = 0.5 if number == resized else 1
        box = [scale * side for side in (left, 20, left + 40, 60)]
        file = predictions(tmp_path / f"{number}.json", turned(36 - 72 * number), box)
        content = json.loads(file.read_text())
        content["images"][0].update(width=int(200 * scale), height=int(100 * scale))
        file.write_text(json.dumps(content))
        files.append(file)
    teacher = read_teacher(files, ["a.png"], "ray", TRUST)
    labeller = Labeller(tmp_path, (416,), OPTIONS, teacher)
    if resized is None:
        assert [head.taught for head in labeller(an_image(), "a.png")] == ["yes", "missed"]
        return
    said = rf"{resized}\.json, image a\.png: its boxes are of \(100, 50\) pixels.*\(200, 100\)"
    with pytest.raises(BadInput, match=said):
        labeller(an_image(), "a.png")


def test_a_teacher_in_radians_labels_nothing(tmp_path):
    head = {"box": [1, 2, 30, 40], "yaw": 0.52, "pitch": 0.1, "roll": 0.0}
    content = {
        "convention": "canonical",
        "frame": "ray",
        "images": [{"image": "a", "heads": [head]}],
    }
    (tmp_path / "plain.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="if they are radians, multiply them"):
        read_teacher([tmp_path / "plain.json"] * 2, ["a"], "ray", TRUST)
