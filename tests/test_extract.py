"""The images of a record set as files: every byte, under the name of the record."""

import pytest

from data_prep.engine.builder import write_record_set
from mtnet_jax.cli import main
from tests import record_sets
from tests.conversions import tiny, tiny_record
from tests.record_sets import a_record


def named(name):
    def read(number, report):
        yield {**tiny_record(number), "image_id": name(number)}

    return read


def test_images_come_out_as_they_went_in(tmp_path, capsys):
    records = tmp_path / "records"
    name = lambda number: f"a/{number}.JPG" if number % 2 else f"b/frame.{number}"  # noqa: E731
    write_record_set(tiny(read=named(name)), records)
    assert main(["data", "images", f"{records}:test", "--out", str(tmp_path / "out")]) == 0
    assert "3 images" in capsys.readouterr().out
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    names = {6: "b/frame.6.jpg", 7: "a/7.JPG", 8: "b/frame.8.jpg"}
    assert found == {names[n]: tiny_record(n)["image"] for n in names}


def test_a_name_of_another_format_gets_the_ending_of_its_own(tmp_path):
    """Records hold PNG where the file was WebP."""
    records, out = tmp_path / "records", tmp_path / "out"
    write_record_set(tiny(read=named(lambda number: f"a/{number}.webp")), records)
    assert main(["data", "images", f"{records}:test", "--out", str(out)]) == 0
    assert sorted(path.name for path in (out / "a").glob("[!.]*")) == ["6.jpg", "7.jpg", "8.jpg"]


def test_names_that_differ_in_their_endings_alone_are_two_files(tmp_path):
    """Both hold JPEG, so both would be 6.jpg, 7.jpg, 8.jpg."""

    def read(number, report):
        for ending in ("bmp", "JPG", "webp"):
            yield {**tiny_record(number), "image_id": f"{number}.{ending}"}

    records, out = tmp_path / "records", tmp_path / "out"
    write_record_set(tiny(read=read), records)
    assert main(["data", "images", f"{records}:test", "--out", str(out)]) == 0
    found = {path.name for path in out.glob("[!.]*")}
    assert len(found) == 9
    assert len({name.lower() for name in found}) == 9
    for path in out.glob("[!.]*"):
        assert path.read_bytes() == tiny_record(int(path.name[0]))["image"]


def test_splits_that_share_a_name_are_refused(tmp_path, capsys):
    records = {split: [a_record("same.png", boxes=[])] for split in ("train", "test")}
    record_sets.write_record_set(tmp_path / "records", records)
    words = ["data", "images", str(tmp_path / "records"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "would replace another one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../{}", "/{}"])
def test_a_name_outside_the_folder_is_refused(tmp_path, capsys, name):
    write_record_set(tiny(read=named(name.format)), tmp_path / "records")
    out = tmp_path / "deep" / "out"
    assert main(["data", "images", str(tmp_path / "records"), "--out", str(out)]) == 1
    assert "no place below a folder" in capsys.readouterr().err
    assert not out.exists()
