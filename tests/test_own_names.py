"""Own data: names of images, label files, splits and sets as people write them."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from data_prep.own import coco, csv_heads, labelled, yolo
from mtnet_jax.cli import main
from tests.own_files import convert, write_image

NAMES = "names: [head]\n"
LINE = "0 .5 .5 .5 .5\n"


def yolo_files(raw: Path, files: dict[str, str | None]) -> Path:
    """Label files with their text, and images (None)."""
    raw.mkdir()
    (raw / "data.yaml").write_text(NAMES)
    for number, (name, text) in enumerate(files.items()):
        if text is None:
            write_image(raw / name, number)
        else:
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            (raw / name).write_text(text)
    return raw


@pytest.mark.parametrize("label", ["cam/img_1.txt", "cam/IMG_1.TXT", "Cam/Img_1.txt"])
def test_yolo_label_files_in_another_case(tmp_path, label):
    raw = yolo_files(
        tmp_path / "raw",
        {
            "train/images/cam/IMG_1.JPG": None,
            f"train/labels/{label}": LINE,
            "train/labels/lost.TXT": LINE,
        },
    )
    report, records = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert len(records["train/cam/IMG_1"]["boxes"]) == 1
    assert report.notes == {
        "label files without an image": [str(raw / "train/labels/lost.TXT")],
    }


def test_a_label_file_of_another_image_is_not_taken(tmp_path):
    files = {"train/images/A.jpg": None, "train/images/a.png": None, "train/labels/A.txt": LINE}
    raw = yolo_files(tmp_path / "raw", files)
    report, records = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert {name: len(record["boxes"]) for name, record in records.items()} == {
        "train/A": 1,
        "train/a": 0,
    }
    assert report.notes == {"images without a label file (kept, no heads)": ["train/a"]}


def test_yolo_images_in_the_folder_of_no_split_are_counted(tmp_path):
    raw = yolo_files(
        tmp_path / "raw",
        {
            "images/train/a.jpg": None,
            "labels/train/a.txt": LINE,
            "images/loose.jpg": None,
            "valid/Images/b.jpg": None,
            "__MACOSX/images/train/._a.jpg": "left by a Mac",
        },
    )
    report, records = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert set(records) == {"train/a"}
    outside = "images that lie in the folder of no split"
    assert report.notes.counts == {outside: 2}
    (raw / "images" / "loose.jpg").rename(raw / "images" / "train" / "loose.jpg")
    (raw / "valid" / "Images").rename(raw / "valid" / "images")
    made = yolo.conversion(raw, name="own", splits=("train",))
    assert len(made.splits["train"]) == 2
    assert not made.notes  # a split that is left out by an option


def test_names_of_files_that_are_not_utf8_can_be_reported(tmp_path, capsys):
    raw = yolo_files(tmp_path / "raw", {"train/images/a.jpg": None, "train/labels/a.txt": LINE})
    for folder, content in (("train/images", b"no image"), ("train/labels", b""), ("", b"")):
        (raw / folder / os.fsdecode(b"\xe9.jpg")).write_bytes(content)
    (raw / "train" / "labels" / os.fsdecode(b"\xe8.txt")).write_text(LINE)
    assert main(["data", "convert", "yolo", "--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "the image cannot be read: OpenCV" in said
    assert f"{raw}/train/images/\\udce9.jpg" in said
    assert f"1 label files without an image: {raw}/train/labels/\\udce8.txt" in said
    for file in ("conversion.txt", "conversion.json", "conversion.html"):
        assert "udce9.jpg" in (tmp_path / "out" / file).read_text(encoding="utf-8")


def test_links_to_images_beside_the_splits_are_no_images_outside(tmp_path):
    files = {"pool/a.jpg": None, "train/labels/a.txt": LINE, "pool2/b.jpg": None}
    raw = yolo_files(tmp_path / "raw", files | {"valid/labels/b.txt": LINE})
    (raw / "train" / "images").mkdir()
    (raw / "train" / "images" / "a.jpg").symlink_to(raw / "pool" / "a.jpg")
    (raw / "valid" / "images").symlink_to(raw / "pool2")
    assert not yolo.conversion(raw, name="own").notes


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("summer/a.jpg", "Summer/A.JPG"),
        ("Sommer Fest/a b.jpg", "sommer%20fest/a%20b.jpg"),
        (unicodedata.normalize("NFD", "été.jpg"), unicodedata.normalize("NFC", "été.jpg")),
    ],
)
def test_images_are_found_by_names_in_another_case(tmp_path, file, label):
    write_image(tmp_path / "raw" / file)
    table = tmp_path / "raw" / "heads.csv"
    table.write_text(f"image,x1,y1,x2,y2\n{label},1,2,30,40\n", encoding="utf-8")
    _, records = convert(csv_heads.conversion(tmp_path / "raw", table, name="own"), tmp_path / "o")
    assert len(records[label]["boxes"]) == 1


def test_images_outside_the_folder_have_an_id_below_one(tmp_path):
    write_image(tmp_path / "beside" / "a.jpg")
    (tmp_path / "raw").mkdir()
    table = tmp_path / "raw" / "heads.csv"
    rows = f"../beside/a.jpg,1,2,30,40\n{tmp_path}/beside/a.jpg,1,2,30,40\n".splitlines()
    for number, row in enumerate(rows):
        table.write_text(f"image,x1,y1,x2,y2\n{row}\n")
        out = tmp_path / f"out{number}"
        convert(csv_heads.conversion(tmp_path / "raw", table, name="own"), out)
        assert main(["data", "images", str(out), "--out", str(tmp_path / "files")]) == 0


def coco_split(raw: Path, name: str) -> coco.Split:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 20]}],
        "categories": [{"id": 1, "name": "head"}],
    }
    write_image(raw / "a.jpg")
    (raw / f"{name}.json").write_text(json.dumps(content))
    return coco.Split(raw / f"{name}.json", raw)


def test_an_image_in_two_splits_is_told(tmp_path):
    splits = {name: coco_split(tmp_path / "raw", name) for name in ("train", "test")}
    report, _ = convert(coco.conversion(splits, name="own"), tmp_path / "out")
    place = "train/a.jpg (train) and test/a.jpg (test)"
    assert report.notes == {"WARNING: images in more than one split, byte for byte": [place]}
    made = coco.conversion({"train": splits["train"]}, name="own")
    assert not convert(made, tmp_path / "one")[0].notes


def test_a_copy_of_an_image_in_another_split_is_told(tmp_path):
    files = {f"{split}/labels/{split}.txt": LINE for split in ("train", "valid")}
    raw = yolo_files(tmp_path / "raw", files)
    write_image(raw / "train" / "images" / "train.jpg")
    write_image(raw / "valid" / "images" / "valid.jpg")
    report, _ = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert list(report.notes.values()) == [["train/train (train) and valid/valid (valid)"]]


def test_splits_that_differ_in_case_are_refused(tmp_path):
    splits = {name: coco_split(tmp_path, name) for name in ("train", "Train")}
    with pytest.raises(ValueError, match="'train' and 'Train' differ in case alone: give them"):
        coco.conversion(splits, name="own")


@pytest.mark.parametrize("name", ["my/set", "my\\set", "a\nb"])
def test_names_of_sets_that_are_no_names_of_files(tmp_path, name):
    with pytest.raises(ValueError, match=r"the name of the record set, .*--name"):
        coco.conversion({"train": coco_split(tmp_path, "train")}, name=name)


def test_a_head_twice_is_one_in_every_count(tmp_path):
    write_image(tmp_path / "a.jpg")
    rows = "a.jpg,-5,2,30,40,1\n" * 3
    (tmp_path / "heads.csv").write_text(f"image,x1,y1,x2,y2,ignore\n{rows}")
    made = csv_heads.conversion(tmp_path, tmp_path / "heads.csv", name="own")
    report, _ = convert(made, tmp_path / "out")
    assert (report.ignored_heads.total, report.dropped_heads.total, report.notes.total) == (1, 2, 1)


@pytest.mark.parametrize(
    "name",
    [
        "C:\\Users\\ann\\a.jpg",
        "d:/photos/a.jpg",
        "/home/ann of elsewhere/a.jpg",
        "\\\\server\\share\\a.jpg",
        "//server/share/a.jpg",
    ],
)
def test_absolute_paths_of_another_machine_have_a_cure(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads.csv").write_text(f"image,x1,y1,x2,y2\n{name},1,2,30,40\n")
    split = coco_split(tmp_path, "t")
    content = (tmp_path / "t.json").read_text()
    (tmp_path / "t.json").write_text(content.replace("a.jpg", name.replace("\\", "\\\\")))
    said = r"1 of 1 images are named by absolute paths of another machine, .*write paths below"
    for raw in (tmp_path, Path()):
        with pytest.raises(FileNotFoundError, match=said):
            csv_heads.conversion(raw, tmp_path / "heads.csv", name="own")
        with pytest.raises(FileNotFoundError, match=said):
            coco.conversion({"t": coco.Split(split.annotations, raw)}, name="own")


def test_missing_images_of_this_machine_are_named(tmp_path):
    """By paths below the folder, or by absolute ones of which others lead to an image."""
    write_image(tmp_path / "beside" / "a.jpg")
    raw = tmp_path / "raw"
    raw.mkdir()
    for lost in (f"{raw}/b.jpg", "../beside/b.jpg", f"{tmp_path}/beside/b.jpg"):
        rows = f"{tmp_path}/beside/a.jpg,1,2,30,40\n{lost},1,2,30,40\n"
        (raw / "heads.csv").write_text(f"image,x1,y1,x2,y2\n{rows}")
        said = r"1 of 2 images are missing: .*b\.jpg\. Copy them there, .*--allow-missing"
        with pytest.raises(FileNotFoundError, match=said):
            csv_heads.conversion(raw, raw / "heads.csv", name="own")


def test_two_links_to_an_image_are_two_names_of_it(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "heads.csv").write_text("image,x1,y1,x2,y2\na.jpg,1,2,30,40\nb.jpg,1,2,30,40\n")
    with pytest.raises(ValueError, match=r"'a.jpg' and 'b.jpg' are one image, .*in one way"):
        csv_heads.conversion(tmp_path, tmp_path / "heads.csv", name="own")


@pytest.mark.parametrize("patience", [0, 60])
def test_a_list_that_takes_long_is_counted(tmp_path, capsys, monkeypatch, patience):
    monkeypatch.setattr(labelled, "_PATIENCE", patience)
    raw = yolo_files(tmp_path / "raw", {"train/images/a.jpg": None, "train/labels/a.txt": LINE})
    (raw / "heads.csv").write_text("image,x1,y1,x2,y2\ntrain/images/a.jpg,1,2,30,40\n")
    split = coco_split(tmp_path / "coco", "train")
    for convert_own in (
        lambda: yolo.conversion(raw, name="own"),
        lambda: csv_heads.conversion(raw, raw / "heads.csv", name="own"),
        lambda: coco.conversion({"train": split}, name="own"),
    ):
        convert_own()
        assert ("list: 100%" in capsys.readouterr().err) == (patience == 0)


def test_labels_are_small(tmp_path):
    """Of a million images each attribute that has a dictionary counts."""
    table = tmp_path / "heads.csv"
    table.write_text("image,x1,y1,x2,y2\na.jpg,1,2,30,40\n")
    write_image(tmp_path / "a.jpg")
    made = csv_heads.conversion(tmp_path, table, name="own")
    (image,) = made.splits["train"]
    items = [image, *image.heads, yolo.Item("a", tmp_path, tmp_path)]
    assert not any(hasattr(item, "__dict__") for item in items)
