"""Own data as CSV tables: the splits and groups of images."""

import pytest

from data_prep.own import csv_heads
from tests.own_files import convert, write_image


@pytest.fixture
def raw_csv(tmp_path):
    """`raw_csv(text)` writes a table beside two images; gives the folder and the table."""

    def write(text: str):
        raw = tmp_path / "raw"
        for name in ("Jürgen B/im Garten.jpg", "a/empty.jpg"):
            write_image(raw / name, len(name))
        (raw / "heads.csv").write_text(text, encoding="utf-8")
        return raw, raw / "heads.csv"

    return write


def test_csv_split_column(raw_csv, tmp_path):
    text = (
        "image,x1,y1,x2,y2,split\na/empty.jpg,1,2,30,40,night\n"
        "a/empty.jpg,5,2,30,40,night\nJürgen B/im Garten.jpg,5,2,30,40,train\n"
    )
    files = raw_csv(text)
    _, records = convert(csv_heads.conversion(*files, name="own"), tmp_path / "out")
    assert {name: record["split"] for name, record in records.items()} == {
        "a/empty.jpg": "night",
        "Jürgen B/im Garten.jpg": "train",
    }
    with pytest.raises(ValueError, match="leave --test-share out"):
        csv_heads.conversion(*files, name="own", test_share=0.5)
    with pytest.raises(ValueError, match=r"line 3, column 'split': 'day', .* says 'night'"):
        csv_heads.conversion(*raw_csv(text.replace("5,2,30,40,night", "5,2,30,40,day")), name="own")
    with pytest.raises(ValueError, match=r"line 4, column 'split': empty"):
        csv_heads.conversion(*raw_csv(text.replace(",train", ",")), name="own")
    header, *rows = text.replace(",train", ",").splitlines()
    grouped = "\n".join([f"{header},group", *(f"{row},ann" for row in rows)])
    with pytest.raises(ValueError, match=r"line 4, column 'split': empty"):
        csv_heads.conversion(*raw_csv(grouped), name="own")  # a group with and without a split


def split_names(conversion) -> dict[str, set[str]]:
    return {
        split: {image.image_id for image in images} for split, images in conversion.splits.items()
    }


def test_csv_test_share_keeps_groups_together(tmp_path):
    rows = [f"p{i % 20}/{i}.jpg,1,2,30,40" for i in range(200)]
    for i in range(200):
        path = tmp_path / f"p{i % 20}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    def split(lines, share=0.1):
        (tmp_path / "heads.csv").write_text("image,x1,y1,x2,y2\n" + "\n".join(lines))
        return split_names(
            csv_heads.conversion(tmp_path, tmp_path / "heads.csv", name="own", test_share=share)
        )

    found = split(rows)
    folders = {name: {image.split("/")[0] for image in images} for name, images in found.items()}
    assert len(folders["test"]) == 2
    assert len(folders["train"]) == 18
    assert not folders["test"] & folders["train"]
    assert split(rows[::-1]) == found
    # A small share still gives a test split, a large one leaves something to learn from.
    few = [row for row in rows if row.startswith(("p1/", "p2/"))]
    for share in (0.01, 0.99):
        assert {name: len(images) for name, images in split(few, share).items()} == {
            "train": 10,
            "test": 10,
        }
    with pytest.raises(ValueError, match=r"one group .*: add a column 'group'"):
        split([row for row in rows if row.startswith("p3/")])


def test_csv_groups_by_column(tmp_path):
    lines = ["image,x1,y1,x2,y2,group"]
    for i in range(40):
        write_image(tmp_path / f"{i}.jpg", size=(8, 8))
        lines.append(f"{i}.jpg,1,2,30,40,person {i % 4}")
    table = tmp_path / "heads.csv"
    table.write_text("\n".join(lines))
    found = split_names(csv_heads.conversion(tmp_path, table, name="own", test_share=0.25))
    assert len(found["test"]) == 10
    assert len({int(name.split(".")[0]) % 4 for name in found["test"]}) == 1
    table.write_text("\n".join([*lines, "1.jpg,1,2,30,40,person 3"]))
    with pytest.raises(ValueError, match=r"line 42, column 'group': 'person 3', .* 'person 1'"):
        csv_heads.conversion(tmp_path, table, name="own", test_share=0.25)
    table.write_text("\n".join(lines[::4]))
    cure = r"one group \('person 3'\).*: name whoever is in the image in the column 'group', or"
    with pytest.raises(ValueError, match=cure):
        csv_heads.conversion(tmp_path, table, name="own", test_share=0.25)


def test_csv_empty_groups_have_a_cure_that_works(raw_csv):
    files = raw_csv("image,x1,y1,x2,y2,group\na/empty.jpg,1,2,30,40,\n")
    with pytest.raises(ValueError, match="line 2, column 'group': empty, and every row needs"):
        csv_heads.conversion(*files, name="own", test_share=0.5)
    rows = "a/empty.jpg,1,2,30,40\nJürgen B/im Garten.jpg,1,2,30,40\n"
    files = raw_csv(f"image,x1,y1,x2,y2\n{rows}")
    made = csv_heads.conversion(*files, name="own", test_share=0.5)
    assert set(made.splits) == {"train", "test"}


def test_csv_a_group_in_two_splits_is_refused(raw_csv):
    lines = ["image,x1,y1,x2,y2,split,group", "a/empty.jpg,1,2,30,40,train,ann"]
    lines += ["Jürgen B/im Garten.jpg,1,2,30,40,test,ann"]
    place = "line 3, column 'split': 'test', but .*line 2 has the same group 'ann' in 'train'"
    with pytest.raises(ValueError, match=place):
        csv_heads.conversion(*raw_csv("\n".join(lines)), name="own")
    for group in ("bob", ""):  # somebody else, or nobody known
        lines[2] = f"Jürgen B/im Garten.jpg,1,2,30,40,test,{group}"
        made = csv_heads.conversion(*raw_csv("\n".join(lines)), name="own")
        assert set(made.splits) == {"train", "test"}


def test_csv_groups_are_the_folders_as_the_files_lie(tmp_path):
    """Whatever the case in which a table names them."""
    lines = ["image,x1,y1,x2,y2"]
    for folder in ("Ann", "Bob", "Cid"):
        for number, written in enumerate((folder, folder.lower(), folder.upper())):
            write_image(tmp_path / folder / f"{number}.jpg", size=(8, 8))
            lines.append(f"{written}/{number}.jpg,1,2,30,40")
    (tmp_path / "heads.csv").write_text("\n".join(lines))
    made = csv_heads.conversion(tmp_path, tmp_path / "heads.csv", name="own", test_share=0.3)
    folders = {
        split: {image.path.parent.name for image in images} for split, images in made.splits.items()
    }
    assert len(folders["test"]) == 1
    assert not folders["test"] & folders["train"]
