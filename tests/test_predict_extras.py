"""`mtnet predict` without options, in batches, and what it can write beside overlays."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from mtnet_jax import Predictor
from mtnet_jax.cli import main
from mtnet_jax.export.metadata import WEIGHTS_KEY
from mtnet_jax.predict.onnx_runtime import open_heads
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.shipped import weights_folder
from mtnet_jax.sums import sha256_of
from tests.conftest import REPOSITORY
from tests.image_files import written
from tests.tiny import SCORE

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))


def test_one_line_to_start_loads_no_jax(tmp_path):
    """The weights that ship, a folder that is made, and nothing that takes seconds to import."""
    code = f"""
import sys
from mtnet_jax.cli import main
assert main(["predict", {str(IMAGES[0])!r}]) == 0
heavy = ("jax", "flax", "optax", "orbax", "grain", "matplotlib", "onnx", "tensorflow_datasets")
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == "[]"
    assert written(tmp_path / "heads") == [f"{IMAGES[0].stem}.png"]


def test_the_shipped_file_is_of_the_shipped_weights():
    """`mtnet export --format onnx` writes both; else the default would fall back to JAX."""
    folder = weights_folder()
    session, _ = open_heads(folder / "heads.onnx")
    said = session.get_modelmeta().custom_metadata_map[WEIGHTS_KEY]
    assert said == sha256_of(folder / "weights.npz")
    assert (folder / "heads.onnx").stat().st_size < 20e6
    assert Predictor().runtime == "onnxruntime"


def test_a_folder_called_like_the_weights_is_not_taken_for_them(tmp_path, monkeypatch):
    (tmp_path / weights_folder().name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Predictor().runtime == "onnxruntime"


@pytest.mark.parametrize("runtime", ["jax", "onnxruntime"])
def test_batches_give_the_heads_of_single_images(weights, runtime):
    """Also the last, smaller batch, which is filled up for JAX."""
    predictor = Predictor(weights, score_threshold=SCORE, runtime=runtime)
    rng = np.random.default_rng(0)
    shapes = [(60, 80), (200, 90), (64, 64)]
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    single = [predictor(image) for image in images]
    for batch in (images, images[:2]):
        found = predictor.predict_batch(batch)
        assert [len(heads) for heads in found] == [len(heads) for heads in single[: len(batch)]]
        for heads, expected in zip(found, single, strict=False):
            for a, b in zip(heads, expected, strict=True):
                np.testing.assert_allclose(a.box, b.box, atol=1e-2)
    assert predictor.predict_batch([]) == []


def test_crops_and_text_files(tmp_path):
    out = tmp_path / "out"
    words = ["predict", *map(str, IMAGES[:3]), "--out", str(out), "--batch", "2"]
    assert main([*words, "--save-crops", "--save-txt"]) == 0
    for path in IMAGES[:3]:
        image = read_image(path)
        (head,) = Predictor()(image)
        text = (out / "labels" / f"{path.stem}.txt").read_text().split()
        label, x, y, width, height, score, yaw, pitch, roll = map(float, text)
        centre, size = np.array([x, y]) * [384, 288], np.array([width, height]) * [384, 288]
        box = np.concatenate([centre - size / 2, centre + size / 2])
        np.testing.assert_allclose(box, head.box, atol=1e-2)
        assert (label, score) == (0, pytest.approx(head.score, abs=1e-5))
        np.testing.assert_allclose((yaw, pitch, roll), (head.yaw, head.pitch, head.roll), atol=0.01)
        crop = cv2.imread(str(out / "crops" / f"{path.stem}_1.png"))[..., ::-1]
        left, top = np.floor(head.box[:2]).astype(int)
        rows, columns = crop.shape[:2]
        np.testing.assert_array_equal(crop, image[top : top + rows, left : left + columns])
        assert abs(columns - (head.box[2] - head.box[0])) < 2
    assert main([*words, "--save-crops", "--score", "1"]) == 0  # which nobody is sure enough for
    assert written(out / "crops") == []


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("crops", f"crops/{IMAGES[1].stem}_1.png"),
        ("crops", f"crops/{IMAGES[1].stem}_12.png"),  # of a head of an earlier run
        ("txt", f"labels/{IMAGES[1].stem}.txt"),
    ],
)
def test_files_of_the_user_among_the_extras_are_seen_before_the_work(
    tmp_path, option, name, capsys
):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("of the user")
    words = ["predict", *map(str, IMAGES[:2]), "--out", str(tmp_path), f"--save-{option}"]
    assert main(words) == 1
    assert f"{name} was made by something else" in capsys.readouterr().err
    assert written(tmp_path) == [name.split("/")[0]]
