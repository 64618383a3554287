"""TFRecord framing against bytes built by hand, and damage of every kind."""

import os
import pickle
import struct

import google_crc32c
import numpy as np
import pytest

from mtnet_jax.data.tfrecord import (
    DamagedRecord,
    RecordFile,
    frame,
    index_file,
    masked_crc32c,
    write_records,
)

RECORDS = [b"first", b"", b"\x00\xff" * 500]


def slow_crc32c(data: bytes) -> int:
    """CRC-32C bit by bit: reflected polynomial 0x82F63B78, start and end inverted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def slow_masked(data: bytes) -> int:
    crc = slow_crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def read_all(path) -> list[bytes]:
    file = RecordFile(path)
    return [file[i] for i in range(len(file))]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tfrecord"
    assert write_records(path, RECORDS) == 3
    return path


def test_crc_check_value():
    assert slow_crc32c(b"123456789") == 0xE3069283  # the published check value of CRC-32C
    assert google_crc32c.value(b"123456789") == 0xE3069283


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(range(256))])
def test_masked_crc_matches_bitwise_computation(data):
    assert masked_crc32c(data) == slow_masked(data)


def test_frame_known_bytes():
    expected = (
        struct.pack("<Q", 9)
        + struct.pack("<I", slow_masked(b"\x09" + bytes(7)))
        + b"123456789"
        + struct.pack("<I", ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    )
    assert frame(b"123456789") == expected
    # An empty record: length 0, whose checksum is that of eight zero bytes, and CRC 0 masked.
    assert frame(b"")[12:] == struct.pack("<I", 0xA282EAD8)


def test_index_and_read(path):
    file = RecordFile(path)
    assert len(file) == 3
    assert [file[i] for i in (2, 0, 1)] == [RECORDS[2], RECORDS[0], RECORDS[1]]
    assert index_file(path).tolist() == [[12, 5], [33, 0], [49, 1000]]
    with pytest.raises(IndexError, match="3 records"):
        file[3]
    with pytest.raises(IndexError):
        file[-1]


def test_empty_file_has_no_records(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert len(RecordFile(path)) == 0


def test_grain_reads_our_framing(path):
    grain = pytest.importorskip("grain")
    dataset = grain.experimental.TFRecordIterDataset(str(path))
    assert list(dataset) == RECORDS


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "a.tfrecord"
    good = frame(b"some data") + frame(b"more")
    second = len(frame(b"some data"))
    for position in range(len(good)):
        for bit in (0, 7):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(DamagedRecord) as caught:
                read_all(path)
            assert caught.value.record == int(position >= second), position
            assert caught.value.offset == (second if position >= second else 0)
            assert str(path) in str(caught.value)


def test_every_truncation_is_found(path):
    content = path.read_bytes()
    ends = {0, 21, 37, 37 + 1016}
    assert len(content) == max(ends)
    for size in [*range(60), 500, len(content) - 5, len(content) - 1]:
        if size in ends:
            continue
        path.write_bytes(content[:size])
        with pytest.raises(DamagedRecord, match=r"ends after|cut short"):
            RecordFile(path)


def test_file_that_shrinks_after_indexing(path):
    file = RecordFile(path)
    os.truncate(path, 100)
    assert file[0] == RECORDS[0]
    with pytest.raises(DamagedRecord, match="cut short"):
        file[2]


def test_pickles_after_use(path):
    file = RecordFile(path)
    assert file[0] == b"first"
    copy = pickle.loads(pickle.dumps(file))
    assert copy[2] == RECORDS[2]


def test_damaged_record_pickles_and_is_a_value_error():
    error = DamagedRecord("x.tfrecord", 3, 99, "is bad")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ValueError)
    assert str(copy) == str(error)
    assert "x.tfrecord: record 3 (byte 99): is bad" in str(error)


def test_reads_a_read_only_file(path):
    path.chmod(0o444)
    assert RecordFile(path)[0] == b"first"


def test_random_records_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    records = [rng.bytes(int(n)) for n in rng.integers(0, 3000, 50)]
    path = tmp_path / "r"
    write_records(path, records)
    file = RecordFile(path)
    for i in rng.permutation(50):
        assert file[int(i)] == records[i]
