"""YOLO data sets as labelling tools lay them out, and what splits them."""

from pathlib import Path

import pytest

from data_prep.own import yolo, yolo_layout
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import BadInput, MissingFile
from tests.own_files import convert, write_image

LINE = "1 .5 .5 .5 .5\n"


def write_files(raw: Path, *files: str) -> Path:
    """Images, label files with a line, and classes.txt with two names."""
    for number, name in enumerate(files):
        if not name.endswith(".txt"):
            write_image(raw / name, number)
            continue
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_text("head\nhelmet\n" if name.endswith("classes.txt") else LINE)
    return raw


@pytest.mark.parametrize("classes", ["classes.txt", "labels/classes.txt"])
def test_images_and_labels_without_splits_are_train(tmp_path, classes):
    raw = write_files(tmp_path / "raw", classes, "images/a.jpg", "images/b.jpg", "labels/a.txt")
    report, records = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert {name: record["labels"].tolist() for name, record in records.items()} == {
        "train/a": [1],
        "train/b": [],
    }
    assert RecordSet.open(tmp_path / "out").label_names == ("head", "helmet")
    assert list(report.notes) == ["images without a label file (kept, no heads)"]


def test_a_data_yaml_comes_before_classes_txt(tmp_path):
    write_files(tmp_path, "classes.txt")
    assert yolo_layout.names_file(tmp_path).name == "classes.txt"
    (tmp_path / "data.yaml").write_text("names: [a]")
    assert yolo_layout.names_file(tmp_path).name == "data.yaml"


@pytest.mark.parametrize("text", ["", "\n\n", "head\n\nhelmet\n"])
def test_a_classes_txt_without_names_is_refused(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(BadInput, match=r"classes\.txt has no usable names: .* one a line"):
        yolo_layout.read_names(tmp_path / "classes.txt")


def test_a_split_without_any_label_file_is_refused(tmp_path):
    train = ("train/images/a.jpg", "train/labels/a.txt")
    raw = write_files(tmp_path, "classes.txt", *train, "valid/images/b.jpg", "valid/images/c.jpg")
    place = r"'valid' has a label file: .*valid/images/b\.jpg should be .*valid/labels/b\.txt\. An"
    with pytest.raises(MissingFile, match=f"None of 2 images of the split {place}.*--splits"):
        yolo.conversion(raw, name="own")
    assert set(yolo.conversion(raw, name="own", splits=("train",)).splits) == {"train"}
    write_files(raw, "valid/images/c.txt")
    with pytest.raises(MissingFile, match=r"\.txt files lie beside the images: move them there"):
        yolo.conversion(raw, name="own")


def people(folder: str = "") -> list[str]:
    """Three people with two images each, in folders of their own."""
    names = [f"{folder}{person}/{number}" for person in ("ann", "bob", "cid") for number in (1, 2)]
    files = [f"images/{name}.jpg" for name in names]
    return ["classes.txt", *files, *(f"labels/{name}.txt" for name in names)]


FLAT = ("images/a.jpg", "labels/a.txt")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (people(), {f"train/{person}/{n}" for person in ("ann", "bob", "cid") for n in (1, 2)}),
        # Flat images beside a folder, whose images have labels or none.
        (["classes.txt", *FLAT, "images/c2/b.jpg", "labels/c2/b.txt"], {"train/a", "train/c2/b"}),
        (["classes.txt", *FLAT, "images/c2/b.jpg"], {"train/a", "train/c2/b"}),
    ],
)
def test_folders_that_are_called_otherwise_than_splits_are_none(tmp_path, files, expected):
    raw = write_files(tmp_path / "raw", *files)
    report, records = convert(yolo.conversion(raw, name="own"), tmp_path / "out")
    assert set(records) == expected
    assert sum(len(record["boxes"]) for record in records.values()) == sum(
        name.startswith("labels/") for name in files
    )
    assert set(report.notes) <= {"images without a label file (kept, no heads)"}
    shared = yolo.conversion(raw, name="own", test_share=0.3)  # the same images
    ids = [item.image_id.split("/", 1)[1] for items in shared.splits.values() for item in items]
    assert sorted(ids) == sorted(name.removeprefix("train/") for name in expected)


@pytest.mark.parametrize("split", ["train2017", "Valid", "test-day", "dev"])
def test_a_folder_that_is_called_as_a_split_makes_all_folders_splits(tmp_path, split):
    files = [name.replace("ann", split) for name in people()]
    made = yolo.conversion(write_files(tmp_path, *files, *FLAT), name="own")
    assert set(made.splits) == {split, "bob", "cid"}
    assert made.notes == [
        ("images that lie in the folder of no split", str(tmp_path / "images/a.jpg"), 1)
    ]


def test_folders_that_are_named_are_splits(tmp_path):
    raw = write_files(tmp_path, *people(), *FLAT)
    made = yolo.conversion(raw, name="own", splits=("ann", "bob"))
    assert {name: len(items) for name, items in made.splits.items()} == {"ann": 2, "bob": 2}
    assert not made.notes  # the others are left out on purpose
    made = yolo.conversion(raw, name="own", splits=("train",))
    assert len(made.splits["train"]) == 7


@pytest.mark.parametrize("test_share", [None, 0.3])
def test_a_split_that_is_left_out_on_purpose_is_not_told(tmp_path, test_share):
    rest = ("images/valid/x.jpg", "labels/valid/x.txt", *FLAT)
    raw = write_files(tmp_path, *people("train/"), *rest)
    made = yolo.conversion(raw, name="own", splits=("train",), test_share=test_share)
    outside = ("images that lie in the folder of no split", str(raw / "images/a.jpg"), 1)
    assert made.notes == [outside]


@pytest.mark.parametrize("folder", ["", "train/"])
def test_a_share_of_the_folders_is_the_test_split(tmp_path, folder):
    raw = write_files(tmp_path / "raw", *people(folder))
    words = ["data", "convert", "yolo", "--raw", str(raw), "--out", str(tmp_path / "out")]
    assert main([*words, "--processes", "1", "--test-share", "0.3"]) == 0
    assert RecordSet.open(tmp_path / "out").splits == {"train": 4, "test": 2}
    made = yolo.conversion(raw, name="own", test_share=0.3)
    for split, items in made.splits.items():
        assert all(item.image_id.startswith(f"{split}/") for item in items)
    of = {split: {item.image.parent for item in items} for split, items in made.splits.items()}
    assert not of["train"] & of["test"]


def test_what_cannot_be_shared_out_is_refused(tmp_path):
    raw = write_files(tmp_path / "a", "classes.txt", "images/a.jpg", "labels/a.txt")
    with pytest.raises(BadInput, match=r"of one group \('\.'\).*a folder of its own there"):
        yolo.conversion(raw, name="own", test_share=0.3)
    files = [name.replace("ann", "train").replace("bob", "valid") for name in people()]
    raw = write_files(tmp_path / "b", *files)
    with pytest.raises(BadInput, match="has the splits train, cid, valid: leave --test-share out"):
        yolo.conversion(raw, name="own", test_share=0.3)
