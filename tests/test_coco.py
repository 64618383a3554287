"""Own data as COCO json: it becomes the records it describes."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.own import coco
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSet
from tests.own_files import HEIGHT, SCIPY, WIDTH, convert, write_image

COCO = {
    "images": [
        {"id": 3, "file_name": "one.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 9, "file_name": "été à Nîmes/deux têtes.jpg"},
        {"id": 4, "file_name": "none.jpg", "width": WIDTH, "height": HEIGHT},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 5, "bbox": [10, 5, 20, 25], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 2, "bbox": [1.5, 2.5, 10, 10]},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [40, 5, 20, 25], "iscrowd": 1},
        {"id": 4, "image_id": 9, "category_id": 5, "bbox": [30, 2.5, 10.25, 10]},
    ],
    "categories": [
        {"id": 5, "name": "helmet", "supercategory": "person"},
        {"id": 2, "name": "head"},
        {"id": 7, "name": "never used"},
    ],
}


@pytest.fixture
def raw_coco(tmp_path):
    """`raw_coco(change)` writes the set, changed by a function, and gives its split option."""

    def write(change=lambda content: None) -> coco.Split:
        content = copy.deepcopy(COCO)
        change(content)
        raw = tmp_path / "raw data"
        for number, image in enumerate(COCO["images"]):
            write_image(raw / "images" / image["file_name"], number)
        (raw / "labels.json").write_text(json.dumps(content), encoding="utf-8")
        return coco.Split(raw / "labels.json", raw / "images")

    return write


def test_coco_boxes_labels_crowds_and_names(raw_coco, tmp_path):
    report, records = convert(coco.conversion({"train": raw_coco()}, name="own"), tmp_path / "out")
    assert set(records) == {"train/one.jpg", "train/été à Nîmes/deux têtes.jpg", "train/none.jpg"}
    assert RecordSet.open(tmp_path / "out").label_names == ("head", "helmet")
    one, two = records["train/one.jpg"], records["train/été à Nîmes/deux têtes.jpg"]
    np.testing.assert_array_equal(one["boxes"], [[10, 5, 30, 30], [40, 5, 60, 30]])
    assert one["labels"].tolist() == [1, 0]
    assert one["ignore"].tolist() == [False, True]
    np.testing.assert_array_equal(two["boxes"], [[1.5, 2.5, 11.5, 12.5], [30, 2.5, 40.25, 12.5]])
    assert two["labels"].tolist() == [0, 1]
    assert records["train/none.jpg"]["boxes"].shape == (0, 4)
    assert not any(record["has_pose"].any() for record in records.values())
    assert report.ignored_heads == {"a crowd (iscrowd)": ["train/one.jpg"]}
    image = tmp_path / "raw data" / "images" / "one.jpg"
    assert one["image"] == image.read_bytes()


@pytest.mark.parametrize("convention", SCIPY)
def test_coco_angles_by_convention(raw_coco, tmp_path, convention):
    def change(content):
        content["annotations"][0]["euler_angles"] = [12.5, -130, 7]  # pitch, yaw, roll
        content["annotations"][3]["euler_angles"] = [0, 20, -80]
        content["annotations"][1]["euler_angles"] = None

    conversion = coco.conversion({"train": raw_coco(change)}, name="own", convention=convention)
    _, records = convert(conversion, tmp_path / "out")
    one, two = records["train/one.jpg"], records["train/été à Nîmes/deux têtes.jpg"]
    assert one["has_pose"].tolist() == [True, False]
    assert two["has_pose"].tolist() == [False, True]
    expected = SCIPY[convention](-130, 12.5, 7).as_matrix()
    np.testing.assert_allclose(one["rotations"][0], expected, atol=1e-6)
    expected = SCIPY[convention](20, 0, -80).as_matrix()
    np.testing.assert_allclose(two["rotations"][1], expected, atol=1e-6)
    np.testing.assert_array_equal(one["rotations"][1], np.eye(3))


@pytest.mark.parametrize("corners", [True, False])
def test_coco_corners_for_widths_are_refused(raw_coco, corners):
    def change(content):
        content["images"][1].update(width=WIDTH, height=HEIGHT)
        if corners:
            for annotation in content["annotations"]:
                x, y, width, height = annotation["bbox"]
                annotation["bbox"] = [x + 10, y + 10, x + width + 20, y + height + 15]

    files = {"train": raw_coco(change)}
    if not corners:
        assert not coco.conversion(files, name="own").notes
        return
    said = r"labels\.json: 3 of 4 boxes, the first of train/one\.jpg, reach out of their image"
    with pytest.raises(ValueError, match=f"{said}.*; write those, or clip the boxes to the image"):
        coco.conversion(files, name="own")


CLOSE = [100, 50, 560, 430]  # of 640 x 480: the border cuts 20 pixels of the head


@pytest.mark.parametrize(
    ("boxes", "sizes"),
    [
        ([CLOSE], [(640, 480)]),
        ([CLOSE, [50, 90, 400, 500], [200, 20, 450, 440]], [(640, 480)] * 3),
        # One head that mostly lies outside, and one beside which the others have no size.
        ([CLOSE, CLOSE, CLOSE, CLOSE, [400, 50, 500, 430]], [(640, 480)] * 5),
        ([[400, 50, 500, 430], CLOSE, CLOSE], [(640, 480), None, None]),
        # No corners: the left side is right of what would be the right one.
        ([[400, 50, 500, 430]] * 3 + [[500, 50, 400, 430]], [(640, 480)] * 4),
    ],
)
def test_coco_close_heads_that_the_border_cuts_are_clipped(tmp_path, boxes, sizes):
    """Boxes of x, y, width and height round the whole head."""
    images, annotations = [], []
    for number, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        write_image(tmp_path / f"{number}.jpg", number, (640, 480))
        stated = dict(zip(("width", "height"), size, strict=True)) if size else {}
        images.append({"id": number, "file_name": f"{number}.jpg", **stated})
        annotations.append({"image_id": number, "category_id": 1, "bbox": box})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "head"}]
    (tmp_path / "t.json").write_text(json.dumps(content))
    made = coco.conversion({"train": coco.Split(tmp_path / "t.json", tmp_path)}, name="own")
    report, records = convert(made, tmp_path / "out")
    for number, (x, y, width, height) in enumerate(boxes):
        expected = [[x, y, min(x + width, 640), min(y + height, 480)]]
        np.testing.assert_array_equal(records[f"train/{number}.jpg"]["boxes"], expected)
    assert report.notes.counts["boxes clipped to the image"] == len(boxes)


def test_coco_annotations_to_be_ignored(raw_coco, tmp_path):
    def change(content):
        content["annotations"][0]["ignore"] = 1
        content["annotations"][1]["ignore"] = 0

    made = coco.conversion({"train": raw_coco(change)}, name="own")
    report, records = convert(made, tmp_path / "out")
    assert records["train/one.jpg"]["ignore"].tolist() == [True, True]
    assert not records["train/été à Nîmes/deux têtes.jpg"]["ignore"].any()
    one = ["train/one.jpg"]
    assert report.ignored_heads == {
        "a crowd (iscrowd)": one,
        "its annotation says so (ignore)": one,
    }
    with pytest.raises(ValueError, match=r"annotations\[2\] \(id 3\): field 'ignore': 'perhaps'"):
        coco.conversion({"train": raw_coco(set_annotation(ignore="perhaps"))}, name="own")


def test_coco_a_share_of_the_folders_is_the_test_split(tmp_path):
    images, annotations = [], []
    for number, person in enumerate(("ann", "ann", "bob", "bob", "cid", "cid")):
        write_image(tmp_path / "images" / person / f"{number}.jpg", number)
        images.append({"id": number, "file_name": f"{person}/{number}.jpg"})
        annotations.append({"image_id": number, "category_id": 1, "bbox": [1, 2, 20, 20]})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "head"}]
    (tmp_path / "t.json").write_text(json.dumps(content))
    words = ["data", "convert", "coco", "--raw", str(tmp_path), "--out", str(tmp_path / "out")]
    words += ["--processes", "1", "--test-share", "0.3", "--split", "all=t.json:images"]
    assert main(words) == 0
    assert RecordSet.open(tmp_path / "out").splits == {"train": 4, "test": 2}
    split = coco.Split(tmp_path / "t.json", tmp_path / "images")
    made = coco.conversion({"all": split}, name="own", test_share=0.3)
    names = {name: {p.image_id.split("/")[1] for p in found} for name, found in made.splits.items()}
    assert (len(names["test"]), len(names["train"])) == (1, 2)
    assert all(p.image_id.startswith("test/") for p in made.splits["test"])
    with pytest.raises(ValueError, match="leave one of both out"):
        coco.conversion({"all": split, "more": split}, name="own", test_share=0.3)


def test_coco_convention_none_in_capitals(raw_coco, tmp_path):
    split = raw_coco(lambda content: content["annotations"][0].update(euler_angles=[0, 20, 0]))
    _, records = convert(
        coco.conversion({"train": split}, name="own", convention="None"), tmp_path / "out"
    )
    assert not records["train/one.jpg"]["has_pose"].any()


def test_coco_angles_need_their_convention(raw_coco, tmp_path):
    def change(content):
        content["annotations"][0]["euler_angles"] = [12.5, -130, 7]

    files = {"train": raw_coco(change)}
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 1\).*convention") as caught:
        coco.conversion(files, name="own")
    assert len(str(caught.value).splitlines()) == 5  # one line for each convention
    assert "canonical   R = Rx(-pitch) Ry(yaw) Rz(roll)" in str(caught.value)
    with pytest.raises(ValueError, match="unknown Euler convention 'euler'") as caught:
        coco.conversion(files, name="own", convention="euler")
    assert "sixdrepnet  R = Rz(roll) Ry(yaw) Rx(pitch)" in str(caught.value)
    _, records = convert(
        coco.conversion(files, name="own", convention="none"), tmp_path / "boxes only"
    )
    assert not records["train/one.jpg"]["has_pose"].any()
    with pytest.raises(ValueError, match="no annotation has 'euler_angles'"):
        coco.conversion({"train": raw_coco()}, name="own", convention="canonical")


def test_coco_headings(raw_coco, tmp_path):
    def change(content):
        content["annotations"][0].update(heading=-120.5, euler_angles=None)
        content["annotations"][2]["heading"] = None
        content["annotations"][1]["heading"] = 0
        content["annotations"][3].update(heading=10, euler_angles=[0, 20, -80])

    files = {"train": raw_coco(change)}
    conversion = coco.conversion(files, name="own", convention="canonical")
    report, records = convert(conversion, tmp_path / "out")
    one, two = records["train/one.jpg"], records["train/été à Nîmes/deux têtes.jpg"]
    assert one["has_heading"].tolist() == [True, False]
    np.testing.assert_array_equal(one["headings"], [-120.5, 0])
    assert not one["has_pose"].any()
    # Straight ahead is known, not unknown; and a whole rotation says more than its heading.
    assert two["has_heading"].tolist() == [True, False]
    np.testing.assert_array_equal(two["headings"], [0, 0])
    assert two["has_pose"].tolist() == [False, True]
    np.testing.assert_allclose(
        two["rotations"][1], SCIPY["canonical"](20, 0, -80).as_matrix(), atol=1e-6
    )
    counts = report.as_dict()["splits"]["train"]
    assert (counts["heads with a pose"], counts["heads with a heading alone"]) == (1, 2)
    # Where the rotations are left out, the heading is what is known.
    _, records = convert(coco.conversion(files, name="own", convention="none"), tmp_path / "none")
    two = records["train/été à Nîmes/deux têtes.jpg"]
    assert not two["has_pose"].any()
    np.testing.assert_array_equal(two["headings"], [0, 10])
    assert two["has_heading"].all()


def test_coco_label_map(raw_coco, tmp_path):
    files = {"train": raw_coco()}
    report, records = convert(
        coco.conversion(files, name="own", label_map={"helmet": "hat"}), tmp_path / "out"
    )
    assert RecordSet.open(tmp_path / "out").label_names == ("hat",)
    assert records["train/one.jpg"]["labels"].tolist() == [0]
    assert (
        report.dropped_heads
        == {
            "label 'head' is not in the label map": [
                "train/one.jpg",
                "train/été à Nîmes/deux têtes.jpg",
            ]
        }
        or sum(map(len, report.dropped_heads.values())) == 2
    )
    with pytest.raises(ValueError, match=r"names 'cap', but .* has head, helmet"):
        coco.conversion(files, name="own", label_map={"cap": "head"})


def test_coco_missing_images(raw_coco, tmp_path):
    files = {"train": raw_coco()}
    (files["train"].images / "one.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are missing: .*one\.jpg.*--allow"):
        coco.conversion(files, name="own")
    report, records = convert(
        coco.conversion(files, name="own", allow_missing=True), tmp_path / "out"
    )
    assert len(records) == 2
    assert [Path(p).name for p in report.dropped_images["the image is missing"]] == ["one.jpg"]


def test_coco_damaged_and_unlike_images_are_counted(raw_coco, tmp_path):
    files = {"train": raw_coco()}
    one = files["train"].images / "one.jpg"
    one.write_bytes(one.read_bytes()[:-300])
    write_image(files["train"].images / "none.jpg", size=(HEIGHT, WIDTH))
    report, records = convert(coco.conversion(files, name="own"), tmp_path / "out")
    assert list(records) == ["train/été à Nîmes/deux têtes.jpg"]
    cut, unlike = sorted(report.dropped_images)
    assert "cut short" in cut
    assert "turned by its EXIF data?" in unlike
    assert "exiftool -Orientation= FILE" in unlike
    one.write_bytes(b"")
    report, _ = convert(coco.conversion(files, name="own"), tmp_path / "again")
    assert any("empty (0 bytes)" in reason for reason in report.dropped_images)


def test_coco_boxes_without_area_or_outside_are_counted(raw_coco, tmp_path):
    def change(content):
        boxes = [[10, 5, 0, 25], [100, 5, 10, 10], [-4, 5, 10, 10], [30, 5, 10, -10]]
        for annotation, box in zip(content["annotations"], boxes, strict=True):
            annotation["bbox"] = box

    report, records = convert(
        coco.conversion({"train": raw_coco(change)}, name="own"), tmp_path / "out"
    )
    counts = {reason: len(places) for reason, places in report.dropped_heads.items()}
    assert counts == {"box has no area": 2, "box is outside the image": 1}
    np.testing.assert_array_equal(records["train/one.jpg"]["boxes"], [[0, 5, 6, 15]])
    assert report.notes["boxes clipped to the image"] == ["train/one.jpg"]


def set_annotation(**changes):
    return lambda content: content["annotations"][2].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_annotation(bbox=[1, 2, 3]), r"annotations\[2\] \(id 3\): field 'bbox' is \[1, 2, 3\]"),
        (set_annotation(bbox=None), "field 'bbox' is None, expected"),
        (set_annotation(bbox=[1, 2, "x", 4]), "field 'bbox'"),
        (set_annotation(bbox=[1, 2, "3,5", 4]), "decimal comma"),
        (set_annotation(bbox=[1, 2, float("nan"), 4]), "the box must be finite"),
        (set_annotation(bbox=[0.1, 0.2, 0.3, 0.4]), "looks like fractions"),
        (set_annotation(image_id=77), "image_id 77 is not among the images"),
        (set_annotation(image_id=None), "field 'image_id' is None"),
        (set_annotation(category_id=77), "category_id 77 is not among the categories"),
        (
            set_annotation(euler_angles=[1, 2]),
            r"field 'euler_angles' is \[1, 2\], expected \[pitch",
        ),
        (set_annotation(euler_angles=[1, float("nan"), 2]), "degrees within"),
        (set_annotation(euler_angles=[1, 2, 1000]), "degrees within"),
        (
            set_annotation(heading=200),
            r"annotations\[2\] \(id 3\), field 'heading': .*degrees within \+-180.*is 200",
        ),
        (set_annotation(heading=float("nan")), "field 'heading': .*within"),
        (set_annotation(heading="left"), "field 'heading' is .*left.*a number of degrees"),
        (set_annotation(heading=[20]), "field 'heading' is .*a number of degrees"),
        (set_annotation(heading=20, bbox=None), "field 'bbox' is None, expected"),
        (
            set_annotation(bbox=None, place="of the user"),
            r"labels\.json, annotations\[2\] \(id 3\): field 'bbox' is None",
        ),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\]: field 'file_name' is missing"),
        (lambda c: c["images"][1].update(id=3), r"images\[1\]: a second image has the id 3"),
        (lambda c: c["images"][0].update(width="8o"), "field 'width': '8o' is no number"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\]: field 'name' is missing"),
        (
            lambda c: c["categories"][1].update(id=5),
            r"categories\[1\]: id 5 is 'head' here and 'helmet' before: give each",
        ),
        (
            lambda c: c["images"][2].update(file_name="ONE.jpg"),
            "'train/one.jpg' and 'train/ONE.jpg' are one image",
        ),
        (lambda c: c.pop("annotations"), "'annotations' is missing or no list"),
        (lambda c: c["annotations"].clear(), "no heads to learn from"),
    ],
)
def test_coco_bad_entries_are_named(raw_coco, change, message):
    files = raw_coco(change)
    with pytest.raises(ValueError, match=message) as caught:
        coco.conversion({"train": files}, name="own", convention="canonical")
    assert str(files.annotations) in str(caught.value)


def test_coco_json_cut_short_or_missing(raw_coco):
    files = raw_coco()
    text = files.annotations.read_bytes()
    files.annotations.write_bytes(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"labels\.json is not valid JSON \(was it cut short"):
        coco.conversion({"train": files}, name="own")
    files.annotations.write_text("[1, 2]")
    with pytest.raises(ValueError, match="expected an object with images"):
        coco.conversion({"train": files}, name="own")
    files.annotations.unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.json is missing"):
        coco.conversion({"train": files}, name="own")


def test_coco_command(raw_coco, tmp_path, capsys):
    raw = str(raw_coco().annotations.parent)
    words = ["data", "convert", "coco", "--raw", raw, "--out", str(tmp_path / "sets" / "mine")]
    words += ["--processes", "1"]  # others start slowly
    split = ["--split", "train=labels.json:images"]
    assert main([*words, *split]) == 0
    assert "train: 3 images (1 without heads), 4 heads (2 head, 2 helmet)" in (
        capsys.readouterr().out
    )
    assert main([*words, *split, *split, "--overwrite"]) == 1
    assert "names a split twice" in capsys.readouterr().err
    assert main([*words, "--split", "train=labels.json", "--overwrite"]) == 1
    assert "3 of 3 images are missing" in capsys.readouterr().err
    for bad in ([], ["--split", "labels.json"], ["--split", "train="]):
        with pytest.raises(SystemExit):
            main([*words, *bad])
    with pytest.raises(SystemExit):
        main([*words, "--split", "val/1=labels.json:images"])
    assert "the name 'val/1' holds a slash" in capsys.readouterr().err
