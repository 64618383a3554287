"""`mtnet data check`: each kind of damage is found, named with file and record, and survived."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.tfrecord import index_file, survey_file, write_records
from mtnet_jax.inspection.check import Fault, Tally, check_records
from tests.conftest import REPOSITORY
from tests.record_sets import HEIGHT, WIDTH, a_record, unchecked_bytes, write_record_set

TURN = Rotation.from_euler("XYZ", [10, 120, -30], degrees=True).as_matrix()


def good_record(number: int) -> dict:
    box = (5, 6, 30, 40)
    return a_record(
        f"image {number}",
        boxes=[box, (0, 0, WIDTH, HEIGHT)],
        rotations=[TURN] * 2,
        headings=[180, -75.5],
        intrinsics=[50, 51, 32, 24],
    )


@pytest.fixture
def records(tmp_path) -> Path:
    """A sound set: 7 records of train in two shards (4 and 3), 2 of test."""
    numbers = np.split(np.arange(9), [7])
    splits = dict(zip(("train", "test"), numbers, strict=True))
    return write_record_set(
        tmp_path / "tiny",
        {name: [good_record(i) for i in part] for name, part in splits.items()},
        shards=2,
    )


def check(selection) -> tuple[Tally, list[Fault]]:
    faults: list[Fault] = []
    return check_records(str(selection), faults.append), faults


def shard(folder: Path, split: str = "train", number: int = 0) -> Path:
    return folder / f"tiny-{split}.tfrecord-{number:05d}-of-00002"


def test_a_sound_set_has_no_faults(records):
    tally, faults = check(records)
    assert (tally.records, tally.heads, faults) == (9, 18, [])
    assert str(tally) == "9 records, 18 heads: no faults"
    tally, _ = check(f"{records}:test")
    assert tally.records == 2


def test_the_demo_records_are_sound():
    tally, faults = check(REPOSITORY / "demo" / "studio_demo")
    assert (tally.records, faults) == (700 + 150, [])


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["begin", "middle", "last"])
def test_a_flipped_byte_in_the_data(records, where):
    path = shard(records)
    offset, length = index_file(path)[2]
    position = {"begin": offset, "middle": offset + length // 2, "last": offset + length + 3}[where]
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)
    tally, (fault,) = check(records)
    assert (fault.kind, fault.file, fault.record) == ("data checksum", path, 2)
    assert tally.records == 9
    assert tally.heads == 16  # those of the other eight records


@pytest.mark.parametrize("byte", [0, 3, 5, 8, 11])
@pytest.mark.parametrize("record", [0, 2, 3])
def test_a_flipped_byte_in_a_header_loses_that_record_alone(records, byte, record):
    path = shard(records)
    content = bytearray(path.read_bytes())
    content[index_file(path)[record][0] - 12 + byte] ^= 0x41
    path.write_bytes(content)
    tally, (fault,) = check(records)
    assert (fault.kind, fault.file, fault.record) == ("framing", path, record)
    assert "the checksum of its length does not match" in fault.text
    assert (tally.records, tally.heads) == (8, 16)


def test_several_faults_in_one_file(records):
    path = shard(records)
    index = index_file(path)
    content = bytearray(path.read_bytes())
    content[index[0][0] - 12] ^= 1  # header of record 0
    content[index[1][0] + 50] ^= 1  # data of record 1
    path.write_bytes(content[: index[3][0] + 20])  # record 3 is cut
    _, faults = check(records)
    assert [(f.kind, f.record) for f in faults] == [
        ("framing", 0),
        ("framing", 3),
        ("data checksum", 1),
    ]
    assert "cut short" in faults[1].text


@pytest.mark.parametrize("left", [5, 12, 40])
def test_a_truncated_shard(records, left):
    """Whether it ends in a header, behind it or in the data."""
    path = shard(records)
    start = index_file(path)[3][0] - 12
    path.write_bytes(path.read_bytes()[: start + left])
    tally, (fault,) = check(records)
    assert (fault.kind, fault.record) == ("framing", 3)
    assert tally.records == 8


def test_a_shard_without_its_last_record_or_with_one_too_many(records):
    path = shard(records)
    whole = path.read_bytes()
    path.write_bytes(whole[: index_file(path)[3][0] - 12])
    _, (fault,) = check(records)
    assert (fault.kind, fault.file, fault.record) == ("number of records", path, None)
    assert fault.text == "3 can be found, dataset_info.json says 4"
    write_records(path, [unchecked_bytes(good_record(20 + i)) for i in range(5)])
    _, (fault,) = check(records)
    assert fault.text == "5 can be found, dataset_info.json says 4"


def test_missing_empty_and_unknown_shards(records):
    shard(records, number=1).unlink()
    shard(records).write_bytes(b"")
    stranger = records / "tiny-train.tfrecord-00002-of-00003"
    write_records(stranger, [])
    tally, faults = check(records)
    assert [(f.kind, f.file) for f in faults] == [
        ("unknown shard", stranger),
        ("number of records", shard(records)),
        ("missing shard", shard(records, number=1)),
    ]
    assert tally.records == 2  # those of test


def test_zeros_in_the_middle_of_a_file(records):
    """What a file system leaves behind after a crash."""
    path = shard(records)
    index = index_file(path)
    content = bytearray(path.read_bytes())
    content[index[1][0] + 10 : index[2][0] + 10] = bytes(index[2][0] - index[1][0])
    path.write_bytes(content)
    tally, faults = check(records)
    # The header of record 2 is gone, so the search goes on behind record 1.
    assert {(f.kind, f.record) for f in faults} == {("data checksum", 1), ("framing", 2)}
    assert tally.heads == 14


def test_survey_agrees_with_the_index_of_a_sound_file(records, tmp_path):
    path = shard(records)
    entries, faults = survey_file(path)
    assert faults == []
    np.testing.assert_array_equal(entries[:, 1:], index_file(path))
    assert entries[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(FileNotFoundError):
        survey_file(tmp_path / "no")


# --- bad metadata --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("dataset_info.json", None, "No record set"),
        ("dataset_info.json", '{"name": "tiny"', "not valid JSON"),
        ("dataset_info.json", '{"name": "tiny"}', "has no name, version or splits"),
        ("dataset_info.json", "[]", "no names and values"),
        ("metadata.json", None, "metadata.json"),
        ("metadata.json", "{}", "box_rule"),
    ],
)
def test_bad_metadata(records, file, text, named):
    (records / file).unlink()
    if text is not None:
        (records / file).write_text(text)
    tally, (fault,) = check(records)
    assert fault.kind == "metadata"
    assert named in fault.text
    assert tally.faults == {"metadata": 1}


def test_an_unknown_split_is_a_fault(records):
    _, (fault,) = check(f"{records}:night")
    assert "'night'" in fault.text


# --- bad labels ----------------------------------------------------------------------------------


def with_box(*box):
    return lambda record: record["boxes"].__setitem__(1, box)


def with_rotation(matrix):
    return lambda record: record["rotations"].__setitem__(1, matrix)


def with_heading(degrees):
    return lambda record: record["headings"].__setitem__(1, degrees)


def with_intrinsics(*values):
    return lambda record: record["intrinsics"].__setitem__(slice(None), values)


SKEWED = TURN + np.array([[0, 0.01, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (with_box(1, 2, np.nan, 4), "box", "head 1 has .*: not finite"),
        (with_box(1, 2, np.inf, 4), "box", "not finite"),
        (with_box(10, 2, 10, 4), "box", "without area"),
        (with_box(10, 20, 15, 4), "box", "without area"),
        (with_box(-1, 2, 10, 4), "box", f"reaches out of the image, {WIDTH}x{HEIGHT}"),
        (with_box(1, -0.5, 10, 4), "box", "reaches out"),
        (with_box(1, 2, WIDTH + 0.5, 4), "box", "reaches out"),
        (with_box(1, 2, 5, HEIGHT + 1), "box", "reaches out"),
        (with_box(100, 100, 120, 110), "box", "reaches out"),
        (with_rotation(TURN * [1, 1, -1]), "rotation", "the determinant is -1"),
        (with_rotation(SKEWED), "rotation", "R.T R is off the identity by 0.00866"),
        (with_rotation(2 * TURN), "rotation", "off the identity by 3,"),
        (with_rotation(np.zeros((3, 3))), "rotation", "the determinant is 0"),
        (with_rotation(np.full((3, 3), np.nan)), "rotation", "head 1 .*not finite"),
        (lambda r: r["has_pose"].__setitem__(1, False), "rotation", "has no pose, but its matrix"),
        (with_heading(200), "heading", "head 1 has 200: not within"),
        (with_heading(-180.5), "heading", "head 1 has -180.5: not within"),
        (with_heading(np.nan), "heading", "head 1 has nan: not within"),
        (lambda r: r["has_heading"].__setitem__(1, False), "heading", "no heading, but -75.5"),
        (with_intrinsics(50, np.inf, 32, 24), "intrinsics", "inf.*not those of a camera"),
        (with_intrinsics(0, 0, 32, 24), "intrinsics", "not those of a camera"),
        (with_intrinsics(-50, 51, 32, 24), "intrinsics", "not those of a camera"),
        (lambda r: r["labels"].__setitem__(1, 1), "label", "head 1 has 1, not within 0 to 0"),
        (lambda r: r["labels"].__setitem__(1, -1), "label", "head 1 has -1"),
        (lambda r: r.update(image=r["image"][:-40]), "image", "OpenCV cannot decode"),
        (lambda r: r.update(image=b""), "image", "empty"),
        (lambda r: r.update(image=b"\xff\xd8\xff\xe0 cut"), "image", "cut short"),
        (lambda r: r.update(image_id=""), "image_id", "is empty"),
        (lambda r: r.pop("ignore"), "schema", "'ignore'.* missing"),
        (lambda r: r.update(labels=r["labels"][:1]), "schema", "1 entries for 2 boxes"),
        (lambda r: r.update(boxes=r["boxes"].ravel()[:7]), "schema", "7 numbers"),
        (lambda r: r.update(intrinsics=r["intrinsics"][:3]), "schema", "'intrinsics': 3 numbers"),
    ],
)
def test_bad_labels_are_named(records, change, kind, text):
    bad = good_record(2)
    change(bad)
    path = shard(records)
    content = [unchecked_bytes(good_record(i)) for i in range(4)]
    content[2] = unchecked_bytes(bad)
    write_records(path, content)
    tally, (fault,) = check(records)
    assert (fault.kind, fault.file, fault.record) == (kind, path, 2)
    assert re.search(text, fault.text), fault.text
    if kind != "schema":
        assert f"image {bad['image_id']!r}" in fault.text
    assert tally.records == 9


def test_every_fault_of_a_record_is_told(records):
    bad = good_record(2)
    with_box(1, 2, 1, 4)(bad)
    bad["boxes"][0] = (-3, 0, 5, 5)
    with_rotation(SKEWED)(bad)
    bad["labels"][:] = 7
    bad["headings"][:] = 500, -500
    bad["intrinsics"][1] = 0
    bad["image"] = bad["image"][:-40]  # its size is then not known: boxes out of it neither
    write_records(shard(records, number=1), [unchecked_bytes(bad)] * 3)
    tally, faults = check(records)
    # The id of record 2 of the first shard, three times over.
    assert tally.faults == {
        **{"image": 3, "box": 3, "rotation": 3, "heading": 6, "label": 6, "intrinsics": 3},
        "image_id": 3,
    }
    assert {fault.record for fault in faults} == {0, 1, 2}


def test_not_an_example(records):
    write_records(shard(records), [b"no example at all"] * 4)
    tally, faults = check(records)
    assert tally.faults == {"schema": 4}
    assert all("not a tf.train.Example" in fault.text for fault in faults)


def test_the_same_image_id_in_two_splits(records):
    write_records(shard(records, "test"), [unchecked_bytes(good_record(5))])
    _, (fault,) = check(records)
    assert (fault.kind, fault.file, fault.record) == ("image_id", shard(records, "test"), 0)
    assert f"'image 5' is also the image_id of {shard(records, number=1)}, record 1" in fault.text


def test_the_rounding_of_boxes_is_no_fault(records):
    bad = good_record(2)
    with_box(-1e-3, -1e-3, WIDTH + 1e-3, HEIGHT + 1e-3)(bad)
    write_records(shard(records), [unchecked_bytes(good_record(i)) for i in (0, 1, 3)])
    info = json.loads((records / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"][0] = "4"
    records_of = [unchecked_bytes(good_record(i)) for i in (0, 1, 3)] + [unchecked_bytes(bad)]
    write_records(shard(records), records_of)
    assert check(records)[1] == []


# --- command -------------------------------------------------------------------------------------


def test_check_command(records, tmp_path, capsys):
    assert main(["data", "check", str(records)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"{records}: 9 records, 18 heads: no faults"]
    assert "9/9" in captured.err
    assert "record/s" in captured.err

    bad = good_record(0)
    bad["labels"][:] = 3
    write_records(shard(records, "test"), [unchecked_bytes(bad)])
    missing = tmp_path / "no"
    assert main(["data", "check", str(missing), str(records)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{missing}: metadata: No record set")
    assert lines[1] == f"{missing}: 0 records, 0 heads: 1 faults (1 metadata)"
    assert lines[2].startswith(f"{shard(records, 'test')}, record 0: label: image 'image 0': ")
    assert lines[-1] == f"{records}: 9 records, 18 heads: 3 faults (2 label, 1 image_id)"


def test_training_and_checking_agree(records):
    """What is sound here can be read there."""
    assert len(RecordSource(records, "train")[0]["boxes"]) == 2
