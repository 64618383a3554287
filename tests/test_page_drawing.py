"""What the page draws, on canvases without a network; images that it reads as Python does."""

import base64
import io
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image

from mtnet_jax.data.images import decode_image
from mtnet_jax.predict.draw import _free_place
from tests import test_page
from tests.conftest import REPOSITORY

browser = test_page.browser  # Chromium
DRAWING = (REPOSITORY / "mtnet_jax" / "page" / "static" / "drawing.js").read_text("utf-8")
DRAW = """async ([script, width, height, heads, cube]) => {
    const {drawHeads} = await import(script);
    const canvas = Object.assign(document.createElement("canvas"), {width, height});
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(128 128 128)";
    context.fillRect(0, 0, width, height);
    const [labels, texts, fill, write] = [[], [], context.fillRect, context.fillText];
    context.fillRect = (...place) => (labels.push(place), fill.apply(context, place));
    context.fillText = (text, ...at) => (texts.push(text), write.call(context, text, ...at));
    drawHeads(context, heads, {cube});
    return [canvas.toDataURL().split(",")[1], labels, texts];
}"""
READ = """async (text) => {
    const file = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
    const image = await createImageBitmap(file, {colorSpaceConversion: "none"});
    const {width, height} = image;
    const canvas = Object.assign(document.createElement("canvas"), {width, height});
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL().split(",")[1];
}"""


@pytest.fixture(scope="module")
def tab(browser):
    page = browser.new_page()
    yield page
    page.close()


def pixels(text: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR_RGB)


def drawn(tab, size, boxes, cube=False):
    """The canvas, (n, 4) xyxy of the labels in the order of drawing, and their texts."""
    heads = [
        {"box": list(map(float, box)), "score": 0.9, "rotation": np.eye(3).ravel().tolist()}
        for box in boxes
    ]
    script = "data:text/javascript," + quote(DRAWING)
    image, labels, texts = tab.evaluate(DRAW, [script, *size, heads, cube])
    places = np.array(labels, float).reshape(-1, 4)
    places[:, 2:] += places[:, :2]
    return pixels(image), places, texts


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) pixels that two sets of boxes share."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.maximum(sides, 0).prod(axis=-1)


@pytest.mark.parametrize(("side", "line"), [(20, 1.25), (64, 4), (400, 1 + 4000 / 480)])
def test_lines_are_thinner_for_small_heads(tab, side, line):
    box = (1000, 1000, 1000 + side, 1000 + side)
    image, _, _ = drawn(tab, (4000, 3000), [box])
    row = image[1000 + side // 4, 980 : 1000 + side // 3].astype(int)  # across the left edge alone
    yellow = np.clip((128 - row[:, 2]) / 128, 0, 1)  # blue is 0 in yellow, 128 around
    assert yellow.sum() == pytest.approx(line, abs=0.3)


def test_labels_of_a_crowd_cover_no_other_and_little_of_the_heads(tab):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(100, 3900, 76), np.arange(100, 2900, 64))
    corner = np.stack([x.ravel(), y.ravel()], axis=1) + rng.integers(-12, 13, (x.size, 2))
    boxes = np.concatenate([corner, corner + rng.integers(20, 32, (x.size, 1))], axis=1)
    _, labels, texts = drawn(tab, (4000, 3000), boxes)
    shared = overlaps(labels, labels)
    np.fill_diagonal(shared, 0)
    assert shared.max() == 0
    hidden = overlaps(boxes, labels) / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    assert hidden.max() <= 0.25
    assert len(texts) > len(boxes) / 20  # some have room nevertheless
    assert len(set(texts)) == len(texts)


def test_labels_lie_where_pythons_do_and_have_the_numbers_of_the_list(tab):
    rng = np.random.default_rng(1)
    centres = np.stack(np.meshgrid(np.arange(80, 640, 120), np.arange(50, 480, 80)), -1)
    centres = centres.reshape(-1, 2) + rng.uniform(-40, 40, (30, 2))
    sides = rng.permutation(np.arange(16, 46)).astype(float)[:, None]
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    _, labels, texts = drawn(tab, (640, 480), boxes)
    assert len(texts) > 20
    numbers = [int(text.split()[0][1:]) - 1 for text in texts]
    assert numbers == sorted(numbers, key=lambda number: -sides[number, 0])  # large ones first
    taken = list(boxes[np.argsort(-sides[:, 0])])
    for number, label in zip(numbers, labels, strict=True):
        size = label[2:] - label[:2]
        expected, _ = _free_place(boxes[number], size, (480, 640, 3), np.array(taken))
        assert label == pytest.approx(expected, abs=1e-6)
        taken.append(label)


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (300, 200, 340, 250), (600, 440, 640, 480)])
def test_a_head_alone_has_its_label(tab, box):
    _, labels, texts = drawn(tab, (640, 480), [box], cube=True)
    assert texts == ["#1 0.90"]
    assert (labels >= 0).all()
    assert (labels[:, 2:] <= (640, 480)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["AVIF", "JPEG", "PNG"])  # EXIF of WebP Chromium leaves alone
def test_images_are_upright_as_python_has_them(tab, orientation, form):
    image = np.zeros((48, 80, 3), np.uint8)
    image[:24, :40], image[24:, :40], image[24:, 40:] = 220, 150, 70
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x112] = orientation
    Image.fromarray(image).save(file, form, exif=exif)
    expected = decode_image(file.getvalue())
    got = pixels(tab.evaluate(READ, base64.b64encode(file.getvalue()).decode()))
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() < 1
