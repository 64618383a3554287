"""`mtnet predict` and what it writes: nothing lost, nothing silent, nothing raw."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mtnet_jax.cli import main
from mtnet_jax.predict.predictor import Predictor, as_rgb, read_image
from tests.conftest import REPOSITORY
from tests.image_files import write_image, written
from tests.record_sets import a_record, write_record_set


class Nobody:
    """A predictor that finds no heads; calls what it is told to before each image."""

    class_names = ("head",)

    def __init__(self, before=lambda number: None):
        self.before, self.calls = before, 0

    def __call__(self, image):
        self.before(self.calls)
        self.calls += 1
        return []

    def predict_batch(self, images):
        return [self(image) for image in images]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for number in range(4):
        write_image(folder / f"{number}.png", np.full((30, 40, 3), 60 * number, np.uint8))
    return folder


@pytest.fixture
def predict(monkeypatch):
    """Runs `mtnet predict` with a predictor that is given, by default one that finds nobody."""

    def run(*words, predictor=None) -> int:
        made = predictor or Nobody()
        monkeypatch.setattr("mtnet_jax.predict.predictor.Predictor", lambda *_, **__: made)
        return main(["predict", *map(str, words)])

    return run


def test_a_forgotten_file_name_replaces_no_photograph(predict, images, capsys):
    """`mtnet predict --json images/*.png`: the shell makes the first image the name of the JSON."""
    first, *others = sorted(images.iterdir())
    before = first.read_bytes()
    assert predict("--json", first, *others) == 1
    assert "0.png was made by something else" in capsys.readouterr().err
    assert predict(images, "--json", first) == 1
    assert "is one of the inputs" in capsys.readouterr().err
    assert first.read_bytes() == before


def test_foreign_files_in_the_folder_of_overlays_stay(predict, images, tmp_path, capsys):
    out = tmp_path / "out"
    write_image(out / "2.png", np.zeros((5, 5, 3), np.uint8))
    before = (out / "2.png").read_bytes()
    assert predict(images, "--out", out) == 1
    assert "2.png was made by something else" in capsys.readouterr().err
    assert (out / "2.png").read_bytes() == before
    assert written(out) == ["2.png"]  # said before the work


def test_images_of_another_folder_get_other_names(predict, images, tmp_path):
    other = tmp_path / "other"
    write_image(other / "0.png", np.full((30, 40, 3), 9, np.uint8))
    out = tmp_path / "out"
    for _ in range(2):
        assert predict(images, "--out", out) == 0
        assert predict(other, "--out", out) == 0
    assert written(out) == ["0.png", "0_2.png", "1.png", "2.png", "3.png"]
    assert read_image(out / "0_2.png").mean() == pytest.approx(9)
    assert read_image(out / "0.png").mean() == pytest.approx(0)


def test_an_interruption_leaves_valid_results(predict, images, tmp_path, capsys):
    def stop(number):
        if number == 3:
            raise KeyboardInterrupt

    heads, lines, out = tmp_path / "heads.json", tmp_path / "heads.jsonl", tmp_path / "out"
    words = (images, "--json", heads, "--jsonl", lines, "--out", out)
    assert predict(*words, predictor=Nobody(stop)) == 130
    assert "interrupted" in capsys.readouterr().err
    entries = json.loads(heads.read_text())
    assert [entry["image"][-5:] for entry in entries] == ["0.png", "1.png", "2.png"]
    assert [json.loads(line) for line in lines.read_text().splitlines()] == entries
    assert written(out) == ["0.png", "1.png", "2.png"]
    assert predict(*words) == 0  # and the same command replaces them
    assert len(json.loads(heads.read_text())) == 4


def test_one_file_by_two_names_is_not_two(predict, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for other in (tmp_path / "a.json", "./images/../a.json", "link/a.json"):
        assert predict(images, "--json", "a.json", "--jsonl", other) == 1
        assert "--json and --jsonl are both a.json" in capsys.readouterr().err


def test_an_empty_input_is_not_the_folder_one_is_in(predict, images, monkeypatch, capsys):
    monkeypatch.chdir(images)
    assert predict("", "--out", "heads") == 1
    assert "An input is empty" in capsys.readouterr().err
    assert not (images / "heads").exists()


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_standard_output_holds_nothing_but_json(predict, images, capsysbinary, form, name):
    (images / "notes.txt").write_text("x")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert predict(images, form, name) == 1
    out, err = capsysbinary.readouterr()
    entries = json.loads(out) if form == "--json" else [json.loads(x) for x in out.splitlines()]
    assert len(entries) == 4
    for said in (b"4 images predicted", b"1 no image (.txt)", b"broken.jpg"):
        assert said in err


def test_a_closed_pipe_is_no_error(images):
    program = (
        "import sys, mtnet_jax.predict.predictor as p; from mtnet_jax.cli import main\n"
        "from tests.test_predict_command import Nobody; p.Predictor = lambda *_, **__: Nobody()\n"
        f"sys.exit(main(['predict', *[{str(images)!r}] * 1, '--jsonl', '-']))"
    )
    for number in range(4, 400):
        os.link(images / "0.png", images / f"{number}.png")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    json.loads(process.stdout.readline())
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert "Traceback" not in errors
    assert "Broken" not in errors


def test_a_platform_that_is_not_there_is_one_line(images):
    run = subprocess.run(
        [sys.executable, "-m", "mtnet_jax.cli", "predict", str(images), "--json", "-"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "rocm"},
    )
    assert run.returncode == 1
    assert "JAX_PLATFORMS=rocm" in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) < 4


def test_images_come_as_arrays_pil_images_bytes_and_paths(images, predictor):
    path = images / "1.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    write_image(path, pixels)
    expected = [head.to_json() for head in predictor(pixels)]
    assert expected
    for image in (
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        Image.fromarray(pixels),
        Image.open(path),
    ):
        assert [head.to_json() for head in predictor(image)] == expected
        if isinstance(image, Image.Image):
            image.close()
    for mode in ("L", "RGBA", "P"):
        predictor(Image.fromarray(pixels).convert(mode))


@pytest.mark.parametrize("kind", [np.uint16, ">u2", np.int32, np.float32])
def test_pil_images_of_more_than_8_bits_are_what_their_files_are(kind):
    grey = np.random.default_rng(0).integers(0, 1 << 16, (60, 50))
    grey[0, 0] = (1 << 16) - 1
    values = (grey / (1 << 16)).astype(kind) if kind is np.float32 else grey.astype(kind)
    image = as_rgb(Image.fromarray(values))
    assert (image.shape, image.dtype) == ((60, 50, 3), np.uint8)
    np.testing.assert_allclose(image, np.repeat(grey[..., None] / 257, 3, axis=-1), atol=1)


def test_pil_images_of_a_range_that_says_nothing_are_refused():
    for value, kind in ((-1, np.int32), (1 << 20, np.int32), (3.5, np.float32)):
        with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
            as_rgb(Image.fromarray(np.full((4, 4), value, kind)))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("https://example.org/a.jpg", "is an address: download"),
        (None, "not a NoneType"),
        ([1, 2], "not a list"),
        (np.zeros((3, 3)), "must be .height, width, 3. uint8"),
        (b"no image", "cannot decode"),
    ],
)
def test_what_is_no_image_is_said(predictor, image, said):
    with pytest.raises(ValueError, match=said):
        predictor(image)


def test_sheets_are_written_as_images_alone(tmp_path, capsys):
    demo = REPOSITORY / "demo" / "studio_demo"
    assert main(["data", "show", str(demo), "--out", str(tmp_path / "s.xyz")]) == 1
    assert "s.xyz: images cannot be written as .xyz: name it" in capsys.readouterr().err
    (tmp_path / "mine.png").write_bytes(b"of the user")
    assert main(["data", "show", str(demo), "--out", str(tmp_path / "mine.png")]) == 1
    assert "was made by something else" in capsys.readouterr().err


def test_anchors_need_boxes(tmp_path, capsys):
    records = [a_record("a", boxes=[(1, 2, 20, 30)]), a_record("b", boxes=[])]
    folder = write_record_set(tmp_path / "set", {"train": records})
    assert main(["data", "anchors", str(folder)]) == 1
    assert "1 boxes that are not ignored, and 9 anchors need as many" in capsys.readouterr().err


def test_predicting_loads_through_the_class(weights):
    assert Predictor(weights, runtime="jax").class_names == ("head",)
