"""Who asks for a second look: weights, the predictor, the commands."""

import json

import cv2
import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.config import default_config
from mtnet_jax.data.geometry import BORDER_GREY, shift_map
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.heads import Heads
from mtnet_jax.predict.placing import View
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.predict.second_look import look_again, looks_again
from tests.conftest import REPOSITORY
from tests.image_files import write_image
from tests.tiny import DEMO_RECORDS

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A large head, and two small ones."""
    large = read_image(IMAGES[0])
    scene = np.full((600, 1200, 3), BORDER_GREY, np.uint8)
    scene[: 2 * large.shape[0], : 2 * large.shape[1]] = cv2.resize(large, None, fx=2, fy=2)
    for path, left in zip(IMAGES[1:3], (800, 1000), strict=True):
        small = cv2.resize(read_image(path), (192, 144), interpolation=cv2.INTER_AREA)
        scene[300:444, left : left + 192] = small
    return scene


class Counting:
    """A network that counts the inputs it is given."""

    def __init__(self, detect):
        self.detect, self.inputs = detect, 0

    def __call__(self, inputs):
        self.inputs += len(inputs)
        return self.detect(inputs)


def predicted(image, **options):
    predictor = Predictor("release", runtime="onnxruntime", **options)
    predictor._detect = Counting(predictor._detect)
    return predictor(image), predictor._detect.inputs


def test_weights_say_whether_they_need_it():
    config = default_config()
    assert not looks_again(config)
    assert looks_again(config, wanted=True)
    config.input.second_look = True
    assert looks_again(config)
    assert not looks_again(config, wanted=False)
    with config.unlocked():
        del config.input.second_look  # as in weights of before
    assert not looks_again(config)


def test_one_look_or_all_three(image):
    heads, looks = predicted(image)
    once, one = predicted(image, second_look=False)
    assert (looks, one) == (3, 1)
    assert len(heads) == len(once) == 3
    assert heads != once


@pytest.mark.parametrize("iou", [0.7, 1.0])
def test_an_overlap_that_is_asked_for_is_of_the_suppression_alone(image, iou):
    """Two looks at a head are one head all the same, and it is its own self."""
    heads, looks = predicted(image)
    again, as_many = predicted(image, iou_threshold=iou)
    assert looks == as_many
    np.testing.assert_allclose([h.box for h in again], [h.box for h in heads], atol=0.1)


def test_the_heads_of_all_looks_obey_the_overlap_that_is_asked_for():
    heads = Heads(
        boxes=np.array([[[10.0, 10, 60, 60], [40, 10, 90, 60]]]),  # IoU 0.25
        scores=np.array([[0.9, 0.8]]),
        labels=np.zeros((1, 2), int),
        rotations=np.tile(np.eye(3), (1, 2, 1, 1)),
        valid=np.ones((1, 2), bool),
    )
    for iou, count in ((None, 2), (0.3, 2), (0.2, 1)):
        predictor = Predictor("release", runtime="onnxruntime", iou_threshold=iou, tile=None)
        predictor._detect, predictor._second_looks = lambda _: heads, False
        assert len(predictor(np.zeros((224, 224, 3), np.uint8))) == count


def test_the_score_that_is_asked_for_is_the_mean_of_the_looks(image):
    """A high threshold leaves out heads, and changes nothing of the others."""
    heads, _ = predicted(image)
    fewer, _ = predicted(image, score_threshold=heads[-1].score + 1e-6)
    assert [head.box for head in fewer] == [head.box for head in heads[:2]]
    assert [head.score for head in fewer] == [head.score for head in heads[:2]]


def test_doubtful_heads_have_no_part_in_a_second_look_whatever_is_asked_for():
    """A head that one of two views is not sure of: its mean must not depend on --score."""
    heads = Heads(
        boxes=np.array([[[10.0, 10, 60, 60], [110, 10, 160, 60]]]),
        scores=np.array([[0.62, 0.06]]),
        labels=np.zeros((1, 2), int),
        rotations=np.tile(np.eye(3), (1, 2, 1, 1)),
        valid=np.ones((1, 2), bool),
    )
    views = [View(shift_map(0, 0), 100, 0, 0), View(shift_map(0, 0), 100, 100, 0)]
    image = np.zeros((100, 100, 3), np.uint8)
    seen = look_again(lambda _: heads, [image], {0: views}, 224)
    assert [found["scores"].tolist() for found in seen[0]] == [[0.62], []]


def test_the_commands_look_once_where_asked(image, tmp_path):
    write_image(tmp_path / "scene.png", image)
    found = []
    for words in ([], ["--one-look"]):
        file = tmp_path / f"heads{len(words)}.json"
        command = ["predict", str(tmp_path / "scene.png"), "--json", str(file)]
        assert main([*command, "--runtime", "onnxruntime", *words]) == 0
        found.append([head["box"] for head in json.loads(file.read_text())[0]["heads"]])
    for boxes, options in zip(found, ({}, {"second_look": False}), strict=True):
        heads, _ = predicted(image, **options)
        np.testing.assert_allclose(boxes, [head.box for head in heads], atol=0.1)


def test_evaluating_looks_as_often_as_predicting(tmp_path):
    """What `mtnet eval` measures is what the predictor says, whether images come in batches."""
    file = REPOSITORY / "weights" / "release" / "heads.onnx"
    for second_look in (None, False):
        looked = predict_split(file, DEMO_RECORDS, "test", limit=10, second_look=second_look)
        predictor = Predictor("release", runtime="onnxruntime", second_look=second_look)
        source = looked.source
        numbers = np.linspace(0, len(source) - 1, 10).round().astype(int)
        for number, (found, _) in zip(numbers, looked.pairs, strict=True):
            sure = found["scores"] >= 0.3
            heads = predictor(source[int(number)]["image"])
            assert len(heads) == sure.sum()
            for head, box in zip(heads, found["boxes"][sure], strict=True):
                np.testing.assert_allclose(head.box, box, atol=0.5)
