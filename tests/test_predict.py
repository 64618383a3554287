"""Prediction of arrays, with a tiny network of random weights, and what the package offers."""

import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax.data import geometry
from mtnet_jax.heads import Heads
from mtnet_jax.predict.head import as_arrays
from mtnet_jax.predict.placing import heads_in_image
from mtnet_jax.predict.predictor import Head, Predictor
from mtnet_jax.rotations import axis_rotation, rotation_to_euler
from tests.image_files import noise_image
from tests.tiny import SCORE


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- from the network's input back to the image --------------------------------------------------


def fake_heads(boxes: np.ndarray, valid: list[bool]) -> Heads:
    """What the network would give for one image."""
    n = len(boxes)
    return Heads(
        boxes=np.asarray(boxes, np.float32)[None],
        scores=np.linspace(0.9, 0.4, n, dtype=np.float32)[None],
        labels=np.arange(n, dtype=np.int32)[None],
        rotations=axis_rotation("y", np.arange(n) * 10.0).astype(np.float32)[None],
        valid=np.array([valid]),
    )


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (64, 64), (7, 5), (3000, 41), (1003, 777)]
)
def test_boxes_come_back_in_pixels_of_the_image(rng, width, height):
    """Known boxes, letterboxed by hand: scaled by the longer side, centred in the other."""
    size = 64
    low = rng.uniform(0, 0.5, (4, 2)) * [width, height]
    high = low + rng.uniform(0.1, 0.5, (4, 2)) * [width, height]
    scale = size / max(width, height)
    margin = (size - scale * np.array([width, height])) / 2
    in_input = np.concatenate([scale * low + margin, scale * high + margin], axis=1)

    matrix = geometry.letterbox_map(width, height, size)
    found = heads_in_image(fake_heads(in_input, [True] * 4), 0, matrix, (height, width, 3))
    expected = np.concatenate([low, high], axis=1)
    np.testing.assert_allclose(found["boxes"], expected, atol=max(width, height) * 1e-5)
    np.testing.assert_array_equal(found["labels"], [0, 1, 2, 3])


def test_empty_slots_and_heads_beside_the_image_are_left_out():
    """A wide image in the middle rows of the input: what lies in the grey above is no head."""
    boxes = [[0, 20, 30, 40], [10, 10, 20, 30], [10, 0, 20, 15], [np.nan] * 4, [-9, 30, 70, 90]]
    heads = fake_heads(boxes, [True, True, True, False, True])
    found = heads_in_image(heads, 0, geometry.letterbox_map(128, 64, 64), (64, 128, 3))
    expected = [[0, 8, 60, 48], [20, 0, 40, 28], [0, 28, 128, 64]]  # twice as large, 32 higher
    np.testing.assert_allclose(found["boxes"], expected, atol=1e-4)
    assert found["labels"].tolist() == [0, 1, 4]
    assert (np.diff(found["scores"]) < 0).all()
    np.testing.assert_allclose(found["rotations"], axis_rotation("y", np.array([0.0, 10, 40])))


@pytest.mark.parametrize("intrinsics", [("a", 1, 1, 1), (1, 1, [1], 1)])
def test_a_camera_that_is_none_is_said(weights, intrinsics):
    with pytest.raises(ValueError, match="must be fx, fy, cx, cy, four numbers"):
        Predictor(weights, intrinsics=intrinsics)


@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, "0.5"])
def test_thresholds_that_cannot_be_are_said(weights, name, value):
    with pytest.raises(ValueError, match=f"{name} is .*: it must be a number from 0 to 1"):
        Predictor(weights, **{name: value})


def test_a_path_is_no_batch(predictor):
    for image in ("a.jpg", Path("a.jpg"), b"a"):
        with pytest.raises(ValueError, match="Several images are a list"):
            predictor.predict_batch(image)


@pytest.mark.parametrize("runtime", ["jax", "onnxruntime"])
def test_another_process_gets_the_same_heads(rng, weights, runtime):
    image = noise_image(rng, 60, 40)
    predictor = Predictor(weights, runtime=runtime, score_threshold=SCORE, size=96, fov=60)
    again = pickle.loads(pickle.dumps(predictor))
    assert again.size == 96
    assert [h.to_json() for h in again(image)] == [h.to_json() for h in predictor(image)]


def test_a_batch_may_be_one_array(rng, predictor):
    images = np.stack([noise_image(rng, 60, 40) for _ in range(2)])
    found = predictor.predict_batch(images)
    assert [len(heads) for heads in found] == [len(predictor(image)) for image in images]
    one_by_one = predictor.predict_batch(image for image in images)
    assert [len(heads) for heads in one_by_one] == [len(heads) for heads in found]


# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 5), (5, 3000), (64, 64), (333, 217)])
def test_images_of_any_shape(rng, predictor, width, height):
    heads = predictor(noise_image(rng, width, height))
    assert len(heads) <= 6
    assert [h.score for h in heads] == sorted((h.score for h in heads), reverse=True)
    for head in heads:
        left, top, right, bottom = head.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert SCORE <= head.score <= 1
        np.testing.assert_allclose(head.rotation @ head.rotation.T, np.eye(3), atol=1e-5)
        angles = rotation_to_euler(head.rotation.astype(float), convention="canonical")
        np.testing.assert_allclose([head.yaw, head.pitch, head.roll], angles, atol=1e-4)
        assert head.label == "head"


def test_random_weights_find_something(rng, predictor):
    """Else the other tests would look at empty lists."""
    assert predictor(noise_image(rng, 333, 217))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((20, 30), np.uint8),
        np.zeros((20, 30, 1), np.uint8),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
        np.zeros((2, 20, 30, 3), np.uint8),
    ],
    ids=lambda a: f"{a.shape}-{a.dtype}",
)
def test_other_arrays_are_refused_by_shape_and_type(predictor, bad):
    with pytest.raises(ValueError, match=r"\(height, width, 3\) uint8 RGB") as caught:
        predictor(bad)
    assert str(bad.shape) in str(caught.value)
    assert str(bad.dtype) in str(caught.value)


def test_opencv_images_with_reversed_axis(rng, predictor):
    """The documented way from BGR: a view with a negative stride."""
    image = noise_image(rng, 90, 70)
    expected = [h.to_json() for h in predictor(image)]
    bgr = np.ascontiguousarray(image[..., ::-1])
    assert [h.to_json() for h in predictor(bgr[..., ::-1])] == expected
    image.flags.writeable = False
    assert [h.to_json() for h in predictor(image)] == expected


def test_other_sizes_do_not_compile_again(rng, predictor):
    predictor(noise_image(rng, 30, 30))
    compiled = []

    def listen(event: str, duration: float, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for width, height in [(31, 30), (640, 480), (5, 900)]:
            predictor(noise_image(rng, width, height))
        assert not compiled
        jax.jit(lambda x: x * 2 + len(compiled))(np.float32(1))  # the listener does hear
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_predicting_is_repeatable(rng, predictor, weights):
    image = noise_image(rng, 120, 80)
    again = Predictor.load(str(weights), score_threshold=SCORE)
    assert [h.to_json() for h in predictor(image)] == [h.to_json() for h in again(image)]


def test_no_heads_as_arrays():
    arrays = as_arrays([])
    assert arrays["boxes"].shape == (0, 4)
    assert arrays["rotations"].shape == (0, 3, 3)
    assert arrays["scores"].shape == (0,)


# --- the package ---------------------------------------------------------------------------------


def test_package_offers_the_three_lines():
    assert mtnet_jax.Predictor is Predictor
    assert mtnet_jax.Head is Head
    with pytest.raises(AttributeError, match="Predicter"):
        mtnet_jax.Predicter  # noqa: B018


@pytest.mark.parametrize("module", ["mtnet_jax", "mtnet_jax.cli", "data_prep.convert"])
def test_imports_that_must_stay_light(module):
    code = f"import sys, {module}; print([m for m in ('jax', 'numpy', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
