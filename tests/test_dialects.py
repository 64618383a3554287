"""Own data as labelling tools write it: what is understood in one format is understood in all."""

import json

import cv2
import numpy as np
import pytest

from data_prep.own import coco, csv_heads, dialects, yolo_layout
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import radians_warning

SIZE = 64
YOLO_LINE = "0 0.5 0.5 0.25 0.5"
BOX = [24.0, 16.0, 40.0, 48.0]  # the same in pixels


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, noise)[1].tobytes())


def convert(kind, raw, out, *options) -> int:
    words = ["data", "convert", kind, "--raw", raw, "--out", out, "--processes", "1", *options]
    return main([str(word) for word in words])


def records(out, split="train"):
    source = RecordSource(out, split)
    return {record["image_id"]: record for record in (source[i] for i in range(len(source)))}


@pytest.fixture
def yolo_set(tmp_path):
    """Writes a data set of one image with these labels; returns its folder."""

    def write(labels, names="names: ['head']"):
        raw = tmp_path / "raw"
        image(raw / "train/images/a.jpg")
        (raw / "train/labels").mkdir(exist_ok=True)
        (raw / "train/labels/a.txt").write_bytes(
            labels if isinstance(labels, bytes) else labels.encode()
        )
        (raw / "data.yaml").write_text(names)
        return raw

    return write


@pytest.mark.parametrize(
    "labels",
    [
        YOLO_LINE,
        "\ufeff" + YOLO_LINE,
        YOLO_LINE.encode("utf-16"),
        YOLO_LINE.replace(" ", "\t") + "\r\n\r\n",
        YOLO_LINE.replace(" ", ","),
        YOLO_LINE.replace(" ", ", "),
        YOLO_LINE.replace(" ", ";"),
        "0.0 5.0e-01 .5 0.25 0.5",
        "0 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75",
        "0 0.375 0.75 0.5 0.25 0.625 0.5",
        YOLO_LINE + " 0.4 0.4 2 0.6 0.4 1",
        YOLO_LINE + "\n" + YOLO_LINE,
    ],
    ids=lambda labels: None,
)
def test_yolo_dialects_say_the_same(yolo_set, tmp_path, labels):
    assert convert("yolo", yolo_set(labels), tmp_path / "out") == 0
    np.testing.assert_allclose(records(tmp_path / "out")["train/a"]["boxes"], [BOX], atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (YOLO_LINE + " 0.93", "looks like a confidence"),
        ("0 0,5 0,5 0,25 0,5", "'0,5' has a decimal comma"),
        (b"\xe9 0.5 0.5 0.25 0.5", "a.txt, line 1: byte 0 is not utf-8"),
        ("0 0.5 0.5 0.25", "4 numbers, expected 5"),
        ("1 0.5 0.5 0.25 0.5", "class 1, but data.yaml (or classes.txt) names 1"),
    ],
)
def test_yolo_lines_that_mean_something_else_are_named(yolo_set, tmp_path, capsys, labels, said):
    assert convert("yolo", yolo_set(labels), tmp_path / "out") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert "a.txt" in error


@pytest.mark.parametrize("layout", ["train/{}", "{}/train"])
def test_yolo_layouts_folders_in_folders_and_formats(tmp_path, capsys, layout):
    raw = tmp_path / "raw"
    images, labels = (raw / layout.format(part) for part in ("images", "labels"))
    for name in ("a.JPG", "cam2/b.jpg", "cam2/c.tif", "cam 3/deep/d.gif", "same.png", "same.bmp"):
        image(images / name)
        text = (labels / name).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(YOLO_LINE)
    (images / "._a.jpg").write_bytes(b"x")
    (labels / "lost.txt").write_text(YOLO_LINE)
    (labels / "classes.txt").write_text("head")
    (raw / "data.yaml").write_text("names: {0: head}")
    assert convert("yolo", raw, tmp_path / "out") == 0
    found = records(tmp_path / "out")
    assert sorted(found) == [
        f"train/{name}"
        for name in ("a", "cam 3/deep/d", "cam2/b", "cam2/c", "same.bmp", "same.png")
    ]
    assert all(len(record["boxes"]) == 1 for record in found.values())
    said = capsys.readouterr().out
    assert "1 files left out: hidden or of another system" in said
    assert "1 label files without an image" in said
    assert "3 images stored anew" in said


def test_a_split_in_both_layouts_is_refused(tmp_path, yolo_set):
    raw = yolo_set(YOLO_LINE)
    image(raw / "images/train/b.jpg")
    with pytest.raises(BadInput, match=r"train/images and images/train"):
        yolo_layout.find_splits(raw)


def coco_file(**changes):
    content = {
        "images": [{"id": 1, "file_name": "sub/a.jpg", "width": SIZE, "height": SIZE}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [24, 16, 16, 32]}],
        "categories": [{"id": 1, "name": "head"}],
    }
    for key, value in changes.items():
        field, _, name = key.partition("__")
        content[field][0][name] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "content",
    [
        coco_file(),
        "\ufeff" + coco_file(),
        coco_file(images__file_name="sub\\\\a.jpg".replace("\\\\", "\\")),
        coco_file(images__file_name=".\\sub\\A.JPG"),
        coco_file(images__file_name="sub/%61.jpg"),
        coco_file(images__id="1"),
        coco_file(annotations__category_id=1.0),
        coco_file(categories__id="1"),
        coco_file(images__width=64.0),
        coco_file(annotations__bbox=["24", "16.0", 16, 32]),
        coco_file(annotations__iscrowd=False),
        coco_file(annotations__euler_angles=[]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_coco_dialects_say_the_same(tmp_path, content, encoding):
    raw = tmp_path / "raw"
    image(raw / "sub/a.jpg")
    (raw / "train.json").write_bytes(content.removeprefix("\ufeff").encode(encoding))
    images = coco.read_coco(coco.Split(raw / "train.json", raw), "train", convention=None)
    assert [p.path for p in images] == [raw / "sub/a.jpg"]
    assert [list(h.box) for h in images[0].heads] == [BOX]
    assert images[0].heads[0].ignore == ""


TABLE = "image,x1,y1,x2,y2,ignore\nsub/a.jpg,24,16,40,48,0\n"


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        "\ufeff" + TABLE,
        TABLE.replace("sub/a.jpg", ".\\sub\\a.jpg"),
        TABLE.replace("sub/a.jpg", "sub/A.JPG"),
        TABLE.replace("image,x1", "Image, X1"),
        TABLE.replace(",0\n", ",0.0\n"),
        TABLE.replace(",0\n", ",False\n"),
        TABLE.replace(",0\n", ",nan\n"),
        TABLE.replace("24,16", "24.0,16.0"),
        ",image,x1,y1,x2,y2\n0,sub/a.jpg,24,16,40,48\n",
        TABLE.replace("\n", "\r\n"),
    ],
)
def test_csv_dialects_say_the_same(tmp_path, table):
    raw = tmp_path / "raw"
    image(raw / "sub/a.jpg")
    (raw / "heads.csv").write_bytes(table.encode())
    rows = csv_heads.read_table(raw / "heads.csv")
    (labelled,) = csv_heads._images(rows, raw).values()
    assert labelled.path == raw / "sub/a.jpg"
    assert [list(h.box) for h in labelled.heads] == [BOX]
    assert not labelled.heads[0].ignore


@pytest.mark.parametrize("word", ["1", "1.0", "True", "yes", "TRUE"])
def test_flags(word):
    assert dialects.flag(word, "here")
    with pytest.raises(BadInput, match="here"):
        dialects.flag("perhaps", "here")


def test_columns_and_cells_that_mean_something_else_are_named(tmp_path):
    path = tmp_path / "heads.csv"
    for text, said in (
        ("image,x1,y1,x2,y2,score\na.jpg,1,2,3,4,0.9\n", "'score' is a confidence"),
        ('image,x1,y1,x2,y2\na.jpg,"46,5",2,99,99\n', "decimal comma"),
        ("image;x1;y1;x2;y2\na.jpg;1;2;3;4\n", "semicolons"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=said):
            csv_heads.read_table(path)


@pytest.mark.parametrize(
    ("angles", "warned"),
    [
        ([(0.52, -0.09, 0.0), (-0.4, 0.1, 0.02)], "0.52"),
        ([(3.1, 0.2, 0.1)], "3.1"),
        ([(30.0, -5.0, 0.0)], ""),
        ([(0.0, 0.0, 0.0)], ""),
        ([(1.0, 2.0, -3.0)], ""),
        ([], ""),
    ],
)
def test_radians_in_a_column_of_degrees_draw_a_warning(angles, warned):
    said = radians_warning(angles)
    assert (warned in said) if warned else (said == "")


def test_a_table_of_radians_and_images_it_does_not_name_are_told(tmp_path, capsys):
    raw = tmp_path / "raw"
    image(raw / "a.jpg")
    image(raw / "b.jpg", 1)
    (raw / "heads.csv").write_text(
        "image,x1,y1,x2,y2,yaw,pitch,roll,convention\na.jpg,24,16,40,48,0.52,0.1,0,Canonical\n"
    )
    assert convert("csv", raw, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "WARNING: angles are read as degrees, and the largest of 3 is 0.52" in said
    assert "1 images that no label file names" in said
