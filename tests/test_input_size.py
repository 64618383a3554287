"""One network at several input sizes, and the camera."""

import json

import jax
import numpy as np
import pytest

from mtnet_jax import Predictor
from mtnet_jax.anchors import STRIDES
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.camera import camera_to_ray, intrinsics_of_view
from mtnet_jax.cli import main
from mtnet_jax.data.geometry import BORDER_GREY
from mtnet_jax.errors import BadInput
from mtnet_jax.export.folder import export
from mtnet_jax.predict.inference import make_detector
from mtnet_jax.predict.placing import letterboxed
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.rotations import geodesic_degrees
from mtnet_jax.saved_config import read_config, write_config
from mtnet_jax.shipped import weights_folder
from mtnet_jax.system import at_size, build_system
from mtnet_jax.weights import load_weights
from tests.conftest import REPOSITORY
from tests.image_files import write_image
from tests.tiny import DEMO_RECORDS, SCORE

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))
WEIGHTS = weights_folder()
TRAINED = read_config(WEIGHTS).input.size
LARGER = TRAINED + 6 * STRIDES[0]


def test_anchors_keep_their_pixels():
    config, _ = load_weights(WEIGHTS)
    trained = build_system(config).grid
    larger = build_system(at_size(config, LARGER)).grid
    assert larger.size == LARGER
    np.testing.assert_allclose(larger.level_anchors_wh, trained.level_anchors_wh, rtol=1e-6)
    assert config.input.size == TRAINED  # the given one is left alone
    with pytest.raises(BadInput, match="multiple of 32"):
        at_size(config, LARGER + 1)
    assert at_size(config, np.int64(LARGER)).input.size == LARGER
    with pytest.raises(BadInput, match="whole number of pixels"):
        at_size(config, float(LARGER))


def test_the_same_content_gives_the_same_heads_at_another_size():
    """Images in the middle of an input, and that in the middle of a larger one, whose cells lie
    alike; the rest is grey."""
    config, variables = load_weights(WEIGHTS)
    inner, margin = TRAINED - 4 * STRIDES[0], 2 * STRIDES[0]
    small = np.full((len(IMAGES), TRAINED, TRAINED, 3), BORDER_GREY, np.uint8)
    small[:, margin:-margin, margin:-margin] = [
        letterboxed(read_image(path), inner)[0] for path in IMAGES
    ]
    large = np.full((len(small), LARGER, LARGER, 3), BORDER_GREY, np.uint8)
    offset = (LARGER - TRAINED) // 2
    large[:, offset:-offset, offset:-offset] = small

    def detect(config, images):
        return jax.device_get(make_detector(build_system(config), config, 0.3)(variables)(images))

    expected, found = detect(config, small), detect(at_size(config, LARGER), large)
    np.testing.assert_array_equal(found.valid, expected.valid)
    valid = expected.valid
    # Zeros round the smaller input are grey in the larger one: that is all the difference.
    assert np.abs(found.boxes[valid] - offset - expected.boxes[valid]).max() < 3
    assert geodesic_degrees(found.rotations[valid], expected.rotations[valid]).max() < 5
    config.input.size = LARGER  # with anchors as they are written the boxes would be larger too
    wrong = detect(config, large)
    both = wrong.valid & expected.valid
    sizes = (h.boxes[both][:, 2:] - h.boxes[both][:, :2] for h in (wrong, expected))
    assert np.median(np.divide(*sizes)) == pytest.approx(LARGER / TRAINED, rel=0.2)


def crowd() -> tuple[np.ndarray, int]:
    """Six photographs of one person each in one large image, and how many there are."""
    images = [read_image(path) for path in IMAGES]
    rows = [np.concatenate(images[i : i + 3], axis=1) for i in (0, 3)]
    together = np.concatenate(rows)
    image = np.full((1350, 12000, 3), 200, np.uint8)  # of 114 the weights find heads (results.md)
    image[200 : 200 + together.shape[0], 300 : 300 + together.shape[1]] = together
    return image, len(images)


def test_tiles_and_a_larger_input_find_small_heads():
    image, count = crowd()
    plain = Predictor(runtime="onnxruntime", tile=None)
    assert len(plain(image)) < count
    tiled = Predictor(runtime="onnxruntime", tile=600)(image)
    larger = Predictor(runtime="onnxruntime", size=1888)(image)
    assert len(tiled) == len(larger) == count
    a, b = (np.array([head.box for head in heads]) for heads in (tiled, larger))
    assert (iou_xyxy(a[:, None], b[None]).max(axis=1) > 0.6).all()


# --- the camera ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_weights(tmp_path_factory):
    """The weights that ship, as if their rotations were relative to the ray."""
    folder = tmp_path_factory.mktemp("ray")
    config = read_config(WEIGHTS)
    config.frame = "ray"
    write_config(folder, config)
    (folder / "weights.npz").write_bytes((WEIGHTS / "weights.npz").read_bytes())
    export(folder, folder / "out", formats=["onnx"], half=True)  # starts faster
    return folder / "out"


def test_camera_axes_need_a_camera(ray_weights):
    (head,) = Predictor(ray_weights)(IMAGES[0])
    assert (head.frame, head.rotation_camera) == ("ray", None)
    assert "rotation_camera" not in head.to_json()
    (known,) = Predictor(ray_weights, fov=60)(IMAGES[0])
    np.testing.assert_array_equal(known.rotation, head.rotation)
    intrinsics = intrinsics_of_view(60, 384, 288)
    back = camera_to_ray(known.rotation_camera[None], np.array([head.box]), intrinsics)[0]
    np.testing.assert_allclose(back, head.rotation, atol=1e-5)
    # Here the head stands a little left of the middle: the two differ by the angle of its ray.
    middle = (head.box[0] + head.box[2]) / 2 - 192, (head.box[1] + head.box[3]) / 2 - 144
    angle = np.rad2deg(np.arctan(np.hypot(*middle) / intrinsics[0]))
    assert geodesic_degrees(known.rotation_camera, head.rotation) == pytest.approx(angle, abs=1e-2)
    (same,) = Predictor(ray_weights, intrinsics=intrinsics)(IMAGES[0])
    np.testing.assert_array_equal(same.rotation_camera, known.rotation_camera)


def test_camera_axes_of_weights_in_camera_axes(weights):
    predictor = Predictor(weights, fov=60, score_threshold=SCORE)
    assert predictor.frame == "camera"
    head = predictor(IMAGES[0])[0]
    np.testing.assert_array_equal(head.rotation_camera, head.rotation)


@pytest.mark.parametrize("words", [["--fov", "60"], ["--intrinsics", "332.55,332.55,192,144"]])
def test_the_command_writes_camera_axes(ray_weights, tmp_path, words):
    file = tmp_path / "heads.json"
    command = ["predict", str(IMAGES[0]), "--weights", str(ray_weights), "--json", str(file)]
    assert main([*command, *words]) == 0
    (head,) = json.loads(file.read_text())[0]["heads"]
    assert head["frame"] == "ray"
    (expected,) = Predictor(ray_weights, fov=60)(IMAGES[0])
    np.testing.assert_allclose(head["rotation_camera"], expected.rotation_camera, atol=1e-4)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,1,2,3", "nan,1,2,3"])
def test_intrinsics_that_cannot_be(text, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "x.jpg", "--intrinsics", text])
    assert "--intrinsics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ({"fov": 0.0}, "field of view of 0.0 degrees"),
        ({"fov": 180}, "field of view of 180 degrees"),
        ({"intrinsics": (500, 320, 240)}, "must be fx, fy, cx, cy"),
        ({"intrinsics": (500, -500, 320, 240)}, "must be fx, fy, cx, cy"),
        ({"fov": 60, "intrinsics": (500, 500, 320, 240)}, "give one of them"),
    ],
)
def test_a_camera_that_cannot_be_is_said_before_the_first_image(camera, words):
    with pytest.raises(ValueError, match=words):
        Predictor(**camera)


def test_a_size_on_the_command_line(tmp_path):
    image, count = crowd()
    write_image(tmp_path / "crowd.png", image)
    file = tmp_path / "heads.json"
    command = ["predict", str(tmp_path / "crowd.png"), "--json", str(file)]
    assert main([*command, "--size", str(6 * TRAINED), "--runtime", "onnxruntime"]) == 0
    assert len(json.loads(file.read_text())[0]["heads"]) == count


def test_evaluating_and_exporting_at_a_size_agree(weights, tmp_path):
    """`mtnet export --size` stores what `mtnet eval --size` does."""
    main(["export", "--workdir", str(weights), "--out", str(tmp_path / "at_96"), "--size", "96"])
    assert read_config(tmp_path / "at_96").input.size == 96
    found = []
    for words in (["--workdir", str(weights), "--size", "96"], ["--workdir", tmp_path / "at_96"]):
        out = tmp_path / f"eval{len(found)}"
        command = ["eval", *map(str, words), "--data", str(DEMO_RECORDS), "--out", str(out)]
        assert main([*command, "--limit", "8"]) == 0
        (path,) = out.glob("*/evaluation.json")
        results = json.loads(path.read_text())
        settings = [result.pop("settings") for result in results.values()]  # and the weights' name
        assert {each["size"] for each in settings} == {96}
        found.append(results)
    assert found[0] == found[1]
