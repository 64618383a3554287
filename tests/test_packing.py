"""Packed inputs: drawn heads against the labels that come with them, chances, and the stream."""

import json
import pickle
from collections import Counter
from functools import cache

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.config import default_config
from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.images import decode_at_scale
from mtnet_jax.data.packing import Packer, PackOptions, check_pack_options
from mtnet_jax.errors import BadInput, BadRecord
from tests.augmentation import NO_AUGMENTATION
from tests.test_batches import Numbered, assert_same, record, stream

PLAIN = PackOptions(share=1.0, occlude=0.0)
SIZE = 256
SIDE = 44  # of the square head boxes, pixels
WHITE = np.array([255, 255, 255])
BACKGROUND = (40, 40, 40)


# --- painted images ----------------------------------------------------------------------------


def colour_of(label: int) -> np.ndarray:
    """Of 24 colours that are far from each other, from white and from what lies behind them."""
    hsv = np.array(
        [[[label * 15 % 180, 255 - label // 12 * 110, 220 - label // 12 * 70]]], np.uint8
    )
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(int)


def nose_of(rotation: np.ndarray) -> np.ndarray:
    """Where the nose points in the image, right and down: against the third column."""
    return -rotation[:2, 2]


def paint(pixels: np.ndarray, left: int, top: int, label: int, rotation: np.ndarray) -> None:
    """A flat square, with a white dot where the nose of such a head is."""
    pixels[top : top + SIDE, left : left + SIDE] = colour_of(label)
    middle = np.array([left, top]) + SIDE / 2 + 0.4 * SIDE * nose_of(rotation)
    cv2.circle(pixels, np.round(middle - 0.5).astype(int).tolist(), 4, WHITE.tolist(), -1)


class Painted:
    """Images of four heads each; the label, and so the colour, tells one head from all others.

    Even ones have a pose, odd ones a heading alone; all look to a side, so that the dot shows.
    """

    def __init__(self, images: int = 6, suffix: str = ".png", scale: int = 1):
        rng = np.random.default_rng(4)
        self._records, self.rotations, self.headings = [], [], []
        for number in range(images):
            pixels = np.full((180, 200, 3), BACKGROUND, np.uint8)
            boxes, headings, labels = [], [], []
            for cell in range(4):
                label = 4 * number + cell
                heading = rng.choice([-1, 1]) * (90 + rng.choice([-1, 1]) * rng.uniform(15, 40))
                nod = rng.uniform(-40, 40) * (label % 2 == 0)
                rotation = Rotation.from_euler("XY", [-nod, heading], degrees=True).as_matrix()
                left, top = 10 + 100 * (cell % 2), 12 + 84 * (cell // 2)
                left, top = np.array([left, top]) + rng.integers(0, 24, 2)
                paint(pixels, left, top, label, rotation)
                boxes.append([left, top, left + SIDE, top + SIDE])
                headings.append(heading)
                labels.append(label)
                self.rotations.append(rotation)
                self.headings.append(heading)
            pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            posed = np.array(labels) % 2 == 0
            rotations = np.where(posed[:, None, None], self.rotations[-4:], np.eye(3))
            self._records.append(
                record(
                    np.array(boxes) * scale,
                    image=cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes(),
                    rotations=rotations.astype(np.float32),
                    has_pose=posed,
                    labels=np.array(labels, np.int32),
                    headings=np.where(posed, 0, headings).astype(np.float32),
                    has_heading=~posed,
                )
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        return self._records[index]


def dot_of(image: np.ndarray, middle: np.ndarray, width: float) -> np.ndarray:
    """Where the white dot of a head is, right and down of its middle, in parts of its width."""
    x, y = np.maximum(middle - width / 2, 0).astype(int)
    around = image[y : y + int(width) + 2, x : x + int(width) + 2]
    light = np.maximum(around.min(axis=-1).astype(float) - 80, 0)
    ys, xs = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5 + np.array([y, x])[:, None, None]
    light[np.hypot(xs - middle[0], ys - middle[1]) > width / 2] = 0
    assert light.max() > 40
    return (np.array([(light * xs).sum(), (light * ys).sum()]) / light.sum() - middle) / width


@pytest.mark.parametrize(
    ("suffix", "scale"),
    [(".png", 1), (".jpg", 2), (".jpg", 9)],  # the largest are decoded small
)
@pytest.mark.parametrize("turn", [0.0, 25.0])
def test_every_head_lies_on_its_image(suffix, scale, turn):
    """The colour in the middle of each box is its head's, the dot lies where its labels say."""
    source = Painted(suffix=suffix, scale=scale)
    augment = NO_AUGMENTATION._replace(flip=0.5, turn=turn)
    packer = Packer([source], [1.0], PLAIN, augment)
    seen, mirrored = Counter(), Counter()
    for seed in range(16):
        packed = packer(np.random.default_rng(seed), SIZE)
        image = packed["image"]
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        for i, (box, label) in enumerate(zip(packed["boxes"], packed["labels"], strict=True)):
            width, height = box[2:] - box[:2]
            if packed["ignore"][i] or abs(width - height) > 0.1:
                continue  # cut at the border of its tile: its middle is not known
            middle = (box[:2] + box[2:]) / 2
            x, y = middle.astype(int)
            off = np.abs(image[y, x].astype(int) - colour_of(label)).max()
            assert off < (25 if suffix == ".jpg" else 6), (seed, label)
            dot = dot_of(image, middle, width)
            reach = 0.05 + 0.3 / width  # the dot is drawn to whole pixels, and found among pixels
            before, heading = source.rotations[label], np.radians(source.headings[label])
            if label % 2 == 0:
                assert packed["has_pose"][i]
                assert not packed["has_heading"][i]
                np.testing.assert_allclose(dot, 0.4 * nose_of(packed["rotations"][i]), atol=reach)
                mirrored[bool(before[0, 2] * packed["rotations"][i][0, 2] < 0)] += 1
            else:
                assert not packed["has_pose"][i]
                assert packed["has_heading"][i]
                np.testing.assert_array_equal(packed["rotations"][i], np.eye(3))
                # The face looks as far forward as before the turn: what is sideways is then known.
                sideways = np.cos(heading) * np.tan(np.radians(packed["headings"][i]))
                np.testing.assert_allclose(dot[0], -0.4 * sideways, atol=reach)
            seen[int(label)] += 1
    assert len(seen) == 24
    assert min(mirrored[True], mirrored[False]) > 15


def test_no_head_that_is_seen_is_missing():
    """Wherever an input shows a head's colour, one of its boxes of this label is."""
    packer = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION._replace(flip=0.5))
    found = 0
    for seed in range(12):
        packed = packer(np.random.default_rng(seed), SIZE)
        for label in range(24):
            shown = np.abs(packed["image"].astype(int) - colour_of(label)).max(axis=-1) < 6
            # Where two other colours meet, a few pixels may look alike.
            shown = cv2.erode(shown.astype(np.uint8), np.ones((3, 3))) > 0
            covered = np.zeros((SIZE, SIZE), bool)
            for box in packed["boxes"][packed["labels"] == label]:
                left, top, right, bottom = np.clip(box + [-2, -2, 2, 2], 0, SIZE).astype(int)
                covered[top:bottom, left:right] = True
            assert not (shown & ~covered).any(), (seed, label)
            found += shown.sum()
    assert found > 0.2 * 12 * SIZE**2


@cache
def plain(side: int) -> bytes:
    return cv2.imencode(".png", np.full((side, side, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize("size", [64, 100, 225])
def test_boxes_lie_in_the_input_and_tiles_leave_no_gap(size):
    """Also where the number of tiles does not divide the input."""
    places = np.arange(0, 300, 12.0)
    heads = np.array([[x, y, x + 12, y + 12] for x in places for y in places])
    # Those near the border are not drawn, so that no tile reaches out of the image.
    border = (heads.min(axis=1) < 40) | (heads.max(axis=1) > 260)
    crowd = record(heads, image=plain(300), has_pose=np.zeros(len(heads), bool), ignore=border)
    for tiles in (3, 7):
        packer = Packer([[crowd]], [1.0], PLAIN._replace(tiles=(tiles,)), NO_AUGMENTATION)
        for seed in range(3):
            packed = packer(np.random.default_rng(seed), size)
            assert (packed["image"] == 90).all()
            boxes = packed["boxes"]
            assert len(boxes) > 3 * tiles**2
            assert boxes.min() >= 0
            assert boxes.max() <= size
            assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_heads_are_as_large_as_they_should_be_and_near_the_middle():
    """One head an image: its longer side and its centre, in parts of the tile."""
    heads = one_head_each([0.0] * 20, box=(30, 40, 60, 52), side=100)
    options = PLAIN._replace(tiles=(2,), head_min=0.3, head_max=0.6, shift=0.1)
    packer = Packer([heads], [1.0], options, NO_AUGMENTATION)
    boxes = np.concatenate([packer(np.random.default_rng(s), 256)["boxes"] for s in range(60)])
    parts = (boxes[:, 2] - boxes[:, 0]) / 128
    np.testing.assert_allclose((boxes[:, 3] - boxes[:, 1]) / 128, 0.4 * parts, atol=1e-3)
    assert 0.3 - 1e-6 < parts.min() < 0.31
    assert 0.58 < parts.max() < 0.6 + 1e-6
    assert np.log(parts).mean() == pytest.approx(np.log(0.3 * 0.6) / 2, abs=0.03)  # log-uniform
    off = (boxes[:, :2] + boxes[:, 2:]) / 2 / 128 % 1 - 0.5
    assert 0.09 < np.abs(off).max() < 0.1 + 1e-6
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=0.02)


def test_scale_and_shift_of_the_augmentation_have_no_part_and_colours_do():
    packer = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION)
    packed = packer(np.random.default_rng(0), 96)
    moved = NO_AUGMENTATION._replace(scale_min=0.1, scale_max=3.0, shift=0.9)
    assert_same([Packer([Painted()], [1.0], PLAIN, moved)(np.random.default_rng(0), 96)], [packed])
    grey = Packer([Painted()], [1.0], PLAIN, NO_AUGMENTATION._replace(grey=1.0))
    image = grey(np.random.default_rng(0), 96)["image"].astype(int)
    assert np.ptp(packed["image"].astype(int), axis=-1).max() > 100
    assert np.ptp(image, axis=-1).max() <= 1


def test_patches_hide_at_most_a_quarter_of_a_head():
    """The same input with and without: what differs is one flat rectangle on the head."""
    heads = one_head_each([0.0], box=(20, 30, 60, 80), side=100)
    options = PLAIN._replace(tiles=(1,), shift=0.0)
    hidden = 0
    for seed in range(40):
        images = []
        for occlude in (0.0, 1.0):
            packer = Packer([heads], [1.0], options._replace(occlude=occlude), NO_AUGMENTATION)
            packed = packer(np.random.default_rng(seed), 128)
            images.append(packed["image"].astype(int))
        (left, top, right, bottom), *others = packed["boxes"]
        assert not others
        rows, columns = np.nonzero((images[0] != images[1]).any(axis=-1))
        if not len(rows):
            continue
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width <= 0.5 * (right - left) + 1
        assert height <= 0.5 * (bottom - top) + 1
        assert len(rows) == height * width
        assert len(np.unique(images[1][rows, columns], axis=0)) == 1
        inside = (columns >= left - 1) & (columns <= right) & (rows >= top - 1) & (rows <= bottom)
        hidden += inside.any()
    assert hidden > 30


# --- who is drawn --------------------------------------------------------------------------------


def one_head_each(headings, *, box=(10, 10, 30, 34), side=40, posed=False, **fields) -> list[dict]:
    """Records of one head each; None is a head of which neither pose nor heading is known."""
    records = []
    for heading in headings:
        turn = Rotation.from_euler("Y", [[heading or 0]], degrees=True).as_matrix()
        known = heading is not None
        labels = {
            "has_pose": np.array([known and posed]),
            "rotations": turn.astype(np.float32) if posed else np.eye(3, dtype=np.float32)[None],
            "has_heading": np.array([known and not posed]),
            "headings": np.array([0 if posed else heading or 0], np.float32),
        }
        records.append(record([box], image=plain(side), **labels, **fields))
    return records


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
    packer = Packer([Painted()], [1.0], PackOptions(share=1.0, occlude=0.5), AugmentOptions())
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
    batches = packed_stream(2)
    for _ in range(done):
        next(batches)
    position = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches) for _ in range(6)]
    again = packed_stream(1)
    next(again)
    again.set_state(position)
    assert_same([next(again) for _ in range(6)], expected)


# --- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [3.0, 1.0, 0.6, 0.5, 0.3, 0.2, 0.01])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_decoded_with_the_pixels_that_are_needed(suffix, scale):
    """A JPEG no larger than twice that; other formats whole."""
    scene = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    found = decode_at_scale(cv2.imencode(suffix, scene)[1].tobytes(), scale)
    factor = found.factor
    assert found.pixels.shape == (96 // factor, 160 // factor, 3)
    if suffix == ".png":
        assert factor == 1
        np.testing.assert_array_equal(found.pixels, scene[..., ::-1])
    else:
        assert 1 / factor >= min(scale, 1)
        assert factor == 8 or 1 / (2 * factor) < scale
