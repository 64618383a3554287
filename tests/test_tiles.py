"""Large images in tiles: when, where they lie, and what is taken from which look."""

import tracemalloc

import cv2
import numpy as np
import pytest

from mtnet_jax import Predictor
from mtnet_jax.cli import main
from mtnet_jax.data.geometry import BORDER_GREY
from mtnet_jax.errors import BadInput
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.predict.far_look import PLAIN
from mtnet_jax.predict.placing import input_of_views, letterboxed
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.predict.second_look import merge
from mtnet_jax.predict.tiles import (
    AUTO,
    BORDER,
    LARGEST,
    LEAST,
    MOST_OVERLAP,
    SMALL,
    WHOLE,
    are_whole,
    check_tile,
    join,
    tile_side,
    tile_view,
    windows,
    without_cut_ones,
)
from tests.conftest import REPOSITORY

SIZE = 448
IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))


def heads_of(*boxes: tuple[float, ...], scores: tuple[float, ...]) -> dict[str, np.ndarray]:
    count = len(boxes)
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "labels": np.zeros(count, int),
        "rotations": np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        "scales": np.ones(count, np.float32),
    }


EVERYWHERE = (0, 0, 1000, 1000)  # a tile that cuts nothing of an image of 1000 pixels


def square(left: float, top: float, side: float) -> tuple[float, ...]:
    return (left, top, left + side, top + side)


def crowd() -> np.ndarray:
    """Six photographs of one person each, small in a large image: heads of 30 to 50 pixels."""
    image = np.full((1200, 1600, 3), BORDER_GREY, np.uint8)
    for i, path in enumerate(IMAGES):
        small = cv2.resize(read_image(path), None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
        left, top = 130 + 530 * (i % 3), 330 + 420 * (i // 3)
        image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image


# When, and where


def a_head(pixels_of_input: float, score: float, longer: int) -> dict[str, np.ndarray]:
    return heads_of(square(10, 10, pixels_of_input * longer / SIZE), scores=(score,))


@pytest.mark.parametrize(
    ("longer", "pixels", "score", "along"),
    [
        pytest.param(800, SMALL - 1, 0.9, 2, id="twice the scale"),
        pytest.param(4000, SMALL - 1, 0.9, 3, id="three times the scale"),
        pytest.param(600, SMALL - 1, 0.9, 0, id="an image hardly larger than the input"),
        pytest.param(4000, SMALL + 1, 0.9, 0, id="no small head"),
        pytest.param(4000, SMALL + 1, PLAIN - 0.1, 3, id="nobody for sure"),
        pytest.param(600, SMALL + 1, PLAIN - 0.1, 0, id="nobody in an image hardly larger"),
    ],
)
def test_large_images_with_small_heads_are_looked_at_in_tiles(longer, pixels, score, along):
    shape = (longer // 2, longer, 3)
    side = tile_side(a_head(pixels, score, longer), shape, SIZE, AUTO)
    assert (side is not None) == (along > 0)
    if side is not None:
        lefts, tops = ({window[axis] for window in windows(shape, side)} for axis in (0, 1))
        assert len(lefts) == along
        assert len(tops) < along or longer / 2 > side


def test_tiles_that_are_asked_for():
    nobody = heads_of(scores=())
    assert tile_side(nobody, (500, 800), SIZE, 700) == 700
    assert tile_side(nobody, (500, 700), SIZE, 700) is None
    assert tile_side(a_head(10, 0.9, 4000), (3000, 4000), SIZE, None) is None


@pytest.mark.parametrize("tile", [0, -1, 31, True, 2.5, "640"])
def test_what_is_no_tile(tile, capsys):
    with pytest.raises(BadInput, match="side in pixels"):
        Predictor(runtime="onnxruntime", tile=tile)
    if tile != "640":
        with pytest.raises(SystemExit):
            main(["predict", "x.jpg", f"--tile={tile}"])
        assert "neither a side in pixels, auto, nor none" in capsys.readouterr().err


def test_a_side_may_be_a_number_of_numpy():
    check_tile(np.int64(LEAST))


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(2800, 1400, 700), (701, 300, 700), (4000, 3000, 1600), (800, 800, 440), (5000, 700, 300)],
)
def test_small_heads_are_whole_in_some_tile(width, height, side):
    found = windows((height, width, 3), side)
    covered = np.zeros((height, width), int)
    for left, top, right, bottom in found:
        assert right - left <= side
        assert bottom - top <= side
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    head = min(WHOLE * max(width, height), MOST_OVERLAP * side) - 2  # where rounding put the tiles
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top = rng.uniform(0, width - head), rng.uniform(0, height - head)
        assert any(
            a <= left and b <= top and left + head <= c and top + head <= d for a, b, c, d in found
        )


@pytest.mark.parametrize("window", [(0, 0, 300, 300), (150, 60, 450, 360), (300, 0, 600, 200)])
def test_an_input_shows_a_tile_alone(window):
    height = window[3] if window[3] == 200 else 400  # the last tile is as high as its image
    image = np.random.default_rng(1).integers(0, 255, (height, 600, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    left, top, right, bottom = window
    shown = input_of_views([(image, tile_view(window, SIZE))], SIZE)
    expected, _ = letterboxed(image[top:bottom, left:right], SIZE)
    inner = np.s_[4:-4, 4:-4]  # beside the border the tile alone has no neighbours
    assert np.abs(shown[inner].astype(int) - expected[inner]).max() <= 1


# What is taken from which


def test_a_head_that_a_tile_cuts_is_left_to_the_others():
    boxes = ((110, 20, 150, 60), (250, 20, 300, 60), (100, 0, 130, 30))
    tile = heads_of(*boxes, scores=(0.9, 0.8, 0.7))
    # The first is whole; the second ends at the tile's right border; the third at its left one,
    # and at the top, where the image ends too.
    assert are_whole(tile, (100, 0, 300, 200), (400, 900)).tolist() == [True, False, False]
    assert are_whole(tile, (0, 0, 300, 200), (200, 300)).all()


def test_large_heads_come_from_the_whole_image_and_small_ones_from_tiles():
    """In an image of 1000 pixels: of 80, 150 and 300 pixels, each seen by both looks."""
    shape, side = (1000, 1000), 400
    places = [square(20, 20, 80), square(300, 20, 150), square(600, 300, 300)]
    assert 80 < 1000 * WHOLE < 150 < 1000 * LARGEST < 300
    whole = heads_of(*places, scores=(0.9, 0.8, 0.7))
    tile = heads_of(*(np.add(place, 3) for place in places), scores=(0.5, 0.85, 0.95))
    for found in (whole, tile):
        found["boxes"] = found["boxes"].astype(np.float32)
    lefts = join(whole, [tile], [EVERYWHERE], shape, side, 0.5)["boxes"][:, 0].tolist()
    assert sorted(lefts) == [23, 303, 600]
    surer = {**whole, "scores": np.float32([0.9, 0.86, 0.7])}
    assert sorted(join(surer, [tile], [EVERYWHERE], shape, side, 0.5)["boxes"][:, 0].tolist()) == [
        23,
        300,
        600,
    ]
    # Very small tiles cut heads that are small in the image: those of the whole image stay.
    stays = join(whole, [heads_of(scores=())], [EVERYWHERE], shape, 100, 0.5)["boxes"][
        :, 0
    ].tolist()
    assert sorted(stays) == [20, 300, 600]


def test_a_head_seen_twice_is_one():
    first = heads_of((0, 0, 40, 40), (100, 0, 140, 40), scores=(0.6, 0.5))
    second = heads_of((2, 0, 42, 40), scores=(0.9,))
    merged = merge([first, second], 0.5)
    np.testing.assert_allclose(merged["scores"], [0.9, 0.5])
    np.testing.assert_array_equal(merged["boxes"][:, 0], [2, 100])


def test_a_part_of_a_head_goes_where_another_tile_shows_the_whole():
    """Also where its box does not reach to the cut, and whichever is surer."""
    whole, part, beside = (0, 0, 45, 60), (8, 2, 46, 30), (35, 10, 55, 40)
    for scores in ((0.9, 0.8), (0.8, 0.9)):
        tiles = [
            heads_of(whole, scores=scores[:1]),
            heads_of(part, beside, scores=(scores[1], 0.5)),
        ]
        left = without_cut_ones(tiles, tiles, 0.5)
        assert [each["boxes"].tolist() for each in left] == [[list(whole)], [list(beside)]]
        assert [len(each["scores"]) for each in left] == [1, 1]
    # A small head before a large one, seen by one tile, is a head.
    both = heads_of(whole, part, scores=(0.9, 0.8))
    assert [len(each["boxes"]) for each in without_cut_ones([both], [both], 0.5)] == [2]


def test_what_is_doubtful_hides_nothing():
    """A doubtful large box of the whole image, and a sure small head inside it in a tile."""
    large, small = square(0, 0, 400), square(100, 100, 50)
    for score, kept in ((PLAIN - 0.1, 2), (PLAIN + 0.1, 1)):
        whole = heads_of(large, scores=(score,))
        found = join(whole, [heads_of(small, scores=(0.9,))], [EVERYWHERE], (1000, 1000), 400, 0.5)
        assert len(found["boxes"]) == kept


def test_a_doubtful_box_round_several_plain_heads_is_none():
    crowd_box, one, other = square(0, 0, 400), square(100, 100, 50), square(200, 200, 50)
    whole = heads_of(crowd_box, scores=(PLAIN - 0.1,))
    for scores, kept in (((0.9, 0.9), 2), ((0.9, PLAIN - 0.1), 3), ((0.9,), 2)):
        inside = heads_of(*(one, other)[: len(scores)], scores=scores)
        found = join(whole, [inside], [EVERYWHERE], (1000, 1000), 400, 0.5)
        assert len(found["boxes"]) == kept


def test_a_small_head_inside_the_box_of_a_large_one_stays():
    """A child in the corner of the box of an adult: the whole image shows both, a tile it alone."""
    large, small = square(300, 300, 400), square(620, 620, 60)
    whole = heads_of(large, small, scores=(0.99, FOUND_SCORE + 0.1))
    tile = heads_of(np.add(small, 2), scores=(0.95,))
    found = join(whole, [tile], [EVERYWHERE], (1000, 1000), 400, 0.5)
    assert found["boxes"].tolist() == [list(large), np.add(small, 2).tolist()]
    alone = heads_of(large, scores=(0.99,))  # which does not see it: a part of the large one
    assert len(join(alone, [tile], [EVERYWHERE], (1000, 1000), 400, 0.5)["boxes"]) == 1


def test_what_is_hardly_seen_cuts_nothing():
    """A false box of one tile round a sure head of another, and the other way round."""
    head, round_it = square(100, 100, 50), square(85, 85, 80)
    for score, kept in ((0.12, True), (FOUND_SCORE, False)):
        parts = [heads_of(head, scores=(0.9,)), heads_of(round_it, scores=(score,))]
        left, _ = without_cut_ones(parts, parts, 0.5)
        assert (len(left["boxes"]) == 1) == kept


def test_a_tile_that_cuts_a_head_may_be_surer_of_it():
    """The left tile ends within the head, and shows nine tenths of it; the right one has it all."""
    places = [(0, 0, 445, 1000), (355, 0, 800, 1000)]
    left = heads_of((360, 500, 445, 590), scores=(0.98,))
    right = heads_of((360, 500, 450, 590), scores=(0.14,))
    found = join(heads_of(scores=()), [left, right], places, (1000, 800), 445, 0.5)
    assert found["boxes"].tolist() == [[360, 500, 450, 590]]
    assert found["scores"] == pytest.approx(0.98)


def test_a_head_of_just_the_size_that_tiles_show_whole_may_come_from_the_whole_image():
    """It comes too near to the borders of both tiles, which rounding has put so."""
    places = [(0, 0, 538, 1000), (403, 0, 1344, 1000)]
    head = (403.7, 500, 537.5, 600)
    assert 1344 * WHOLE - 2 * BORDER < 537.5 - 403.7 < 1344 * WHOLE
    tile = heads_of(head, scores=(0.99,))
    found = join(tile, [tile, tile], places, (1000, 1344), 538, 0.5)
    assert len(found["boxes"]) == 1


def test_as_many_heads_as_there_are():
    """Compared in blocks: 30,000 boxes of four tiles would need gigabytes at once."""
    rng = np.random.default_rng(0)
    corners = 60.0 * np.stack(np.meshgrid(np.arange(50), np.arange(30)), axis=-1).reshape(-1, 2)
    shown = [
        heads_of(
            *(square(*corner, 40) for corner in corners + rng.uniform(-2, 2, corners.shape)),
            scores=tuple(rng.uniform(0.5, 1, len(corners))),
        )
        for _ in range(4)
    ]
    tracemalloc.start()
    left = merge(without_cut_ones(shown, shown, 0.5), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(left["boxes"]) == len(corners)
    assert peak < 8 * (4 * len(corners)) ** 2  # bytes: not even a number for each pair


# All together


def test_small_heads_in_a_large_image_are_found():
    image = crowd()
    without, auto = (Predictor(runtime="onnxruntime", tile=tile)(image) for tile in (None, AUTO))
    assert len(without) < len(auto) == len(IMAGES)
    for head in auto:
        (left, top), (right, bottom) = head.box[:2], head.box[2:]
        assert 25 < max(right - left, bottom - top) < 60
    once = Predictor(runtime="onnxruntime", second_look=False)(image)
    small = [head for head in once if max(np.subtract(head.box[2:], head.box[:2])) < 80]
    assert len(small) <= len(without)


@pytest.mark.parametrize(("tile", "count"), [(AUTO, 1), (None, 1), (800, 1 + 6)])
def test_tiles_that_are_asked_for_come_without_second_looks_too(tile, count):
    predictor = Predictor(runtime="onnxruntime", second_look=False, tile=tile)
    detect, inputs = predictor._detect, []
    predictor._detect = lambda each: inputs.append(len(each)) or detect(each)
    predictor(np.zeros((1200, 2000, 3), np.uint8))
    assert sum(inputs) == count


def test_images_of_several_sizes_together():
    """In one call as one by one: some in tiles, some not."""
    images = [read_image(IMAGES[0]), crowd(), cv2.resize(crowd(), (800, 600))]
    predictor = Predictor(runtime="onnxruntime")
    together = predictor.predict_batch(images)
    for image, heads in zip(images, together, strict=True):
        alone = predictor(image)
        assert len(alone) == len(heads) > 0
        for a, b in zip(alone, heads, strict=True):
            np.testing.assert_allclose(a.box, b.box, atol=0.05)
