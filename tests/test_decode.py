"""Decoding against loops: what becomes a head, with which pose, and in which slot."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.anchors import make_grid
from mtnet_jax.decode import DecodeOptions, decode
from mtnet_jax.errors import BadInput
from mtnet_jax.representations import make_representation
from mtnet_jax.system import build_system
from tests import slow_loops
from tests.tiny import tiny_config

SIZE = 64  # 252 predictions
GRID = make_grid(SIZE)
POSE_SIZE = {"euler": 3, "vectors": 9, "sixd": 6, "quaternion": 4}
OPTIONS = DecodeOptions(score_threshold=0.3, iou_threshold=0.5, max_heads=20, candidates=80)


@partial(jax.jit, static_argnames=("name", "max_heads", "candidates", "vote"))
def _compiled(outputs, score_threshold, iou_threshold, *, name, max_heads, candidates, vote):
    options = DecodeOptions(score_threshold, iou_threshold, max_heads, candidates, vote)
    return decode(outputs, grid=GRID, representation=make_representation(name), options=options)


def compiled(outputs, *, name="vectors", options=OPTIONS):
    """`decode` under jit; other thresholds need no new compilation."""
    thresholds = options.score_threshold, options.iou_threshold
    fixed = options._asdict()
    del fixed["score_threshold"], fixed["iou_threshold"]
    return _compiled(outputs, *thresholds, name=name, **fixed)


def random_outputs(rng, name="vectors", num_classes=1, images=2):
    channels = 5 + num_classes + POSE_SIZE[name]
    outputs = [
        rng.normal(size=(images, SIZE // s, SIZE // s, 3, channels)).astype(np.float32)
        for s in (32, 16, 8)
    ]
    for level in outputs:
        level[..., 4] *= 2
        level[..., 5 : 5 + num_classes] += 1
    return outputs


def quiet_outputs(name="vectors", num_classes=1):
    """Two images in which the network sees nothing, but for what a test puts there."""
    outputs = random_outputs(np.random.default_rng(99), name, num_classes)
    for level in outputs:
        level[..., 4] = -20
    return outputs


def at(outputs, place, image=0):
    level, row, column, anchor = place
    return outputs[level][image, row, column, anchor]


def put_head(outputs, box, score_logit, *, image=0):
    """Makes the prediction of a box see it, with a class score near 1. Returns its channels."""
    place = slow_loops.place_of(box, SIZE)
    answer = at(outputs, place, image)
    answer[:4], answer[4], answer[5] = slow_loops.raw_of(box, place, SIZE), score_logit, 20
    return answer


def spread_boxes(count):
    """Small boxes that do not overlap, in rows of four: each has a cell of its own at stride 8."""
    corners = [(16 * (i % 4) + 2, 16 * (i // 4) + 3) for i in range(count)]
    return [(x, y, x + 5, y + 4) for x, y in corners]


def check_against_loops(outputs, name, options):
    """Compares with the loops; returns how many heads each image has."""
    heads = jax.tree.map(np.asarray, compiled(outputs, name=name, options=options))
    expected = slow_loops.decode(
        outputs, size=SIZE, pose_size=POSE_SIZE[name], name=name, options=options
    )
    slots = min(options.max_heads, options.candidates, 252)
    assert heads.boxes.shape == (len(expected), slots, 4)
    assert heads.scores.shape == heads.labels.shape == heads.valid.shape == (len(expected), slots)
    assert heads.rotations.shape == (len(expected), slots, 3, 3)
    for b, found in enumerate(expected):
        n = len(found)
        np.testing.assert_array_equal(heads.valid[b], np.arange(slots) < n)
        assert (heads.scores[b, n:] == 0).all()
        assert (np.diff(heads.scores[b]) <= 0).all()
        if not found:
            continue
        boxes, scores, labels, rotations = zip(*found, strict=True)
        np.testing.assert_allclose(heads.boxes[b, :n], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(heads.scores[b, :n], scores, rtol=1e-5)
        np.testing.assert_array_equal(heads.labels[b, :n], labels)
        np.testing.assert_allclose(heads.rotations[b, :n], rotations, atol=2e-4)
    return [len(found) for found in expected]


@pytest.mark.parametrize(
    ("name", "num_classes"), [("vectors", 1), ("euler", 3), ("sixd", 2), ("quaternion", 1)]
)
def test_random_outputs_against_loops(name, num_classes):
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(4):
        outputs = random_outputs(rng, name, num_classes)
        counts += check_against_loops(outputs, name, OPTIONS)
    assert max(counts) == OPTIONS.max_heads  # sometimes more are found than there are slots,
    assert min(counts) > 5


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(0.7, 0.3, 300, 512),  # more slots and candidates than predictions or heads
        DecodeOptions(0.0, 0.99, 300, 512),  # nearly nothing suppressed, nothing too weak
        DecodeOptions(0.01, 0.5, 50, 8),  # more slots than candidates
        DecodeOptions(0.5, 0.0, 1, 40),  # one slot
    ],
)
def test_options_against_loops(options):
    check_against_loops(random_outputs(np.random.default_rng(1)), "vectors", options)


@pytest.mark.parametrize("name", ["vectors", "sixd"])
@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(0.3, 0.5, 100, 512, True),
        DecodeOptions(0.05, 0.5, 100, 512, True),  # heads that are not found keep their own pose
        DecodeOptions(0.6, 0.3, 100, 512, True),  # found ones below the threshold vote
        DecodeOptions(0.3, 0.9, 100, 512, True),  # kept ones vote on each other
    ],
)
def test_votes_against_loops(name, options):
    outputs = random_outputs(np.random.default_rng(2), name)
    for level in outputs:  # boxes that overlap, as those of trained networks do
        level[..., :4] *= 0.3
    assert min(check_against_loops(outputs, name, options)) > 5
    voted, alone = (
        np.asarray(compiled(outputs, name=name, options=options._replace(vote=vote)).rotations)
        for vote in (True, False)
    )
    assert np.abs(voted - alone).max() > 0.1


@pytest.mark.parametrize(
    ("name", "refused"), [("euler", True), ("quaternion", True), ("sixd", False)]
)
def test_angles_have_no_mean_and_no_vote(name, refused):
    config = tiny_config()
    config.decode.vote, config.model.representation = True, name
    if refused:
        with pytest.raises(BadInput, match=f"means nothing of {name}: set it to False, or take"):
            build_system(config)
    else:
        build_system(config)


def test_what_is_broken_has_no_vote():
    outputs = quiet_outputs()
    box = (12.0, 12.0, 34.0, 34.0)
    answer = put_head(outputs, box, 3.0)
    broken = at(outputs, (*slow_loops.place_of(box, SIZE)[:3], 0))
    broken[:] = answer
    broken[-1] = np.nan
    options = OPTIONS._replace(vote=True)
    check_against_loops(outputs, "vectors", options)


def test_defaults_leave_the_whole_grid_of_a_small_input_to_the_suppression():
    assert DecodeOptions() == (0.3, 0.5, 100, 512, False)


# --- From a truth to the network's output and back -----------------------------------------------


@pytest.mark.parametrize("name", POSE_SIZE)
def test_heads_put_into_the_maps_come_out(name):
    rng = np.random.default_rng(2)
    outputs = quiet_outputs(name)
    boxes = spread_boxes(6)
    rotations = Rotation.from_rotvec(rng.normal(0, 0.4, (6, 3))).as_matrix()
    targets = np.asarray(make_representation(name).encode(rotations.astype(np.float32)))
    logits = (1.0, 3.0, 2.0, 6.0, 5.0, 4.0)
    for box, target, logit in zip(boxes, targets, logits, strict=True):
        put_head(outputs, box, logit)[6:] = target
    heads = jax.tree.map(np.asarray, compiled(outputs, name=name))
    order = np.argsort(logits)[::-1]
    assert heads.valid.sum(axis=1).tolist() == [6, 0]
    np.testing.assert_allclose(heads.boxes[0, :6], np.array(boxes)[order], atol=1e-3)
    np.testing.assert_allclose(heads.rotations[0, :6], rotations[order], atol=1e-4)


def test_vectors_become_the_nearest_rotation():
    """Noisy, scaled, left-handed and nearly flat triples of vectors, against scipy's Kabsch."""
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(12, 9))
    raw[:4] = Rotation.random(4, random_state=3).as_matrix().reshape(4, 9) + 0.1 * raw[:4]
    raw[4:6] *= [[1e-3], [1e3]]
    raw[6:8, 6:] = -np.cross(raw[6:8, :3], raw[6:8, 3:6])
    raw[8, 6:] = raw[8, :3] + raw[8, 3:6] + 0.01
    outputs = quiet_outputs()
    for i, box in enumerate(spread_boxes(12)):
        put_head(outputs, box, 13 - i)[6:] = raw[i]
    heads = compiled(outputs)
    assert heads.valid[0].sum() == 12
    for i in range(12):
        expected = slow_loops.pose_of("vectors", raw[i])
        np.testing.assert_allclose(heads.rotations[0, i], expected, atol=2e-4)


# --- Slots ---------------------------------------------------------------------------------------


def test_no_heads():
    heads = compiled(quiet_outputs())
    assert not np.asarray(heads.valid).any()
    assert not np.asarray(heads.scores).any()


def test_fewer_slots_than_heads_keep_the_best():
    outputs = quiet_outputs()
    boxes = spread_boxes(9)
    for i, box in enumerate(boxes):
        put_head(outputs, box, (i * 4) % 9 + 1)
    heads = compiled(outputs, options=OPTIONS._replace(max_heads=3))
    best = sorted(range(9), key=lambda i: -((i * 4) % 9))[:3]
    assert np.asarray(heads.valid[0]).all()
    np.testing.assert_allclose(heads.boxes[0], [boxes[i] for i in best], atol=1e-3)


def test_the_threshold_itself_is_enough():
    outputs = quiet_outputs()
    # sigmoid(0) * sigmoid(20) is 0.5 in float32.
    for box, logit in zip(spread_boxes(3), (0.0, 1e-3, -1e-3), strict=True):
        put_head(outputs, box, logit)
    heads = compiled(outputs, options=OPTIONS._replace(score_threshold=0.5))
    assert heads.valid[0].sum() == 2
    assert heads.scores[0, 1] == 0.5


def test_classes_share_one_suppression_and_each_head_has_its_best_class():
    outputs = quiet_outputs(num_classes=3)
    first, same, other = (8, 8, 40, 40), (9, 9, 41, 41), (44, 44, 60, 60)
    answer = put_head(outputs, first, 4)
    answer[5:8] = (-5, 6, 2)
    place = (1, 1, 1, 1)
    assert place != slow_loops.place_of(first, SIZE)
    at(outputs, place)[:8] = [*slow_loops.raw_of(same, place, SIZE), 3, 6, 0, 0]
    put_head(outputs, other, 2)[5:8] = (1, 0, 5)
    heads = compiled(outputs)
    assert heads.valid[0].sum() == 2
    assert heads.labels[0, :2].tolist() == [1, 2]
    expected = [slow_loops.sigmoid(4) * slow_loops.sigmoid(6)]
    expected += [slow_loops.sigmoid(2) * slow_loops.sigmoid(5)]
    np.testing.assert_allclose(heads.scores[0, :2], expected, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.0, -1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_are_left_out(value, threshold):
    clean = quiet_outputs()
    box = (8, 8, 40, 40)
    put_head(clean, box, 2)
    options = DecodeOptions(score_threshold=threshold, max_heads=300)
    expected = jax.tree.map(np.asarray, compiled(clean, options=options))
    for channel in range(15):
        outputs = [level.copy() for level in clean]
        # It would see the same head, and surer; broken, it must not suppress the other one either.
        place = (1, 1, 1, 1)
        broken = at(outputs, place)
        broken[:6] = [*slow_loops.raw_of(box, place, SIZE), 9, 9]
        broken[channel] = value
        heads = jax.tree.map(np.asarray, compiled(outputs, options=options))
        n = heads.valid[0].sum()
        assert heads.valid[0, :n].all()
        assert n >= 1
        for name in ("boxes", "scores", "rotations"):
            assert np.isfinite(getattr(heads, name)[0, :n]).all()
            np.testing.assert_array_equal(getattr(heads, name)[0, 0], getattr(expected, name)[0, 0])
        for a, b in zip(heads, expected, strict=True):
            np.testing.assert_array_equal(a[1], b[1])  # the other image sees nothing of it


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_a_map_of_nothing_but_nan_shows_no_heads(threshold):
    outputs = [np.full_like(level, np.nan) for level in quiet_outputs()]
    heads = compiled(outputs, options=DecodeOptions(score_threshold=threshold, max_heads=300))
    assert not np.asarray(heads.valid).any()
    assert not np.asarray(heads.scores).any()


@pytest.mark.parametrize("name", POSE_SIZE)
def test_huge_finite_outputs_give_finite_heads(name):
    outputs = quiet_outputs(name)
    for box, huge in zip(spread_boxes(3), (1e4, 1e20, 3e38), strict=True):
        put_head(outputs, box, 5)[6:] = np.resize([huge, -huge / 3, huge / 7, 0], POSE_SIZE[name])
    at(outputs, (0, 0, 0, 2))[:6] = (1e38, -1e38, 1e38, 1e38, 1e38, 1e38)
    heads = compiled(outputs, name=name, options=OPTIONS._replace(iou_threshold=1.0))
    valid = np.asarray(heads.valid[0])
    assert valid.sum() == 4
    for field in (heads.boxes, heads.scores, heads.rotations):
        assert np.isfinite(field[0][valid]).all()
    rotations = np.asarray(heads.rotations[0][valid], np.float64)
    gram = rotations @ rotations.swapaxes(1, 2)
    np.testing.assert_allclose(gram, np.tile(np.eye(3), (4, 1, 1)), atol=1e-5)


def test_one_compilation_for_any_number_of_heads(monkeypatch):
    monkeypatch.setattr("mtnet_jax.decode.FEW", 8)
    run = jax.jit(
        lambda outputs: decode(
            outputs, grid=GRID, representation=make_representation("sixd"), options=OPTIONS
        )
    )
    shapes = set()
    for count in (0, 1, 7, 16):
        outputs = quiet_outputs("sixd")
        for box in spread_boxes(count):
            put_head(outputs, box, 3)
        heads = run(outputs)
        assert heads.valid[0].sum() == count
        shapes.add(tuple(field.shape for field in heads))
    assert run._cache_size() == len(shapes) == 1


@pytest.mark.parametrize("count", [0, 1, 7, 16])
def test_the_shorter_way_for_a_few_heads_gives_the_same(monkeypatch, count):
    outputs = quiet_outputs("sixd")
    for i, box in enumerate(spread_boxes(count)):
        put_head(outputs, box, i / 4 + 1, image=i % 2)

    def decoded():
        return jax.jit(partial(decode, grid=GRID, options=OPTIONS, representation=sixd))(outputs)

    sixd = make_representation("sixd")
    monkeypatch.setattr("mtnet_jax.decode.FEW", 32)  # less than candidates: both ways are there
    found = decoded()
    monkeypatch.setattr("mtnet_jax.decode.FEW", 0)
    expected = decoded()
    np.testing.assert_array_equal(found.valid, expected.valid)
    assert found.valid.sum() == count
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a[found.valid], b[found.valid])
