"""What benchmarks/peers.py makes of other programs' numbers: axes, boxes, crops."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.peers import (
    PACKED,
    VERTICAL_FOV,
    _canonical_face,
    _found,
    _outline,
    as_input,
    crop_of,
    main,
    mediapipe_head,
    pose_of,
)
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.foreign import read_predictions
from mtnet_jax.rotations import rotation_to_euler

NOSE_TIP = np.array([0.0, -1.126865, 7.475604])  # of MediaPipe's canonical face, cm
HEIGHT, WIDTH = 480, 640


def placed(turn: Rotation, place) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn.as_matrix(), place
    return matrix


@pytest.mark.parametrize(
    ("axis", "degrees", "angle"),
    [("y", 30, "yaw"), ("y", -75, "yaw"), ("x", 20, "pitch"), ("z", 25, "roll")],
)
def test_mediapipe_turns_are_ours(axis, degrees, angle):
    """MediaPipe's x is the subject's left, y up, z out of the face, all right-handed: a positive
    turn about y brings the face to its own left, which is the right of the image, one about x looks
    down, one about z tilts the head anticlockwise in the image."""
    matrix = placed(Rotation.from_euler(axis, degrees, degrees=True), [0, 0, -50])
    head = mediapipe_head(matrix, (HEIGHT, WIDTH, 3), _outline(NOSE_TIP), 1.0)
    yaw, pitch, roll = rotation_to_euler(np.array(head["rotation"]), convention="canonical")
    expected = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, angle: -degrees}
    assert (yaw, pitch, roll) == pytest.approx(tuple(expected.values()), abs=1e-9)


def test_the_box_lies_round_the_head_and_follows_it():
    focal = HEIGHT / 2 / np.tan(np.deg2rad(VERTICAL_FOV) / 2)
    for x, y in ((0, 0), (12, -6)):
        matrix = placed(Rotation.identity(), [x, y, -60])
        box = mediapipe_head(matrix, (HEIGHT, WIDTH, 3), _outline(NOSE_TIP), 1.0)["box"]
        left, top, right, bottom = box
        scale = focal / 60  # pixels a centimetre
        assert (left + right) / 2 == pytest.approx(WIDTH / 2 + scale * x, abs=0.5)
        assert 14 < (right - left) / scale < 19  # the breadth of a head with its ears, cm
        assert 20 < (bottom - top) / scale < 26  # and its height
        nose = HEIGHT / 2 - scale * (y + NOSE_TIP[1])
        assert top < nose < bottom
        assert (bottom - nose) / scale == pytest.approx(8.2, abs=0.3)  # tip of the nose to chin


def test_crops_show_what_is_in_the_box_and_grey_beyond_the_image():
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 100:140] = (250, 100, 50)
    crop = crop_of(image, np.array([100.0, 40.0, 140.0, 60.0]), 32)
    np.testing.assert_array_equal(crop[4:-4, 4:-4], np.full((24, 24, 3), (250, 100, 50)))
    crop = crop_of(image, np.array([-100.0, 0.0, 100.0, 200.0]), 64)
    assert (crop[:, :31] == 128).all()
    assert (crop[33:] == 128).all()
    assert (crop[2:30, 34:60] == 0).all()
    given = as_input(np.full((2, 2, 3), 255, np.uint8))
    assert given.shape == (1, 3, 2, 2)
    # The means and deviations of ImageNet's colours.
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(given[0, :, 0, 0], expected, rtol=1e-6)


def test_poses_of_networks_are_read_back(tmp_path):
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    head = {
        "box": [0, 0, 9, 9],
        **pose_of(np.array([3.0, -2.0, 1.0]), "angles", ["pitch", "yaw", "roll"]),
    }
    # The mean of two networks that are 20 degrees apart is no rotation itself.
    apart = Rotation.from_euler("y", [[-10.0], [10.0]], degrees=True).as_matrix().reshape(2, 3, 3)
    mean = np.mean([each @ turn for each in apart], axis=0)
    other = {"box": [0, 0, 9, 9], **pose_of(mean.ravel(), "matrix", [])}
    path = tmp_path / "two_stage.json"
    content = {"convention": "canonical", "images": [{"image": "a", "heads": [head, other]}]}
    path.write_text(json.dumps(content))
    (heads,) = read_predictions(path).of_images(["a"])
    angles = rotation_to_euler(heads["rotations"][0], convention="canonical")
    np.testing.assert_allclose(angles, [-2, 3, 1], atol=1e-9)
    np.testing.assert_allclose(heads["rotations"][1], turn, atol=1e-9)


IMAGENET = (np.array([250, 100, 50]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
HALF = np.array([50, 100, 250]) / 127.5 - 1


@pytest.mark.parametrize(
    ("options", "networks", "colour"),
    [((), 1, IMAGENET), (("--scaling", "half", "--bgr"), 1, HALF), ((), 2, IMAGENET)],
)
def test_the_two_stages_from_images_to_predictions(
    tmp_path, monkeypatch, options, networks, colour
):
    """A detector that says where, and networks that answer with the mean colour of their crop.

    The second network says three times as much, so the mean of both is twice the colour.
    """
    onnx = pytest.importorskip("onnx")
    image = np.zeros((100, 200, 3), np.uint8)
    image[30:70, 80:120] = (250, 100, 50)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image[..., ::-1])

    class Detector:
        def setInputSize(self, size):
            assert size == (200, 100)

        def detect(self, bgr):
            assert bgr[50, 100].tolist() == [50, 100, 250]
            return 1, np.array([[80.0, 30.0, 40.0, 40.0, *[0.0] * 10, 0.75]], np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Detector())
    kind, shape = onnx.TensorProto.FLOAT, [1, 3, 16, 16]
    values = [
        onnx.helper.make_tensor_value_info(name, kind, size)
        for name, size in (("crop", shape), ("angles", [1, 3, 1, 1]))
    ]
    opset = [onnx.helper.make_opsetid("", 18)]
    for number in range(networks):
        times = onnx.numpy_helper.from_array(np.array(1 + 2 * number, np.float32), "times")
        nodes = [
            onnx.helper.make_node("GlobalAveragePool", ["crop"], ["colour"]),
            onnx.helper.make_node("Mul", ["colour", "times"], ["angles"]),
        ]
        graph = onnx.helper.make_graph(nodes, "pose", values[:1], values[1:], [times])
        model = onnx.helper.make_model(graph, opset_imports=opset)
        onnx.save(model, tmp_path / f"pose{number}.onnx")

    words = ["two-stage", "--images", tmp_path / "images", "--out", tmp_path / "out.json"]
    words += ["--yunet", "none.onnx", "--size", "16", *options]
    words += ["--pose", *(tmp_path / f"pose{number}.onnx" for number in range(networks))]
    words += ["--grow", "0", "--order", "pitch,yaw,roll", "--convention", "opal"]
    monkeypatch.setattr("sys.argv", ["peers", *map(str, words)])
    main()
    (heads,) = read_predictions(tmp_path / "out.json").of_images(["a"], [(200, 100)])
    with pytest.raises(BadInput, match=r"a\.png: its boxes are of \(200, 100\) pixels"):
        read_predictions(tmp_path / "out.json").of_images(["a"], [(100, 50)])
    assert heads["boxes"].tolist() == [[80, 30, 120, 70]]
    assert heads["scores"].tolist() == [0.75]
    pitch, yaw, roll = networks * colour
    found = rotation_to_euler(heads["rotations"][0], convention="opal")
    np.testing.assert_allclose(found, [yaw, pitch, roll], atol=1e-4)


def test_a_flipped_look_is_at_the_mirrored_image(tmp_path):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    for flipped in (False, True):
        ((_, size, seen),) = _found([tmp_path / "a.png"], lambda rgb: rgb, flipped=flipped)
        assert size == (4, 2)
        np.testing.assert_array_equal(seen[..., ::-1], cv2.flip(image, 1) if flipped else image)


def test_the_canonical_face_is_a_part_of_the_npm_package(tmp_path):
    name = "/third_party/modules/face_geometry/data/geometry_pipeline_metadata_landmarks.binarypb"
    files = [
        {"filename": "/a.tflite", "start": 0, "end": 4},
        {"filename": name, "start": 4, "end": 9},
    ]
    (tmp_path / f"{PACKED}_loader.js").write_text(f"load({json.dumps({'files': files})});")
    (tmp_path / f"{PACKED}.data").write_bytes(b"0123face!more")
    assert _canonical_face(tmp_path) == b"face!"
    with pytest.raises(SystemExit, match="npm pack"):
        _canonical_face(tmp_path / "elsewhere")
