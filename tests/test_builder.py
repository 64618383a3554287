"""Conversion into record sets: what arrives, in which order, what is replaced, what is refused."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import naming
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.core.utils import shard_utils

from data_prep.engine import shards
from data_prep.engine.builder import write_record_set
from data_prep.engine.report import PLACES_KEPT
from mtnet_jax.data.example import encode_record
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.conversions import assert_same_files, jpeg, read_tiny, tiny, tiny_record

REPOSITORY = Path(__file__).resolve().parent.parent  # that of tests/conftest.py comes with JAX


def read_without_tensorflow(number, report):
    assert not {"tensorflow", "jax"} & set(sys.modules)
    yield from read_tiny(number, report)


def test_tensorflow_is_not_imported(tmp_path):
    code = (
        "import sys\n"
        "from tests import test_builder as t\n"
        f"out = {str(tmp_path / 'out')!r}\n"
        "t.write_record_set(t.tiny(read=t.read_without_tensorflow), out, processes=2)\n"
        "print(len(t.RecordSource(out, 'train')), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["6", "False"]


def test_every_record_arrives(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        source = RecordSource(tmp_path / "out", split, decode=False)
        found = {source[i]["image_id"]: source[i] for i in range(len(source))}
        assert len(found) == len(numbers)
        for number in numbers:
            expected = tiny_record(number)
            record = found[expected["image_id"]]
            for key, value in expected.items():
                np.testing.assert_array_equal(record[key], value)


def test_names_with_spaces_and_accents(tmp_path):
    def read(name, report):
        yield {**tiny_record(1), "image_id": name}

    names = ["é à ü", "写真 1", "a/b c", "emoji 🙂"]
    out = tmp_path / "mes têtes" / "été 2024"
    write_record_set(tiny({"train": names}, read), out)
    source = RecordSource(out, "train")
    assert sorted(source[i]["image_id"] for i in range(4)) == sorted(names)
    assert tfds.builder_from_directory(out).info.splits["train"].num_examples == 4


def test_tfds_reads_the_metadata(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    info = tfds.builder_from_directory(tmp_path / "out").info
    assert (info.name, str(info.version)) == ("tiny", "1.2.3")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 6,
        "test": 3,
    }
    assert info.citation == "@misc{tiny}"
    assert info.features["boxes"].shape == (None, 4)
    assert (tmp_path / "out" / "LICENSE").read_text().strip() == "CC0"
    opened = RecordSet.open(tmp_path / "out")
    assert (opened.box_rule, opened.label_names) == ("head", ("head",))


def test_converting_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_record_set(tiny(), tmp_path / name)
    assert_same_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path, processes):
    write_record_set(tiny(), tmp_path / "one")
    write_record_set(tiny(), tmp_path / "several", processes=processes)
    assert_same_files(tmp_path / "one", tmp_path / "several")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "several"]


def test_order_and_number_of_shards_are_those_of_tfds(tmp_path, monkeypatch):
    """Against the writer of tensorflow-datasets itself, which needs TensorFlow only to write."""
    monkeypatch.setattr(shard_utils.ShardConfig, "min_shard_size", 5000)
    monkeypatch.setattr(shard_utils.ShardConfig, "max_shard_size", 20000)
    write_record_set(tiny({"train": range(40)}), tmp_path / "out")
    source = RecordSource(tmp_path / "out", "train")
    lengths = source.record_set.shard_lengths["train"]
    written = {}

    class Writer(tfds_writer.ExampleWriter):
        def write(self, path, examples):
            written[Path(path).name] = [data for _, data in examples]

    template = naming.ShardedFileTemplate(
        data_dir=epath.Path(tmp_path),
        dataset_name="tiny",
        split="train",
        filetype_suffix="tfrecord",
    )
    theirs = tfds_writer.Writer(
        serializer=SimpleNamespace(serialize_example=lambda example: encode_record(example)),
        filename_template=template,
        hash_salt="train",
        disable_shuffling=False,
        example_writer=Writer(file_format="tfrecord"),
        shard_config=shard_utils.ShardConfig(),
    )
    for number in range(40):
        record = tiny_record(number)
        theirs.write(record["image_id"], record)
    their_lengths, _ = theirs.finalize()
    assert list(lengths) == their_lengths
    assert len(lengths) > 4
    assert [source.raw(i) for i in range(40)] == [
        data for _, w in sorted(written.items()) for data in w
    ]


# --- what is replaced and refused ----------------------------------------------------------------


def test_refuses_to_overwrite(tmp_path):
    out = tmp_path / "out"
    write_record_set(tiny(), out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_record_set(tiny(), out)
    write_record_set(tiny({"train": range(2)}), out, overwrite=True)
    assert RecordSet.open(out).splits == {"train": 2}


@pytest.mark.parametrize("overwrite", [True, False])
def test_overwrite_leaves_other_folders_alone(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"not a record set.*choose another --out"):
        write_record_set(tiny(), tmp_path / "photos", overwrite=overwrite)
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"precious"


def test_a_conversion_that_fails_at_once_leaves_nothing(tmp_path):
    def read(number, report):
        raise ValueError(f"image {number} is bad")
        yield

    with pytest.raises(ValueError, match="image 0 is bad"):
        write_record_set(tiny(read=read), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tell", "said"),
    [
        (lambda report: None, "None came of its 3 items"),
        (lambda report: report.drop_image("it is torn", "a.jpg"), "3 dropped, it is torn: a.jpg"),
        (lambda report: report.note("heads too small", "a.jpg"), "3 heads too small: a.jpg"),
    ],
)
def test_a_split_without_images_says_why(tmp_path, tell, said):
    def read(number, report):
        tell(report)
        yield from ()

    with pytest.raises(ValueError, match=rf"'train' has no images.* {said}\. Change what leaves"):
        write_record_set(tiny({"train": range(3)}, read), tmp_path / "out")


def test_a_failed_conversion_keeps_the_old_set(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    with pytest.raises(ValueError, match="no images"):
        write_record_set(tiny({"train": []}), tmp_path / "out", overwrite=True)
    assert RecordSet.open(tmp_path / "out").splits == {"train": 6, "test": 3}


@pytest.mark.parametrize(
    "splits", [{"train": [1, 2], "test": [2]}, {"train": [2, 1, 3, 2]}, {"train": [1], "test": [1]}]
)
def test_same_id_twice_is_refused(tmp_path, splits):
    twice = max(splits["train"], key=[n for items in splits.values() for n in items].count)
    with pytest.raises(ValueError, match=f"image_id 'image {twice}'"):
        write_record_set(tiny(splits), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_record_is_refused(tmp_path):
    def read(number, report):
        yield {**tiny_record(number), "labels": np.zeros(9, np.int32)}

    with pytest.raises(ValueError, match="field 'labels'"):
        write_record_set(tiny(read=read), tmp_path / "out")


def read_few_images(number, report):
    """Image n is that of image n % 70."""
    yield {**tiny_record(number), "image": jpeg(8, 8, seed=number % 70)}


def test_images_that_are_there_twice_are_told(tmp_path):
    splits = {"train": range(100), "test": range(100, 170), "more": range(210, 215)}
    report = write_record_set(tiny(splits, read_few_images), tmp_path / "out")
    copies = {}  # image -> splits and numbers
    for split, numbers in splits.items():
        for number in numbers:
            copies.setdefault(number % 70, []).append((split, number))
    shared = [found for found in copies.values() if len({split for split, _ in found}) > 1]
    again = sum(len(found) - len({split for split, _ in found}) for found in copies.values())
    assert report.notes.counts == {shards.SHARED: len(shared), shards.REPEATED: again}
    assert again == 30
    assert len(report.notes[shards.SHARED]) == PLACES_KEPT
    for place in report.notes[shards.SHARED]:
        names = re.findall(r"image (\d+) \((\w+)\)", place)
        (image,) = {int(number) % 70 for number, _ in names}
        first = {}
        for split, number in copies[image]:
            first.setdefault(split, number)
        assert [(split, int(number)) for number, split in names] == list(first.items())
    assert len(report.notes[shards.REPEATED]) == PLACES_KEPT
    for place in report.notes[shards.REPEATED]:  # the image and its copy
        (image, split), (copy, its_split) = re.findall(r"image (\d+) \((\w+)\)", place)
        assert split == its_split
        assert [(split, int(image)), (split, int(copy))] == [
            found for found in copies[int(image) % 70] if found[0] == split
        ]


def test_of_many_copies_the_first_are_named(tmp_path):
    splits = {"train": range(0, 70 * 9, 70), "test": [7, 77]}  # nine times one image, twice another
    report = write_record_set(tiny(splits, read_few_images), tmp_path / "out")
    first, second = report.notes[shards.REPEATED]
    assert report.notes.counts == {shards.REPEATED: 9}
    assert sorted(map(len, (first.split(" and "), second.split(" and ")))) == [2, PLACES_KEPT + 1]
    assert "4 more" in first + second


def test_images_that_differ_draw_no_note(tmp_path):
    assert not write_record_set(tiny(), tmp_path / "out").notes
