"""Record sets, work directories and exports behind addresses, here those of fsspec's memory."""

import json
import os
import pickle
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_prep.engine import elsewhere
from data_prep.engine.builder import write_record_set as write_converted
from data_prep.engine.elsewhere import write_record_set_anywhere
from mtnet_jax.cli import main
from mtnet_jax.data import index, ranges
from mtnet_jax.data.records import CACHE, RecordSet, RecordSource
from mtnet_jax.data.selection import parse_selection
from mtnet_jax.data.tfrecord import DamagedRecord, index_file
from mtnet_jax.errors import BadInput, Failed, FileInTheWay, MissingFile
from mtnet_jax.inspection.check import print_check
from mtnet_jax.places import copy_here, fetched, files_below, place, published
from mtnet_jax.weights import load_weights
from tests.addresses import put
from tests.conversions import tiny
from tests.record_sets import a_record, write_record_set
from tests.tiny import tiny_config, write_random_weights


def records(count: int, text: str = "image") -> list[dict]:
    return [a_record(f"{text} {i}", boxes=[[1, 2, 20, 30]]) for i in range(count)]


def a_set(folder: Path, *, count: int = 6, shards: int = 2, text: str = "image") -> Path:
    """A record set with its index."""
    write_record_set(folder, {"train": records(count, text)}, shards=shards)
    assert main(["data", "index", str(folder)]) == 0
    return folder


# --- addresses -----------------------------------------------------------------------------------


def test_what_is_an_address(tmp_path):
    assert place("here/and:there") == Path("here/and:there")
    assert place(f"file://{tmp_path}") == tmp_path
    assert str(place("memory://a/b")) == "memory://a/b"
    assert parse_selection("memory://a/b:test") == (place("memory://a/b"), "test")
    assert parse_selection("memory://a/b", "train") == (place("memory://a/b"), "train")


def test_an_address_of_no_known_kind_and_a_missing_package_are_said(capsys):
    with pytest.raises(BadInput, match=r"nothing://x is no address that can be opened"):
        place("nothing://x")
    with pytest.raises(Failed, match=r"s3://bucket/x needs a package .*pip install s3fs"):
        place("s3://bucket/x")
    with pytest.raises(SystemExit):
        main(["train", "--config", "small", "--workdir", "s3://bucket/x"])
    assert "pip install s3fs" in capsys.readouterr().err


def test_a_listing_cannot_write_outside(tmp_path, address):
    (address / "a").write_bytes(b"a")
    for name in ("../a", "b/../../a", "/a", "..\\a"):
        with pytest.raises(BadInput, match="leads out of the folder"):
            copy_here(address, tmp_path / "here", [name])
    assert not (tmp_path / "a").exists()


def files_of(address) -> list[str]:
    return [path.name for path in address.rglob("*") if path.is_file()]


def test_fetched_and_published(tmp_path, address):
    with fetched(tmp_path) as here:
        assert here == tmp_path
    with pytest.raises(MissingFile, match="nothing at memory://"), fetched(address):
        pass
    (address / "folder" / "kept").parent.mkdir(parents=True)
    (address / "folder" / "kept").write_bytes(b"old")
    with published(address) as here:
        assert (here / "folder/kept").read_bytes() == b"old"
        (here / "new").write_bytes(b"new")
        (here / "folder/kept").unlink()
    assert (address / "new").read_bytes() == b"new"
    assert files_of(address) == ["new"]
    with pytest.raises(ZeroDivisionError), published(address) as here:
        (here / "new").write_bytes(b"half" * (1 // 0))
    assert (address / "new").read_bytes() == b"new"


# --- record sets ---------------------------------------------------------------------------------


def test_a_set_at_an_address_reads_as_it_does_here(tmp_path, address):
    here = RecordSource(a_set(tmp_path / "set"), "train")
    there = RecordSource(put(tmp_path / "set", address / "set"), "train")
    there = pickle.loads(pickle.dumps(there))
    assert len(there) == 6
    for i in range(6):
        assert there.raw(i) == here.raw(i)
        np.testing.assert_array_equal(there[i]["image"], here[i]["image"])
    # One level above, as tfds lays them out.
    assert RecordSet.open(str(address)).path == address / "set"
    assert print_check([str(address)]) == 0


def test_opening_reads_the_index_and_no_header(tmp_path, address, monkeypatch):
    there = put(a_set(tmp_path / "set"), address)
    asked = []
    read = ranges.RemoteRanges.read

    def counted(self, offset, size):
        asked.append((offset, size))
        return read(self, offset, size)

    monkeypatch.setattr(ranges.RemoteRanges, "read", counted)
    source = RecordSource(there, "train")
    assert asked == []
    data = source.raw(1)
    assert len(asked) == 1
    assert asked[0][1] == len(data) + 16


def test_a_set_without_an_index_is_read_by_its_headers(tmp_path, address, capsys):
    write_record_set(tmp_path / "set", {"train": records(5)}, shards=2)
    there = RecordSource(put(tmp_path / "set", address), "train")
    assert f"`mtnet data index {address}` writes one" in capsys.readouterr().err
    assert main(["data", "index", str(address)]) == 0
    assert (address / "tiny-train.index").exists()
    again = RecordSource(address, "train")
    assert [again.raw(i) for i in range(5)] == [there.raw(i) for i in range(5)]
    assert capsys.readouterr().err == ""


def test_the_index_is_the_one_of_the_headers(tmp_path):
    folder = a_set(tmp_path / "set", count=11, shards=3)
    record_set = RecordSet.open(folder)
    shards = record_set.shard_paths("train")
    content = record_set.index_path("train").read_bytes()
    table = json.loads(content.split(b"\n")[1])["shards"]
    assert [(name, n) for name, n, _ in table] == [
        (s.name, n) for s, n in zip(shards, (4, 4, 3), strict=True)
    ]
    assert [size for *_, size in table] == [s.stat().st_size for s in shards]
    for shard, (_, lengths) in zip(shards, index.decode_index(folder, content), strict=True):
        np.testing.assert_array_equal(index_file(shard)[:, 1], lengths)


def test_every_flipped_byte_of_an_index_is_found(tmp_path):
    path = RecordSet.open(a_set(tmp_path / "set")).index_path("train")
    whole = path.read_bytes()
    for place_in_file in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place_in_file] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(index.StaleIndex, match=r"tiny-train\.index .*`mtnet data index"):
            RecordSource(tmp_path / "set", "train")
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(index.StaleIndex):
            RecordSource(tmp_path / "set", "train")


def test_an_index_of_other_shards_is_refused_and_the_cure_works(tmp_path, capsys):
    ours = a_set(tmp_path / "ours")
    theirs = a_set(tmp_path / "theirs", text="another image")
    shutil.copy(theirs / "tiny-train.index", ours)
    with pytest.raises(index.StaleIndex, match="which has"):
        RecordSource(ours, "train")
    assert print_check([str(ours)]) == 1
    assert "tiny-train.index: index: " in capsys.readouterr().out
    assert main(["data", "index", str(ours)]) == 0
    assert len(RecordSource(ours, "train")) == 6
    fewer = a_set(tmp_path / "fewer", count=5)
    shutil.copy(fewer / "tiny-train.index", ours)
    with pytest.raises(index.StaleIndex, match=r"has 2 records of .*dataset_info\.json says 3"):
        RecordSource(ours, "train")
    other = a_set(tmp_path / "other", shards=3)
    shutil.copy(other / "tiny-train.index", ours)
    with pytest.raises(index.StaleIndex, match="names other shards"):
        RecordSource(ours, "train")


def test_an_index_of_a_shard_of_the_same_size_is_found_by_the_record(tmp_path):
    """Two records have changed places: sizes and numbers are the same, lengths are not."""
    long, short = records(1, "a long name")[0], records(1)[0]
    write_record_set(tmp_path / "a", {"train": [long, short]})
    write_record_set(tmp_path / "b", {"train": [short, long]})
    assert main(["data", "index", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shutil.copy(tmp_path / "a/tiny-train.index", tmp_path / "b")
    source = RecordSource(tmp_path / "b", "train")
    with pytest.raises(DamagedRecord, match="the index says"):
        source.raw(0)
    with pytest.raises(DamagedRecord, match="or the index is of other records"):
        source.raw(1)


def test_a_cache_is_asked_first_and_mends_itself(tmp_path, address, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    there = put(a_set(tmp_path / "set"), address)
    source = RecordSource(there, "train")
    expected = [source.raw(i) for i in range(6)]
    read = ranges.RemoteRanges.read

    def none(self, offset, size):
        raise AssertionError("asked elsewhere")

    monkeypatch.setattr(ranges.RemoteRanges, "read", none)
    again = RecordSource(there, "train")
    assert [again.raw(i) for i in range(6)] == expected
    # What a kill left half written is read again, and written.
    (cached,) = (tmp_path / "cache").rglob("*00000-of-*")
    with cached.open("r+b") as file:
        file.seek(30)
        file.write(bytes(9))
    with pytest.raises(AssertionError):
        again.raw(0)
    monkeypatch.setattr(ranges.RemoteRanges, "read", read)
    assert again.raw(0) == expected[0]
    monkeypatch.setattr(ranges.RemoteRanges, "read", none)
    assert again.raw(0) == expected[0]


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path, address, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    write_record_set(tmp_path / "set", {"train": records(3)})
    source = RecordSource(put(tmp_path / "set", address), "train")
    capsys.readouterr()
    assert len({source.raw(i) for i in range(3)}) == 3
    assert capsys.readouterr().err.count("no longer cached") == 1


def test_a_set_in_hundreds_of_shards(tmp_path, monkeypatch):
    """More than may be open at a time; threads read it together."""
    monkeypatch.setattr(ranges, "_KEPT_OPEN", threading.Semaphore(7))
    source = RecordSource(a_set(tmp_path / "set", count=400, shards=300), "train")
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(4) as pool:
        found = [record["image_id"] for record in pool.map(source.__getitem__, range(400))]
    assert found == [f"image {i}" for i in range(400)]
    assert len(os.listdir("/proc/self/fd")) - before <= 7
    del source, pool
    assert len(os.listdir("/proc/self/fd")) <= before


def test_conversion_to_an_address(tmp_path, address, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_converted(tiny(), tmp_path / "here")
    (address / "stranger").write_bytes(b"of nobody")
    with pytest.raises(FileInTheWay, match="is not a record set"):
        write_record_set_anywhere(tiny(), address, overwrite=True)
    (address / "stranger").unlink()
    write_record_set_anywhere(tiny(), address)
    for name in files_below(tmp_path / "here"):
        assert (address / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert list((tmp_path / "temporary").glob("mtnet-*")) == []
    with pytest.raises(FileInTheWay, match="give --overwrite"):
        write_record_set_anywhere(tiny(), address)
    write_record_set_anywhere(tiny({"train": range(3)}), address, overwrite=True)
    assert RecordSet.open(address).splits == {"train": 3}
    assert not (address / "tiny-test.index").exists()
    with pytest.raises(BadInput, match="workers of Beam share a folder"):
        write_record_set_anywhere(tiny(), address / "x", beam_runner="DirectRunner")


def test_a_record_set_whose_copying_was_cut_short_is_copied_anew(address, monkeypatch):
    def no_network(*_):
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(elsewhere, "copy_there", no_network)
        with pytest.raises(OSError, match="no network"):
            write_record_set_anywhere(tiny(), address)
    with pytest.raises(MissingFile):
        RecordSet.open(address)
    write_record_set_anywhere(tiny(), address)
    assert RecordSet.open(address).shard_lengths
    assert "unfinished" not in [path.name for path in address.iterdir()]
    with pytest.raises(FileInTheWay, match="give --overwrite"):
        write_record_set_anywhere(tiny(), address)


# --- exports ------------------------------------------------------------------------------------


def test_export_and_evaluation_at_addresses(tmp_path, address, capsys):
    write_random_weights(tmp_path / "weights")
    there = put(tmp_path / "weights", address / "weights")
    assert main(["export", "--workdir", str(there), "--out", str(address / "out"), "--half"]) == 0
    assert "memory://" in capsys.readouterr().out
    config, _ = load_weights(address / "out")
    assert config.input.size == 64
    for source in ("out", "out/weights.npz"):
        words = ["export", "--workdir", str(address / source), "--out", f"{address}/out/"]
        assert main([*words, "--half"]) == 1
        assert "export to another folder" in capsys.readouterr().err
    # The rules of outputs hold there: what is ours is replaced, what is not is not.
    assert main(["export", "--workdir", str(there), "--out", str(address / "out")]) == 0
    (address / "out/weights.npz").write_bytes(b"of somebody")
    assert main(["export", "--workdir", str(there), "--out", str(address / "out")]) == 1
    assert "was changed since it was made" in capsys.readouterr().err
    records_there = put(Path(tiny_config().data.demo.path), address / "records")
    data = f"{records_there}:test"
    assert main(["eval", "--workdir", str(there), "--data", data, "--limit", "4"]) == 0
    assert (address / "weights/eval/studio-test/evaluation.json").exists()
