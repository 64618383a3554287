"""Own data whose angles are relative to a camera that is known."""

import json
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.own.camera import Camera
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from tests.own_files import HEIGHT, SCIPY, WIDTH, write_image

BOX = [60, 30, 76, 46]
ANGLES = (30, -5, 0)  # yaw, pitch, roll


def write_csv(raw):
    write_image(raw / "a.jpg")
    row = ",".join(map(str, ["a.jpg", *BOX, *ANGLES, "canonical"]))
    (raw / "heads.csv").write_text(f"image,x1,y1,x2,y2,yaw,pitch,roll,convention\n{row}\n")
    return ["csv"]


def write_coco(raw):
    write_image(raw / "a.jpg")
    yaw, pitch, roll = ANGLES
    bbox = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
    head = {"image_id": 1, "category_id": 1, "bbox": bbox, "euler_angles": [pitch, yaw, roll]}
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [head]}
    (raw / "t.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "head"}]}))
    return ["coco", "--split", "train=t.json", "--convention", "canonical"]


def convert(tmp_path, write, *options) -> dict:
    """The record of the image, its rotation relative to the ray through the head."""
    kind, *words = write(tmp_path / "raw")
    places = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    words = ["data", "convert", kind, *places, *words, "--processes", "1", *options]
    assert main([*words, "--overwrite"]) == 0
    return RecordSource(tmp_path / "out", "train", frame="ray")[0]


@pytest.mark.parametrize("write", [write_csv, write_coco])
@pytest.mark.parametrize(
    ("options", "camera"),
    [
        (["--fov", "90"], (WIDTH / 2, WIDTH / 2, WIDTH / 2, HEIGHT / 2)),
        (["--intrinsics", "50,60,38,20"], (50, 60, 38, 20)),
    ],
)
def test_angles_of_a_known_camera_are_turned_to_the_ray(tmp_path, write, options, camera):
    record = convert(tmp_path, write, *options)
    np.testing.assert_allclose(record["intrinsics"], camera, rtol=1e-6)
    fx, fy, cx, cy = camera
    ray = np.array([(68 - cx) / fx, (38 - cy) / fy, 1])
    ray /= np.linalg.norm(ray)
    axis = np.cross(ray, [0, 0, 1])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arccos(ray[2]))
    expected = turn * SCIPY["canonical"](*ANGLES)
    np.testing.assert_allclose(record["rotations"], [expected.as_matrix()], atol=1e-5)


@pytest.mark.parametrize("write", [write_csv, write_coco])
def test_angles_without_a_camera_count_as_seen(tmp_path, write):
    record = convert(tmp_path, write)
    assert not record["intrinsics"].any()
    expected = SCIPY["canonical"](*ANGLES).as_matrix()
    np.testing.assert_allclose(record["rotations"], [expected], atol=1e-5)


SIZES = {  # of images by their names; the camera is one of the first
    "level.jpg": (80, 60),
    "level too.jpg": (80, 60),
    "turned.jpg": (60, 80),
    "smaller.jpg": (40, 30),
    "little smaller.jpg": (72, 54),
    "without a pose.jpg": (30, 30),
}


def notes_of(tmp_path, *options) -> dict[str, dict]:
    """What the report says of images of several sizes, all but the last one with angles."""
    rows = ["image,x1,y1,x2,y2,yaw,pitch,roll,convention"]
    for number, (name, size) in enumerate(SIZES.items()):
        write_image(tmp_path / "raw" / name, number, size)
        rows.append(f"{name},1,1,20,20,30,-5,0,canonical")
    rows[-1] = "without a pose.jpg,1,1,20,20,,,,"
    (tmp_path / "raw" / "heads.csv").write_text("\n".join(rows))
    words = ["data", "convert", "csv", "--raw", str(tmp_path / "raw"), "--processes", "1"]
    assert main([*words, "--out", str(tmp_path / "out"), *options]) == 0
    return json.loads((tmp_path / "out" / "conversion.json").read_text())["notes"]


def test_images_of_several_sizes_under_the_intrinsics_of_one_are_told(tmp_path):
    """Those turned or much smaller by a warning, those a little smaller beside the others."""
    notes = notes_of(tmp_path, "--intrinsics", "70,70,40,30")
    warned = {event for event in notes if event.startswith("WARNING: --intrinsics are hardly")}
    of_size = {}
    for event, said in notes.items():
        size = tuple(map(int, re.search(r"(\d+)x(\d+) pixels", event).groups()))
        of_size[size] = (event in warned, said["count"], said["first"])
    assert of_size == {
        (80, 60): (False, 2, ["level.jpg", "level too.jpg"]),
        (60, 80): (True, 1, ["turned.jpg"]),
        (40, 30): (True, 1, ["smaller.jpg"]),
        (72, 54): (False, 1, ["little smaller.jpg"]),
    }


@pytest.mark.parametrize("options", [[], ["--fov", "60"]])
def test_a_field_of_view_holds_for_every_size(tmp_path, options):
    assert notes_of(tmp_path, *options) == {}


@pytest.mark.parametrize(
    "camera", [{"fov": 180}, {"intrinsics": (0, 1, 2, 3)}, {"fov": 9, "intrinsics": (1, 1, 1, 1)}]
)
def test_cameras_that_cannot_be_are_refused(camera):
    with pytest.raises(ValueError, match=r"field of view|Intrinsics|two ways"):
        Camera(**camera)
