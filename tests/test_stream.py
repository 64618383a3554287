"""The stream of batches: order, mixture, threads, hosts."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.batches import truths_of
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord
from tests.batched import Numbered, assert_goes_on, assert_same, stream
from tests.record_sets import flip_a_bit

DEMO = Path(__file__).resolve().parent.parent / "demo" / "studio_demo"


def numbers(batches, count: int) -> list[int]:
    """The records of the next `count` batches, in order."""
    return [int(v) for _ in range(count) for v in next(batches)["labels"][:, 0]]


# --- the stream ----------------------------------------------------------------------------------


def test_batches_have_fixed_shapes_and_give_truths():
    batch = next(stream([Numbered(6)]))
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((4, 32, 32, 3), "uint8"),
        "boxes": ((4, 2, 4), "float32"),
        "rotations": ((4, 2, 3, 3), "float32"),
        "has_pose": ((4, 2), "bool"),
        "ignore": ((4, 2), "bool"),
        "labels": ((4, 2), "int32"),
        "headings": ((4, 2), "float32"),
        "has_heading": ((4, 2), "bool"),
        "valid": ((4, 2), "bool"),
        "unlabelled": ((4, 21), "bool"),
        "dropped": ((4,), "int32"),
    }
    truths = truths_of(batch)
    assert truths.valid.sum() == 4
    np.testing.assert_array_equal(truths.boxes, batch["boxes"])
    np.testing.assert_array_equal(truths.headings, batch["headings"])
    np.testing.assert_array_equal(truths.has_heading, batch["has_heading"])


def test_stream_does_not_depend_on_the_number_of_threads():
    """Order and augmentation are of the seed alone."""

    def first(threads, seed=3):
        sources = [Numbered(70), Numbered(50, first=100)]
        batches = stream(sources, [2.0, 1.0], seed=seed, threads=threads, options=AugmentOptions())
        return [next(batches) for _ in range(6)]

    alone = first(0)
    assert_same(first(1), alone)
    assert_same(first(3), alone)
    other = first(1, seed=4)
    assert any((a["labels"] != b["labels"]).any() for a, b in zip(other, alone, strict=True))


@pytest.mark.parametrize("done", [0, 1, 35])
def test_stream_goes_on_where_it_was(done):
    """The position survives JSON, as in a checkpoint, and another number of threads."""

    def new(threads):
        sources = [Numbered(70), Numbered(50, first=100)]
        return stream(sources, [2.0, 1.0], threads=threads, options=AugmentOptions())

    assert_goes_on(new, done)


def test_each_epoch_holds_every_record_once_in_another_order():
    batches = stream([Numbered(12)])
    epochs = [numbers(batches, 3) for _ in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_augmentation_differs_between_epochs():
    batches = stream([Numbered(1)], batch_size=1, options=AugmentOptions())
    images = [next(batches)["image"] for _ in range(6)]
    assert len({image.tobytes() for image in images}) == 6


@pytest.mark.parametrize("batch_size", [1, 2, 3, 70])
def test_any_batch_size_with_one_or_two_sources(batch_size):
    for sources in ([Numbered(60)], [Numbered(60), Numbered(50)]):
        batches = stream(sources, batch_size=batch_size)
        assert next(batches)["image"].shape[0] == batch_size


def test_sources_are_mixed_by_weight():
    batches = stream([Numbered(90), Numbered(20, first=100)], [3.0, 1.0])
    seen = np.array(numbers(batches, 60))
    assert (seen >= 100).mean() == pytest.approx(0.25, abs=0.01)
    # Within each source every record comes about equally often.
    small = np.bincount(seen[seen >= 100] - 100, minlength=20)
    assert np.ptp(small) <= 1
    large = np.bincount(seen[seen < 100], minlength=90)
    assert np.ptp(large) <= 1


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_each_batch_of_the_one_stream(hosts):
    """Rows, order and changes are those of one host, so any number can go on from a position."""
    sources = [Numbered(8), Numbered(5)]
    options = {"batch_size": 4, "options": AugmentOptions()}
    alone = stream(sources, [8.0, 10.0], **options)
    together = [
        stream(sources, [8.0, 10.0], host=host, hosts=hosts, **options) for host in range(hosts)
    ]
    for _ in range(3):
        parts = [next(batches) for batches in together]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_same([rows], [next(alone)])
    assert all(batches.get_state() == alone.get_state() for batches in together)
    alone.set_state(together[-1].get_state())
    assert numbers(alone, 1) == [n for batches in together for n in numbers(batches, 1)]


def test_a_source_without_records_is_refused():
    with pytest.raises(ValueError, match="0 records"):
        stream([Numbered(5), Numbered(0)])


def test_bad_options_are_refused_at_once():
    with pytest.raises(ValueError, match=r"config\.augment\.scale_min"):
        stream([Numbered(5)], options=AugmentOptions(scale_min=0))


# --- real files ----------------------------------------------------------------------------------


def test_batches_of_a_record_set():
    source = RecordSource(DEMO, "test", decode=False)
    batches = stream([source], threads=2, size=64, max_heads=4)
    seen = [next(batches) for _ in range(3)]
    assert all(batch["valid"][:, 0].all() for batch in seen)
    assert all(batch["has_pose"][:, 0].all() for batch in seen)
    assert np.std(seen[0]["image"]) > 10


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_damaged_record_stops_the_stream_and_is_named(tmp_path, threads):
    damaged = tmp_path / "records"
    shutil.copytree(DEMO, damaged)
    shard = flip_a_bit(damaged, "test", record=7)
    source = RecordSource(damaged, "test", decode=False)
    batches = stream([source], batch_size=8, threads=threads)
    with pytest.raises(DamagedRecord, match=rf"{shard.name}: record 7 .*checksum"):
        numbers(batches, -(-len(source) // 8))  # one epoch


def test_reading_threads_import_nothing_large():
    """What decoding needs is there once a source is open."""
    code = (
        "import sys; from mtnet_jax.data.records import RecordSource;"
        f"source = RecordSource({str(DEMO)!r}, 'test'); before = set(sys.modules); source[0];"
        "print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
