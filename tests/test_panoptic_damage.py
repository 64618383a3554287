"""The converter of CMU Panoptic on damaged images, faces and calibrations, and without data."""

import json

import cv2
import numpy as np
import pytest

from data_prep.panoptic import layout
from data_prep.panoptic.converter import Options, conversion
from tests.panoptic_conversions import TEST, TRAIN, convert, counts, write_two_sequences
from tests.panoptic_raw import noise_jpeg


@pytest.fixture
def raw(data_dir, tmp_path):
    return write_two_sequences(data_dir, tmp_path / "räw data")


def test_damaged_images_are_named(raw):
    paths = [layout.image_path(raw, TRAIN, 13, frame) for frame in (0, 60, 120)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-2000])
    paths[2].write_bytes(noise_jpeg(128, 72))
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    assert list(found["train"]) == [f"{TRAIN}/00_13/00000180"]
    reasons = " | ".join(report["dropped images"])
    assert "0 bytes" in reasons
    assert "cut short" in reasons
    assert "the image is 128x72, its calibration for 256x144" in reasons
    _, report = convert(raw, Options(min_kilobytes=1000), cameras=[13], sequences=[TRAIN])
    assert counts(report["dropped images"]) == {"the image has less than 1000 KB (damaged)": 4}


def test_png_images(raw):
    old = layout.image_path(raw, TRAIN, 13, 60)
    image = cv2.imread(str(old))
    old.unlink()
    cv2.imwrite(str(old.with_suffix(".png")), image)
    found, _ = convert(raw, cameras=[13], sequences=[TRAIN])
    assert found["train"][f"{TRAIN}/00_13/00000060"]["image"][1:4] == b"PNG"


FACE_FAULTS = {
    "cut short": (lambda text: text[: len(text) // 2], "not valid JSON"),
    "empty": (lambda text: "", "not valid JSON"),
    "another format": (lambda text: '{"bodies": []}', "no list 'people'"),
    "69 landmarks": (
        lambda text: json.dumps({"people": [{"face70": {"landmarks": [0.0] * 207}}]}),
        "face70.landmarks must be 210 numbers",
    ),
    "no scores": (
        lambda text: text.replace("averageScore", "score"),
        "face70.averageScore must be 70 numbers",
    ),
}


@pytest.mark.parametrize("fault", FACE_FAULTS)
def test_a_face_file_that_cannot_be_read_drops_its_frame(raw, fault):
    spoil, message = FACE_FAULTS[fault]
    path = layout.face_path(raw, TRAIN, 60)
    path.write_text(spoil(path.read_text()))
    found, report = convert(raw, cameras=[13], sequences=[TRAIN])
    assert len(found["train"]) == 3
    ((reason, count),) = counts(report["dropped images"]).items()
    assert (count, message in reason) == (1, True)


def camera_fault(**changes):
    def spoil(content):
        for camera in content["cameras"]:
            if camera["node"] == 13:
                camera.update(changes)
        return content

    return spoil


CALIBRATION_FAULTS = {
    "not orthonormal": (camera_fault(R=(2 * np.eye(3)).tolist()), "'R' is not a rotation"),
    "mirrored": (camera_fault(R=np.diag([1.0, 1, -1]).tolist()), "'R' is not a rotation"),
    "NaN": (camera_fault(t=[[float("nan")], [0], [0]]), "'t' is not finite"),
    "four distortions": (camera_fault(distCoef=[0.0] * 4), "'distCoef' must be 5 numbers"),
    "no focal length": (camera_fault(K=np.zeros((3, 3)).tolist()), "'K' is no camera matrix"),
    "no size": (camera_fault(resolution=[0, 0]), "'resolution' must be"),
    "camera missing": (
        lambda content: {"cameras": [c for c in content["cameras"] if c["node"] != 13]},
        "has no HD camera 13",
    ),
    "VGA only": (camera_fault(), "has no camera of panel 0"),
    "no cameras": (lambda content: [], "has no 'cameras'"),
    "cameras are numbers": (lambda content: {"cameras": [1]}, "has no 'cameras'"),
    "cameras are nothing": (lambda content: {"cameras": None}, "has no 'cameras'"),
}


@pytest.mark.parametrize("fault", CALIBRATION_FAULTS)
def test_a_calibration_that_cannot_be_stops_the_conversion(raw, fault):
    spoil, message = CALIBRATION_FAULTS[fault]
    path = layout.calibration_path(raw, TRAIN)
    content = spoil(json.loads(path.read_text()))
    if fault == "VGA only":
        for camera in content["cameras"]:
            camera["panel"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        conversion(raw)
    assert str(path) in str(error.value)


def test_a_calibration_cut_short(raw):
    path = layout.calibration_path(raw, TRAIN)
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ValueError, match=r"calibration_160906_pizza1.json is not valid JSON"):
        conversion(raw)


def test_the_calibration_of_another_sequence(raw):
    path = layout.calibration_path(raw, TRAIN)
    path.rename(path.with_name(f"calibration_{TEST}.json"))
    with pytest.raises(FileNotFoundError, match="the calibration of another sequence"):
        conversion(raw)


def test_folders_without_data(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"getData\.sh"):
        conversion(tmp_path / "empty")
    for camera in (0, 13):
        for path in (raw / TRAIN / "hdImgs" / f"00_{camera:02d}").iterdir():
            path.unlink()
        path.parent.rmdir()
    with pytest.raises(FileNotFoundError, match="there are no images"):
        conversion(raw)
