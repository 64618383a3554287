"""Own data as CSV tables: they become the records they describe."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.own import csv_heads
from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSet
from tests.own_files import SCIPY, convert, write_image

HEADER = "image,x1,y1,x2,y2,yaw,pitch,roll,convention"


TABLE = f"""{HEADER}
Jürgen B/im Garten.jpg,10,5,30,30,-130,12.5,7,canonical
"a, with comma/one.jpg",1.5,2.5,11.5,12.5,,,,
Jürgen B/im Garten.jpg,40,5,60,30,20,0,-80,sixdrepnet
a/empty.jpg,,,,,,,,
"""


@pytest.fixture
def raw_csv(tmp_path):
    """`raw_csv(text)` writes a table and the images it names in its first column."""

    def write(text: str, encoding: str = "utf-8") -> tuple[Path, Path]:
        raw = tmp_path / "raw"
        for name in ("Jürgen B/im Garten.jpg", "a, with comma/one.jpg", "a/empty.jpg"):
            write_image(raw / name, len(name))
        (raw / "heads.csv").write_bytes(text.encode(encoding))
        return raw, raw / "heads.csv"

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_rows_become_heads(raw_csv, tmp_path, encoding, end):
    files = raw_csv(TABLE.replace("\n", end), encoding)
    _, records = convert(csv_heads.conversion(*files, name="own"), tmp_path / "out")
    assert set(records) == {"Jürgen B/im Garten.jpg", "a, with comma/one.jpg", "a/empty.jpg"}
    two = records["Jürgen B/im Garten.jpg"]
    np.testing.assert_array_equal(two["boxes"], [[10, 5, 30, 30], [40, 5, 60, 30]])
    np.testing.assert_allclose(
        two["rotations"],
        [
            SCIPY["canonical"](-130, 12.5, 7).as_matrix(),
            SCIPY["sixdrepnet"](20, 0, -80).as_matrix(),
        ],
        atol=1e-6,
    )
    assert two["has_pose"].all()
    assert not records["a, with comma/one.jpg"]["has_pose"].any()
    assert records["a/empty.jpg"]["boxes"].shape == (0, 4)
    assert {record["split"] for record in records.values()} == {"train"}


def test_csv_headings(raw_csv, tmp_path):
    """Of level heads, of straight ahead, of half a turn; and a whole rotation says more."""
    first = TABLE.splitlines()[1]
    lines = [
        f"{HEADER},heading",
        f"{first},33",
        "Jürgen B/im Garten.jpg,40,5,60,30,,,,,-90.5",
        "Jürgen B/im Garten.jpg,41,5,60,30,,,,,",
        "Jürgen B/im Garten.jpg,42,5,60,30,,,,,0",
        "a/empty.jpg,40,5,60,30,,,,,180",
        "a/empty.jpg,40,5,60,31,,,,, -180 ",
    ]
    report, records = convert(
        csv_heads.conversion(*raw_csv("\n".join(lines)), name="own"), tmp_path / "out"
    )
    two = records["Jürgen B/im Garten.jpg"]
    assert two["has_pose"].tolist() == [True, False, False, False]
    np.testing.assert_allclose(
        two["rotations"][0], SCIPY["canonical"](-130, 12.5, 7).as_matrix(), atol=1e-6
    )
    np.testing.assert_array_equal(two["rotations"][1:], [np.eye(3)] * 3)
    assert two["has_heading"].tolist() == [False, True, False, True]
    np.testing.assert_array_equal(two["headings"], [0, -90.5, 0, 0])
    np.testing.assert_array_equal(records["a/empty.jpg"]["headings"], [180, -180])
    counts = report.as_dict()["splits"]["train"]
    assert (counts["heads with a pose"], counts["heads with a heading alone"]) == (1, 4)


def test_csv_headings_need_no_other_columns(raw_csv, tmp_path):
    text = "image,x1,y1,x2,y2,heading\na/empty.jpg,1,2,30,40,-45\na/empty.jpg,1,2,30,41,\n"
    _, records = convert(csv_heads.conversion(*raw_csv(text), name="own"), tmp_path / "out")
    np.testing.assert_array_equal(records["a/empty.jpg"]["headings"], [-45, 0])
    assert records["a/empty.jpg"]["has_heading"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,1,2,30,40,,,,,200", "line 2, column 'heading': .*within \\+-180.*is 200"),
        ("a.jpg,1,2,30,40,,,,,-180.1", "line 2, column 'heading': .*is -180.1"),
        ("a.jpg,1,2,30,40,,,,,left", "line 2, column 'heading': 'left' is no number"),
        ("a.jpg,1,2,30,40,5,4,0,canonical,200", "line 2, column 'heading': .*within"),
        ("a.jpg,,,,,,,,,20", "line 2: angles without a box"),
        ("a.jpg,,,,,,,,,0", "line 2: angles without a box"),
    ],
)
def test_csv_bad_headings_are_named(raw_csv, row, message):
    raw, table = raw_csv(f"{HEADER},heading\n{row}\n")
    with pytest.raises(ValueError, match=message) as caught:
        csv_heads.conversion(raw, table, name="own")
    assert str(caught.value).startswith(str(table))


def test_csv_labels_and_ignored_heads(raw_csv, tmp_path):
    text = (
        "image,x1,y1,x2,y2,label,ignore\na/empty.jpg,1,2,30,40,helmet,\n"
        "a/empty.jpg,1,2,30,41,,1\na/empty.jpg,1,2,30,42,hat,0\n"
    )
    report, records = convert(
        csv_heads.conversion(*raw_csv(text), name="own", label_map={"helmet": "x", "head": "y"}),
        tmp_path / "out",
    )
    assert RecordSet.open(tmp_path / "out").label_names == ("y", "x")
    assert records["a/empty.jpg"]["labels"].tolist() == [1, 0]
    assert records["a/empty.jpg"]["ignore"].tolist() == [False, True]
    assert list(report.ignored_heads) == ["column ignore"]
    assert list(report.dropped_heads) == ["label 'hat' is not in the label map"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,1,2,3", "line 3: 4 cells for 9 columns"),
        (",1,2,30,40,,,,", "line 3, column 'image': empty"),
        ("a.jpg,1,2,30,,,,,", "line 3, column 'y2': empty; x1 to y2"),
        ("a.jpg,1,2,3x,40,,,,", "line 3, column 'x2': '3x' is no number"),
        ("a.jpg,1,2,inf,40,,,,", "line 3, columns x1 to y2: the box must be finite"),
        ("a.jpg,1,2,nan,40,,,,", "line 3, column 'x2': empty; x1 to y2 are numbers"),
        ("a.jpg,.1,.2,.3,.4,,,,", "line 3, columns x1 to y2: .* fractions of the image"),
        ("a.jpg,1,2,30,40,5,,0,canonical", "line 3, column 'pitch': empty"),
        ("a.jpg,1,2,30,40,5,nan,0,canonical", "line 3, column 'pitch': empty"),
        ("a.jpg,1,2,30,40,5,4,0,", "line 3, column 'convention': Euler angles without convention"),
        ("a.jpg,1,2,30,40,5,4,0,biwi", "line 3, column 'convention': unknown .*'biwi'"),
        ("a.jpg,,,,,5,4,0,canonical", "line 3: angles without a box"),
        ("Jürgen B/im Garten.jpg,,,,,,,,", "line 2: .* a box here and an empty box"),
        ('"a.jpg,1,2,30,40,,,,', "line 3: unexpected end of data"),
    ],
)
def test_csv_bad_rows_are_named(raw_csv, row, message):
    first = TABLE.splitlines()[1]
    raw, table = raw_csv(f"{HEADER}\n{first}\n{row}\n")
    with pytest.raises(ValueError, match=message) as caught:
        csv_heads.conversion(raw, table, name="own")
    assert str(caught.value).startswith(str(table))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column 'image' is missing, found nothing"),
        (
            "image;x1;y1;x2;y2\na.jpg;1;2;3;4\n",
            "separated by semicolons: save the table with commas",
        ),
        ("image\tx1\ty1\tx2\ty2\n", "separated by tabs"),
        ("image,x1,y1,x2\n", "column 'y2' is missing"),
        ("image,x1,y1,x2,y2,jaw\n", "unknown column 'jaw': .*yaw"),
        ("image,x1,y1,x2,y2,x1\n", "column 'x1' stands there twice"),
        ("image,x1,y1,x2,y2,yaw,pitch,convention\n", "yaw, pitch and roll go together"),
        ("image,x1,y1,x2,y2,yaw,pitch,roll\n", "without a column 'convention'"),
        (
            f"{HEADER}\na/empty.jpg,1,2,30,40,,,,\nA/EMPTY.JPG,30,2,60,40,,,,\n",
            "heads.csv: 'a/empty.jpg' and 'A/EMPTY.JPG' are one image, .*in one way",
        ),
        (f"{HEADER}\na/empty.jpg,1,2,30,4\0,,,,\n", "heads.csv, line 2: holds zero bytes"),
        (f"{HEADER}\n\n", "no rows below its header"),
        (f"{HEADER}\na/empty.jpg,,,,,,,,\n", "no heads to learn from"),
    ],
)
def test_csv_bad_tables_are_named(raw_csv, text, message):
    with pytest.raises(ValueError, match=message):
        csv_heads.conversion(*raw_csv(text), name="own")


@pytest.mark.parametrize("split", ["val/1", "..", "C:test", "a\\b"])
def test_csv_splits_that_are_no_names_of_files(raw_csv, split):
    rows = f"a/empty.jpg,1,2,30,40,train\na/empty.jpg,5,2,30,40,{split}\n"
    raw, table = raw_csv(f"image,x1,y1,x2,y2,split\n{rows}")
    with pytest.raises(ValueError, match=r"heads\.csv, line 3, column 'split': the name .*train"):
        csv_heads.conversion(raw, table, name="own")


def test_csv_boxes_that_end_before_they_begin_draw_a_warning(raw_csv):
    rows = "a/empty.jpg,10,5,30,20\nJürgen B/im Garten.jpg,60,5,10,20\n"
    files = raw_csv(f"image,x1,y1,x2,y2\n{rows}")
    warning, place, count = csv_heads.conversion(*files, name="own").notes[0]
    assert warning.startswith("WARNING: boxes whose x2 or y2 is less than x1 or y1: if the columns")
    assert (place, count) == (f"{files[1]}, line 3", 1)


def test_csv_width_and_height_for_right_and_bottom_are_refused(raw_csv):
    rows = "a/empty.jpg,10,5,30,20\nJürgen B/im Garten.jpg,60,5,10,20\na/empty.jpg,50,5,20,20\n"
    files = raw_csv(f"image,x1,y1,x2,y2\n{rows}")
    with pytest.raises(ValueError, match=r"line 3: 2 of 3 boxes whose x2 or y2 .*add x1 to x2"):
        csv_heads.conversion(*files, name="own")


def test_csv_images_whose_heads_are_all_dropped_are_no_background(raw_csv, tmp_path):
    lines = ["image,x1,y1,x2,y2,label", "a/empty.jpg,1,1,20,20,cat"]
    lines += ["Jürgen B/im Garten.jpg,1,1,20,20,cat", "Jürgen B/im Garten.jpg,60,5,10,20,head"]
    lines += ['"a, with comma/one.jpg",60,5,10,20,head', '"a, with comma/one.jpg",1,1,20,20,head']
    files = raw_csv("\n".join(lines))
    made = csv_heads.conversion(*files, name="own", label_map={"head": "head"})
    report, records = convert(made, tmp_path / "out")
    assert {name: len(record["boxes"]) for name, record in records.items()} == {
        "a/empty.jpg": 0,
        "a, with comma/one.jpg": 1,
    }
    assert report.dropped_images == {"all of its heads were dropped": ["Jürgen B/im Garten.jpg"]}
    assert report.dropped_heads.counts["box has no area"] == 2


@pytest.mark.parametrize("name", ["none", "na", "null", "Na"])
def test_csv_words_that_mean_nothing_among_numbers_are_names(raw_csv, tmp_path, name):
    """A helmet colour, say; in a column of numbers they are an empty cell."""
    text = f"{HEADER},label\na/empty.jpg,1,2,30,40,{name},nan,,{name},{name}\n"
    text += "a/empty.jpg,1,2,30,41,,,,,nan\n"
    _, records = convert(csv_heads.conversion(*raw_csv(text), name="own"), tmp_path / "out")
    names = RecordSet.open(tmp_path / "out").label_names
    assert [names[k] for k in records["a/empty.jpg"]["labels"]] == [name, "head"]
    assert not records["a/empty.jpg"]["has_pose"].any()


@pytest.mark.parametrize("word", ["NA", "N/A", "NaN"])
def test_csv_cells_that_are_not_available_are_empty(raw_csv, tmp_path, word):
    """As R and pandas write them; a head without a label is a head."""
    text = f"{HEADER},label,group\na/empty.jpg,1,2,30,40,,,,,{word},ann\n"
    text += f"Jürgen B/im Garten.jpg,1,2,30,41,{word},{word},{word},{word},helmet,{word}\n"
    files = raw_csv(text)
    convert(csv_heads.conversion(*files, name="own"), tmp_path / "out")
    assert RecordSet.open(tmp_path / "out").label_names == ("head", "helmet")
    with pytest.raises(ValueError, match=r"line 3, column 'group': empty, and every row needs"):
        csv_heads.conversion(*files, name="own", test_share=0.5)


def test_csv_other_encodings_and_missing_files(raw_csv):
    with pytest.raises(
        ValueError, match=r"heads\.csv, line \d+: byte \d+ is not utf-8: save the file as UTF-8"
    ):
        csv_heads.conversion(*raw_csv(TABLE, "latin-1"), name="own")
    raw, table = raw_csv(TABLE)
    (raw / "a" / "empty.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are missing: .*empty\.jpg"):
        csv_heads.conversion(raw, table, name="own")
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"heads\.csv is missing"):
        csv_heads.conversion(raw, table, name="own")


def test_csv_command(raw_csv, tmp_path, capsys):
    raw, _ = raw_csv(TABLE)
    words = ["data", "convert", "csv", "--raw", str(raw), "--out", str(tmp_path / "out")]
    words += ["--processes", "1"]  # others start slowly
    assert main([*words, "--test-share", "0.3", "--box-rule", "face"]) == 0
    assert "out 1.0.0, box rule 'face'" in capsys.readouterr().out
    assert RecordSet.open(tmp_path / "out").splits == {"train": 2, "test": 1}
    assert main([*words, "--overwrite", "--csv", "labels.csv"]) == 1
    assert "labels.csv is missing" in capsys.readouterr().err
    for share in ("0", "1", "x"):
        with pytest.raises(SystemExit):
            main([*words, "--test-share", share])
    with pytest.raises(SystemExit):
        main(["data", "convert", "csv", "--help"])
    assert "opal        Canonical with the sign of yaw turned" in capsys.readouterr().out
