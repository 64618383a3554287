"""DirectMHP's json files, CMU-HPE and AGORA-HPE: they become the records they describe."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.own.camera import Camera
from data_prep.sets import directmhp
from mtnet_jax.data.records import RecordSet
from tests.own_files import HEIGHT, SCIPY, WIDTH, convert, write_image


def write_directmhp(raw: Path, file: str, images: str, angles: list[list[float]]) -> None:
    """One image with a head for each angles, with the fields that DirectMHP's scripts write."""
    image = {"file_name": "10100000.jpg", "height": HEIGHT, "width": WIDTH, "id": 10100000}
    annotations = [
        {
            "face2d_pts": [[1.0], [2.0]],
            "bbox": [10 + i, 5, 20, 22],
            "euler_angles": triple,
            "image_id": 10100000,
            "id": 1010000000 + i,
            "category_id": 1,
            "iscrowd": 0,
            "segmentation": [],
            "area": 440,
        }
        for i, triple in enumerate(angles)
    ]
    content = {
        "info": {},
        "licences": [{}],
        "images": [{**image, "seq": "171204_pose3"}],
        "annotations": annotations,
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    }
    (raw / "annotations").mkdir(parents=True, exist_ok=True)
    (raw / "annotations" / file).write_text(json.dumps(content))
    write_image(raw / images / image["file_name"], len(images))


ANGLES = [[-20, 150, 8.5], [3, -91, 0], [2, 30, 95], [float("nan"), 0, 0]]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "cmu_hpe",
            {"train": "coco_style_sampled_train.json", "val": "coco_style_sampled_val.json"},
        ),
        (
            "agora_hpe",
            {"train": "coco_style_train.json", "validation": "coco_style_validation.json"},
        ),
    ],
)
def test_directmhp_files(tmp_path, name, files):
    raw = tmp_path / "HPE"
    for split, file in files.items():
        write_directmhp(raw, file, f"images/{split}", ANGLES)
    report, records = convert(directmhp.conversion(raw), tmp_path / "out")
    opened = RecordSet.open(tmp_path / "out")
    assert (opened.name, opened.box_rule, opened.label_names) == (name, "sphere18", ("head",))
    assert {record["split"] for record in records.values()} == set(files)
    record = records["train/10100000.jpg"]
    np.testing.assert_array_equal(record["boxes"][0], [10, 5, 30, 27])
    assert record["has_pose"].tolist() == [True, True, False, False]
    for i in range(2):
        pitch, yaw, roll = ANGLES[i]
        expected = SCIPY["canonical"](yaw, pitch, roll).as_matrix()
        np.testing.assert_allclose(record["rotations"][i], expected, atol=1e-6)
    assert sorted(report.notes) == [
        directmhp._NO_CAMERA,
        "heads kept without their pose: the angles are beyond yaw +-180, pitch +-90, roll +-90",
        "heads kept without their pose: the angles are not finite",
    ]
    # The face looks along minus the third column: yaw 150 shows the back of the head.
    assert record["rotations"][0][2, 2] < 0


def test_directmhp_with_its_camera(tmp_path):
    write_directmhp(tmp_path, "coco_style_train.json", "images/train", ANGLES[:1])
    made = directmhp.conversion(tmp_path, camera=Camera(fov=90))
    report, records = convert(made, tmp_path / "out")
    intrinsics = [WIDTH / 2, WIDTH / 2, WIDTH / 2, HEIGHT / 2]
    np.testing.assert_allclose(records["train/10100000.jpg"]["intrinsics"], intrinsics)
    assert not report.notes


def test_directmhp_missing_or_both(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"coco_style_sampled_train\.json.*convert coco"):
        directmhp.conversion(tmp_path)
    write_directmhp(tmp_path, "coco_style_train.json", "images/train", ANGLES)
    (tmp_path / "images" / "train" / "10100000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 images are missing"):
        directmhp.conversion(tmp_path)
    write_directmhp(tmp_path, "coco_style_sampled_val.json", "images/val", ANGLES)
    with pytest.raises(ValueError, match="files of both data sets"):
        directmhp.conversion(tmp_path)
