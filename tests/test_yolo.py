"""YOLO label files, and the command on them."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import convert
from data_prep.engine.builder import write_record_set
from data_prep.engine.report import Report
from data_prep.own import yolo, yolo_layout
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.conversions import jpeg

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def raw_yolo(tmp_path):
    """Two splits; `add(split, name, labels)` adds an image of 60x40 (labels None: no file)."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "data.yaml").write_text("names: ['head', 'helmet']\nroboflow:\n  license: CC0\n")

    def add(split: str, name: str, labels: str | None) -> None:
        for folder in ("images", "labels"):
            (raw / split / folder).mkdir(parents=True, exist_ok=True)
        (raw / split / "images" / f"{name}.jpg").write_bytes(jpeg(seed=len(name)))
        if labels is not None:
            (raw / split / "labels" / f"{name}.txt").write_text(labels)

    add.raw = raw
    add("train", "one", "0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.2\n\n")
    add("train", "empty", "")
    add("train", "unlabelled", None)
    add("valid", "four", "1 0.5 0.5 1 1")
    return add


def convert_yolo(raw: Path, out: Path, **options) -> tuple[Report, dict[str, dict]]:
    report = write_record_set(yolo.conversion(raw, name="own", **options), out)
    records = {}
    for split in RecordSet.open(out).splits:
        source = RecordSource(out, split)
        records.update({source[i]["image_id"]: source[i] for i in range(len(source))})
    return report, records


def test_yolo_boxes_labels_and_images_without_heads(raw_yolo, tmp_path):
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert set(records) == {"train/one", "train/empty", "train/unlabelled", "valid/four"}
    one = records["train/one"]
    np.testing.assert_allclose(one["boxes"], [[15, 10, 45, 30], [12, 6, 18, 14]], rtol=1e-6)
    assert one["labels"].tolist() == [0, 1]
    assert not one["has_pose"].any()
    np.testing.assert_array_equal(one["rotations"], np.tile(np.eye(3), (2, 1, 1)))
    np.testing.assert_array_equal(records["valid/four"]["boxes"], [[0, 0, 60, 40]])
    for name in ("train/empty", "train/unlabelled"):
        assert records[name]["boxes"].shape == (0, 4)
        assert records[name]["image"].shape == (40, 60, 3)
    opened = RecordSet.open(tmp_path / "out")
    assert opened.label_names == ("head", "helmet")
    assert opened.splits == {"train": 3, "valid": 1}
    assert report.notes == {"images without a label file (kept, no heads)": ["train/unlabelled"]}


def test_yolo_label_map_joins_and_drops(raw_yolo, tmp_path):
    _, records = convert_yolo(
        raw_yolo.raw, tmp_path / "a", label_map={"head": "head", "helmet": "head"}
    )
    assert records["train/one"]["labels"].tolist() == [0, 0]
    assert RecordSet.open(tmp_path / "a").label_names == ("head",)
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "b", label_map={"helmet": "hat"})
    assert records["train/one"]["labels"].tolist() == [0]
    assert RecordSet.open(tmp_path / "b").label_names == ("hat",)
    assert report.dropped_heads == {"label 'head' is not in the label map": ["train/one"]}
    with pytest.raises(ValueError, match=r"names 'hat', but .* has head, helmet"):
        yolo.conversion(raw_yolo.raw, name="own", label_map={"hat": "head"})


def test_yolo_clips_and_drops_with_counts(raw_yolo, tmp_path):
    labels = "0 0 0 0.5 0.5\n0 1.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.3\n0 0.5 0.5 0.1 -0.1\n"
    raw_yolo("train", "edge", labels)
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    np.testing.assert_array_equal(records["train/edge"]["boxes"], [[0, 0, 15, 10]])
    assert report.dropped_heads == {
        "box is outside the image": ["train/edge"],
        "box has no area": ["train/edge"] * 2,
    }
    assert report.notes["boxes clipped to the image"] == ["train/edge"]
    text = (tmp_path / "out" / "conversion.txt").read_text()
    assert "dropped heads: 3" in text
    assert "2 box has no area: train/edge" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "4 numbers, expected 5"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 numbers, expected 5 .* or a polygon"),
        ("0 0.1 0.1 0.2 0.2 0.9", "looks like a confidence"),
        ("0 0,5 0,5 0,1 0,1", "decimal comma"),
        ("0.5 0.5 0.5 0.5 0.5", "'0.5' is no whole number"),
        ("head 0.5 0.5 0.5 0.5", "the class, which comes first: 'head' is no number"),
        ("0 0.5 x 0.5 0.5", "'x' is no number"),
        ("2 0.5 0.5 0.5 0.5", "class 2, but data.yaml .* names 2 classes: 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", "class -1"),
        ("0 nan 0.5 0.5 0.5", "must be finite"),
        ("0 30 20 10 10", "look like pixels: divide"),
    ],
)
def test_yolo_malformed_line_is_named(raw_yolo, tmp_path, line, message):
    raw_yolo("valid", "bad", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(ValueError, match=message) as caught:
        convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert "bad.txt, line 2: " in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shape", "line", "box", "kind"),
    [
        ([2, 2], "0.5 0.5 0.2 0.2 0.45 0.45 0.55 0.45", [24, 16, 36, 24], "keypoints"),
        ([2, 3], "0.5 0.5 0.2 0.2 0.45 0.45 1 0.55 0.45 1", [24, 16, 36, 24], "keypoints"),
        ([2, 3], "0.5 0.5 0.2 0.2", [24, 16, 36, 24], ""),
        (None, "0.5 0.5 0.2 0.2 0.45 0.45 2 0.55 0.45 1", [24, 16, 36, 24], "keypoints"),
        (None, "0.5 0.5 0.2 0.2 0.45 0.45 1", [24, 16, 36, 24], "keypoints"),
        (None, "0.7 0.7 0.8 0.6 0.9 0.6 0.9 0.65", [42, 24, 54, 28], "polygon"),
        ([0, 0], "0.7 0.7 0.8 0.6 0.9 0.6 1 0.65 1 1", [42, 24, 60, 40], "polygon"),
    ],
)
def test_keypoints_and_polygons(raw_yolo, tmp_path, shape, line, box, kind):
    if shape:
        (raw_yolo.raw / "data.yaml").write_text(f"names: ['head']\nkpt_shape: {shape}\n")
    raw_yolo("train", "one", f"0 {line}\n")
    (raw_yolo.raw / "valid/labels/four.txt").write_text("")
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    np.testing.assert_allclose(records["train/one"]["boxes"], [box], rtol=1e-6)
    assert ("polygons that became their boxes" in report.notes) == (kind == "polygon")
    assert ("boxes whose keypoints are left out" in report.notes) == (kind == "keypoints")


@pytest.mark.parametrize(
    ("shape", "line", "message"),
    [
        ("[2, 2]", "0 0.5 0.5 0.2 0.2 0.4 0.4", r"7 numbers, expected 5 .*\[2, 2\].*, 9"),
        ("null", "0 0.7 0.7 0.8 0.6 0.9 0.6 1 0.65 1 1", r"kpt_shape: \[2, 3\].*\[0, 0\]"),
        ("[2, 4]", "", r"kpt_shape is \[2, 4\], expected"),
        ("two", "", "kpt_shape is 'two', expected"),
    ],
)
def test_what_could_be_keypoints_is_refused_with_a_cure(raw_yolo, tmp_path, shape, line, message):
    (raw_yolo.raw / "data.yaml").write_text(f"names: [head, helmet]\nkpt_shape: {shape}\n")
    raw_yolo("train", "one", line)
    with pytest.raises(ValueError, match=message):
        convert_yolo(raw_yolo.raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: ['head', 'helmet']", ["head", "helmet"]),
        ("names:\n- head\n- helmet\n", ["head", "helmet"]),
        ("names:\n  0: head\n  1: helmet\n", ["head", "helmet"]),
        ("names: [1, 2]", ["1", "2"]),
    ],
)
def test_yolo_names(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(text)
    assert yolo_layout.read_names(tmp_path / "data.yaml") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "no usable 'names'"),
        ("names: {1: head}", "no usable 'names'"),
        ("names: {0: head, 1: helmet, nc: 2}", "no usable 'names'"),
        ("names: []", "no usable 'names'"),
        ("names: [", "not valid YAML"),
        ("just words", "no usable 'names'"),
    ],
)
def test_yolo_bad_names(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        yolo_layout.read_names(tmp_path / "data.yaml")


def test_yolo_missing_parts(raw_yolo, tmp_path):
    with pytest.raises(FileNotFoundError, match="write one with a line such as names"):
        yolo.conversion(tmp_path, name="own")
    with pytest.raises(FileNotFoundError, match=r"No images .* for split 'night'"):
        yolo.conversion(raw_yolo.raw, name="own", splits=("night",))
    (tmp_path / "data.yaml").write_text("names: [head]")
    with pytest.raises(FileNotFoundError, match="No SPLIT/images and no images/SPLIT folder"):
        yolo.conversion(tmp_path, name="own", splits=())
    (raw_yolo.raw / "valid" / "images" / "four.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"OpenCV cannot decode.*four\.jpg"):
        convert_yolo(raw_yolo.raw, tmp_path / "out")


def test_a_data_set_without_label_files(raw_yolo):
    for path in raw_yolo.raw.glob("*/labels/*.txt"):
        path.rename(path.with_suffix(".text"))
    place = r"train/labels/empty\.txt"
    with pytest.raises(FileNotFoundError, match=f"None of 3 images of .*'train'.*{place}"):
        yolo.conversion(raw_yolo.raw, name="own")


def test_damaged_images_are_left_out_and_named(raw_yolo, tmp_path):
    one = raw_yolo.raw / "train" / "images" / "one.jpg"
    one.write_bytes(one.read_bytes()[:-400])
    (raw_yolo.raw / "train" / "images" / "empty.jpg").write_bytes(b"")
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert sorted(records) == ["train/unlabelled", "valid/four"]
    places = [place for found in report.dropped_images.values() for place in found]
    assert sorted(Path(place).name for place in places) == ["empty.jpg", "one.jpg"]
    assert "dropped images: 2" in report.text()


def test_hardhat_agrees_with_the_files(data_dir, tmp_path):
    raw = data_dir / "hardhat"
    if not raw.is_dir():
        pytest.skip(f"no Hard Hat at {raw}")
    _, records = convert_yolo(raw, tmp_path / "out", splits=("valid",))
    paths = sorted((raw / "valid" / "labels").glob("*.txt"))
    assert len(records) == len(paths)
    for path in paths:
        rows = np.loadtxt(path, ndmin=2).reshape(-1, 5)
        record = records[f"valid/{path.stem}"]
        height, width = record["image"].shape[:2]
        assert record["labels"].tolist() == rows[:, 0].tolist()
        x, y, w, h = (rows[:, 1:] * [width, height, width, height]).T
        expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
        np.testing.assert_allclose(record["boxes"], expected.reshape(-1, 4), atol=0.51)


# --- the command ----------------------------------------------------------------------------------


def command(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args(words))


def test_command_converts_and_reports(raw_yolo, tmp_path, capsys):
    words = ["yolo", "--raw", str(raw_yolo.raw), "--out", str(tmp_path / "sets" / "mine")]
    assert command(*words, "--label-map", "head=head,helmet=head", "--splits", "valid") == 0
    out = capsys.readouterr().out
    assert "mine 1.0.0, box rule 'head'" in out
    assert "valid: 1 images" in out
    assert RecordSet.open(tmp_path / "sets" / "mine").label_names == ("head",)
    assert command(*words) == 1
    assert "exists already: give --overwrite" in capsys.readouterr().err
    assert command(*words, "--overwrite") == 0


def test_command_starts_without_tensorflow_datasets():
    code = "import sys, data_prep.convert; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_command_errors_are_one_line(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert command("pointing04", "--raw", str(tmp_path / "no"), "--out", out) == 1
    assert command("pointing04", "--raw", str(tmp_path), "--out", out) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("mtnet data convert pointing04: ") for line in lines)
    (tmp_path / "mine").mkdir()
    with contextlib.chdir(tmp_path / "mine"):
        for place in (".", "..", str(tmp_path / "mine")):
            assert command("yolo", "--raw", str(tmp_path), "--out", place) == 1
            error = capsys.readouterr().err
            assert "is not a record set" in error
            assert "choose another --out" in error
            assert "give --overwrite" not in error
    with pytest.raises(SystemExit):
        command("yolo", "--raw", "a", "--out", "b", "--label-map", "nonsense")
    with pytest.raises(SystemExit):
        command("pointing04", "--raw", "a", "--out", "b", "--every", "0")
