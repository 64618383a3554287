"""Groups of own images: which of them become the split `test`, and how they are told apart."""

import itertools
import json
import os
from pathlib import Path

import pytest

from data_prep.own import coco, csv_heads, yolo
from data_prep.own.groups import folder_of, splits_by_folder
from mtnet_jax.cli import main
from mtnet_jax.errors import BadRecord, MissingFile
from tests.own_files import convert, write_image

FOLDERS = ("ann", "bob", "cid", "dan")
NAMES = [f"{folder}/{number}.jpg" for folder in FOLDERS for number in (1, 2)]


def csv_of(raw: Path, names, **options):
    rows = "\n".join(f"{name},1,2,30,40" for name in names)
    (raw / "heads.csv").write_text(f"image,x1,y1,x2,y2\n{rows}\n")
    return csv_heads.conversion(raw, raw / "heads.csv", name="own", test_share=0.3, **options)


def coco_of(raw: Path, names, **options):
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    content = {
        "images": images,
        "annotations": [
            {"image_id": image["id"], "category_id": 1, "bbox": [1, 2, 29, 38]} for image in images
        ],
        "categories": [{"id": 1, "name": "head"}],
    }
    (raw / "t.json").write_text(json.dumps(content))
    split = coco.Split(raw / "t.json", raw)
    return coco.conversion({"all": split}, name="own", test_share=0.3, **options)


def folders_of(made) -> dict[str, set[str]]:
    return {split: {p.path.parent.name for p in images} for split, images in made.splits.items()}


@pytest.mark.parametrize("make", [csv_of, coco_of])
@pytest.mark.parametrize("there", list(itertools.combinations(FOLDERS, 2)))
def test_the_test_split_is_chosen_among_images_that_are_there(tmp_path, make, there):
    """The same as if the labels named no others; those are left out and counted in train."""
    for number, name in enumerate(NAMES):
        if name.split("/")[0] in there:
            write_image(tmp_path / name, number)
    expected = folders_of(make(tmp_path, [n for n in NAMES if n.split("/")[0] in there]))
    made = make(tmp_path, NAMES, allow_missing=True)
    assert folders_of(made)["test"] == expected["test"]
    assert folders_of(made)["train"] == set(FOLDERS) - expected["test"]
    report, records = convert(made, tmp_path / "out")
    assert len(records) == 4
    assert report.dropped_images.counts == {"the image is missing": 4}


@pytest.mark.parametrize("make", [csv_of, coco_of])
def test_without_any_image_there_is_nothing_to_share_out(tmp_path, make):
    with pytest.raises(MissingFile, match=r"none of 8 images is there, such as .*ann/1\.jpg"):
        make(tmp_path, NAMES, allow_missing=True)


def test_folders_whose_names_are_no_utf8_are_named(tmp_path, capsys):
    raw = tmp_path / "raw"
    (raw / "labels").mkdir(parents=True)
    (raw / "classes.txt").write_text("head")
    for number, person in enumerate((os.fsdecode(b"\xe9"), "bob")):
        write_image(raw / "images" / person / "a.jpg", number)
        (raw / "labels" / person).mkdir()
        (raw / "labels" / person / "a.txt").write_text("0 .5 .5 .5 .5\n")
    made = yolo.conversion(raw, name="own", test_share=0.5)
    assert {split: len(items) for split, items in made.splits.items()} == {"train": 1, "test": 1}
    with pytest.raises(BadRecord, match="field 'image_id': is not UTF-8: rename the file"):
        convert(made, tmp_path / "out")
    words = ["data", "convert", "yolo", "--raw", str(raw), "--out", str(tmp_path / "out")]
    assert main([*words, "--processes", "1", "--test-share", "0.5"]) == 1
    assert "udce9" in capsys.readouterr().err


def test_one_folder_is_one_group_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("raw/a", "raw/b", "beside"):
        (tmp_path / folder).mkdir(parents=True)
    raw = Path("raw")
    for written in ("b/2.jpg", "a/../b/1.jpg", "./b/3.jpg", f"{tmp_path}/raw/b/4.jpg"):
        for folder in (raw, tmp_path / "raw", tmp_path / "beside" / ".." / "raw"):
            assert folder_of(folder / written, folder) == "b"
    outside = [raw / "../beside/1.jpg", tmp_path / "beside" / "2.jpg"]
    assert len({folder_of(path, raw) for path in outside}) == 1
    assert folder_of(raw / "1.jpg", raw) == "."
    names = ("a/1.jpg", "b/1.jpg", "a/../b/2.jpg", f"{tmp_path}/raw/b/3.jpg")
    images = [raw / name for name in names]
    for path in images:
        path.write_bytes(b"")
    first, *others = splits_by_folder(images, raw, 0.5)
    assert {first, *others} == {"train", "test"}
    assert len(set(others)) == 1
