"""Which heads packing draws, its options, and packed inputs in the stream."""

import json
import pickle
import threading

import numpy as np
import pytest

from mtnet_jax.config import default_config
from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.packing import Packer, PackOptions, check_pack_options
from mtnet_jax.errors import BadInput, BadRecord
from tests.augmentation import NO_AUGMENTATION
from tests.batched import Numbered, assert_goes_on, assert_same, record, stream
from tests.packed import PLAIN, Painted, one_head_each

# --- who is drawn --------------------------------------------------------------------------------


def numbered(*groups: list[dict]) -> list[dict]:
    """All records of some groups; the label of a head is the number of its group."""
    return [
        {**each, "labels": np.array([number], np.int32)}
        for number, group in enumerate(groups)
        for each in group
    ]


def shares(sources, weights=None, *, options=PLAIN, inputs=80) -> np.ndarray:
    """How often each label is drawn, of 16 draws an input; sum 1."""
    packer = Packer(
        sources, weights or [1.0] * len(sources), options._replace(tiles=(4,)), NO_AUGMENTATION
    )
    rng = np.random.default_rng(6)
    labels = np.concatenate([packer(rng, 32)["labels"] for _ in range(inputs)])
    assert len(labels) == 16 * inputs  # one head a tile
    return np.bincount(labels, minlength=3) / len(labels)


def test_sectors_come_by_the_root_of_their_number():
    """64, 16 and 4 heads: 8 to 4 to 2."""
    heads = numbered(
        one_head_each([0.0] * 64), one_head_each([90.0] * 16), one_head_each([-135.0] * 4)
    )
    np.testing.assert_allclose(shares([heads]), np.array([8, 4, 2]) / 14, atol=0.04)


def test_sectors_are_round_multiples_of_45_degrees_and_closed_at_the_back():
    """180, -180, 160 and -170 are one sector of 64, by heading or by pose; 4 lie beyond it."""
    back = [
        *one_head_each([180.0, -180.0, 160.0, -170.0] * 8),
        *one_head_each([180.0, -160.0, 165.0, -170.0] * 8, posed=True),
    ]
    heads = numbered(back, one_head_each([150.0, 120.0] * 2), [])
    np.testing.assert_allclose(shares([heads])[:2], np.array([8, 2]) / 10, atol=0.04)


def test_labels_are_read_side_by_side_and_heads_keep_their_order():
    """Two records far from each other wait until both are read."""
    heads = numbered(*(one_head_each([angle] * 65) for angle in (0.0, 90.0, 180.0)))
    together = threading.Barrier(2, timeout=30)

    class Slow(list):
        def __getitem__(self, index):
            if index in (0, len(self) - 1):
                together.wait()
            return super().__getitem__(index)

    slow, quick = (
        Packer([source], [1.0], PLAIN, NO_AUGMENTATION) for source in (Slow(heads), heads)
    )
    assert slow._places.tolist() == [[0, index, 0] for index in range(len(heads))]
    np.testing.assert_array_equal(slow._cumulative, quick._cumulative)


@pytest.mark.parametrize(("unlabelled", "weight"), [(0.1, 0.1), (0.0, 0.0), (1.0, 1.0)])
def test_heads_of_unknown_heading_come_less_often(unlabelled, weight):
    """16 and 4 known ones: chances of 1/4 and 1/2 each, 6 in all and 0.3 in the mean."""
    heads = numbered(
        one_head_each([0.0] * 16), one_head_each([90.0] * 4), one_head_each([None] * 30)
    )
    expected = np.array([4, 2, 30 * 0.3 * weight])
    found = shares([heads], options=PLAIN._replace(unlabelled=unlabelled))
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.04)


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_heads_with_a_heading_alone_come_less_often(share):
    """16 posed ones and 16 with a heading, of one sector; a source without posed ones is alike."""
    heads = numbered(one_head_each([0.0] * 16, posed=True), one_head_each([0.0] * 16))
    options = PLAIN._replace(heading_only=share)
    expected = np.array([1, share]) / (1 + share)
    np.testing.assert_allclose(shares([heads], options=options)[:2], expected, atol=0.04)
    if share:
        alone = numbered([], one_head_each([0.0] * 16))
        found = shares([heads, alone], options=options)
        np.testing.assert_allclose(found[1], 0.5 + expected[1] / 2, atol=0.04)
    else:
        with pytest.raises(BadInput, match=r"config\.pack\.share .*no record has a head"):
            Packer([one_head_each([0.0] * 3)], [1.0], options, NO_AUGMENTATION)


def test_where_nothing_is_known_all_heads_are_alike():
    heads = numbered(one_head_each([None] * 12), one_head_each([None] * 4))
    found = shares([heads], options=PLAIN._replace(unlabelled=0.0))
    np.testing.assert_allclose(found[:2], [0.75, 0.25], atol=0.04)


def test_sources_come_by_their_weights_however_many_heads_they_have():
    one, two = numbered(one_head_each([0.0] * 3), []), numbered([], one_head_each([0.0] * 40))
    np.testing.assert_allclose(shares([one, two], [3.0, 1.0])[:2], [0.75, 0.25], atol=0.04)
    # One without any head to pack has no tile.
    np.testing.assert_allclose(shares([one, [record([])]], [1.0, 9.0])[:2], [1, 0])


def test_small_and_ignored_heads_are_never_drawn():
    """By the longer side of 12 pixels; as neighbours they may well be in the image."""
    heads = [
        *one_head_each([0.0] * 4, box=(10, 10, 15, 22)),  # 5 x 12
        *one_head_each([None], box=(10, 10, 22.5, 14)),
    ]
    never = [
        *one_head_each([90.0] * 40, box=(10, 10, 21.9, 21.9)),
        *one_head_each([None] * 40, box=(10, 10, 14, 14)),
        *one_head_each([-90.0] * 40, ignore=np.array([True])),
    ]
    assert shares([numbered(heads, never)])[0] == 1
    for alone in (never, [], [record([])]):
        with pytest.raises(ValueError, match=r"config\.pack\.share .*no record has a head.*to 0"):
            Packer([alone], [1.0], PLAIN, NO_AUGMENTATION)


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"share": -0.1},
        {"share": 1.5},
        {"share": float("nan")},
        {"shift": 1.2},
        {"shift": -0.1},
        {"occlude": 2.0},
        {"cut": 1.5},
        {"heading_only": -0.1},
        {"unlabelled": -1.0},
        {"unlabelled": 1.1},
        {"tiles": ()},
        {"tiles": (0, 1)},
        {"tiles": (1, 2.5)},
        {"head_min": 0.0},
        {"head_min": 0.8, "head_max": 0.5},
        {"head_min": float("nan")},
    ],
)
def test_options_out_of_range_are_named(bad):
    name = next(iter(bad))
    options = PackOptions()._replace(**bad)
    with pytest.raises(ValueError, match=rf"config\.pack\.{name} is "):
        check_pack_options(options)
    with pytest.raises(ValueError, match=rf"config\.pack\.{name} is "):
        Packer([Painted()], [1.0], options, NO_AUGMENTATION)
    with pytest.raises(ValueError, match=rf"config\.pack\.{name} is "):
        stream([Numbered(5)], pack=options)


def test_usual_options_are_in_range_and_pack_nothing():
    check_pack_options(PackOptions())
    assert PackOptions().share == 0
    assert PackOptions(**default_config().pack) == PackOptions()
    # As a configuration has them after it was written to a file.
    written = PackOptions(**json.loads(json.dumps(PackOptions(share=0.5)._asdict())))
    check_pack_options(written)
    Packer([Painted()], [1.0], written, NO_AUGMENTATION)(np.random.default_rng(0), 64)


# --- packer and stream ---------------------------------------------------------------------------


def test_an_input_depends_on_its_generator_alone():
    packer = Packer(
        [Painted()], [1.0], PackOptions(share=1.0, occlude=0.5, cut=0.5), AugmentOptions()
    )
    first = [packer(np.random.default_rng(seed), 96) for seed in range(4)]
    copy = pickle.loads(pickle.dumps(packer))
    assert_same([copy(np.random.default_rng(seed), 96) for seed in range(4)], first)
    assert len({packed["image"].tobytes() for packed in first}) == 4


def test_an_image_that_cannot_be_decoded_is_named():
    broken = [{**each, "image": b"junk"} for each in one_head_each([0.0])]
    packer = Packer([broken], [1.0], PLAIN, NO_AUGMENTATION)
    with pytest.raises(BadRecord, match=r"'image' of 'test'"):
        packer(np.random.default_rng(0), 64)


PACK = PackOptions(share=0.3, tiles=(2,))  # four heads, where a record of `Numbered` has one


def packed_stream(threads=1, *, pack=PACK, seed=3, **options):
    sources = [Numbered(70), Numbered(50, first=100)]
    arguments = {"max_heads": 5, "options": AugmentOptions(), **options}
    return stream(sources, [2.0, 1.0], threads=threads, seed=seed, pack=pack, **arguments)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_of_the_inputs_is_packed(share):
    batches = packed_stream(pack=PACK._replace(share=share), options=NO_AUGMENTATION)
    counts = np.concatenate([next(batches)["valid"].sum(axis=1) for _ in range(100)])
    assert set(counts.tolist()) <= {1, 4}
    assert (counts == 4).mean() == pytest.approx(share, abs=0.05)


def test_inputs_that_are_not_packed_are_those_of_the_stream():
    """Order and shares of the sources do not change for them."""
    ordinary = packed_stream(pack=None, options=NO_AUGMENTATION)
    mixed = packed_stream(options=NO_AUGMENTATION)
    for _ in range(10):
        one, other = next(ordinary), next(mixed)
        alone = other["valid"].sum(axis=1) == 1
        assert alone.any()
        np.testing.assert_array_equal(one["labels"][alone], other["labels"][alone])
        np.testing.assert_array_equal(one["image"][alone], other["image"][alone])


def test_without_a_share_nothing_changes():
    ordinary = packed_stream(pack=None)
    expected = [next(ordinary) for _ in range(4)]
    for pack in (PackOptions(), PACK._replace(share=0.0)):
        none = packed_stream(pack=pack)
        assert_same([next(none) for _ in range(4)], expected)


def test_the_packed_stream_does_not_depend_on_the_number_of_threads():
    def first(threads, seed=3):
        batches = packed_stream(threads, seed=seed)
        return [next(batches) for _ in range(6)]

    alone = first(0)
    assert any((batch["valid"].sum(axis=1) == 4).any() for batch in alone)
    assert_same(first(1), alone)
    assert_same(first(3), alone)
    other = first(1, seed=4)
    assert any((a["image"] != b["image"]).any() for a, b in zip(other, alone, strict=True))


@pytest.mark.parametrize("done", [0, 7])
def test_the_packed_stream_goes_on_where_it_was(done):
    assert_goes_on(packed_stream, done)
