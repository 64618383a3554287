"""Indexes that cannot be used: what is said of them cures them."""

from pathlib import Path

import pytest

from mtnet_jax.cli import main
from mtnet_jax.data import index
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.data.tfrecord import masked_crc32c
from tests.record_sets import a_record, write_record_set


def a_set(folder: Path) -> Path:
    """Two shards of three records, and their index."""
    records = [a_record(f"image {i}", boxes=[[1, 2, 20, 30]]) for i in range(6)]
    write_record_set(folder, {"train": records}, shards=2)
    assert main(["data", "index", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    "content", [b'{"shards": []}\n', b'{"shards": [["a", 1]]}\n', b'{"shards": [["a", 1, 2]]}\nabc']
)
def test_an_index_whose_table_cannot_be(tmp_path, content):
    path = RecordSet.open(a_set(tmp_path / "set")).index_path("train")
    content = index.MAGIC + content
    path.write_bytes(content + masked_crc32c(content).to_bytes(4, "little"))
    with pytest.raises(index.StaleIndex, match=r"has no table of shards .*`mtnet data index"):
        RecordSource(tmp_path / "set", "train")


def test_metadata_that_count_other_records_than_index_and_shard(tmp_path):
    info = a_set(tmp_path / "set") / "dataset_info.json"
    info.write_text(info.read_text().replace('"3"', '"2"'))
    with pytest.raises(index.StaleIndex) as caught:
        RecordSource(tmp_path / "set", "train")
    assert "has 3 records of" in str(caught.value)
    assert "dataset_info.json says 2, and fits the shard: copy or convert" in str(caught.value)
    assert "mtnet data index" not in str(caught.value)  # which would change nothing
