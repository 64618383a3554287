"""Outputs, truths and comparisons of the tests of the multitask loss."""

from functools import cache

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from mtnet_jax.anchors import make_grid
from mtnet_jax.losses import LossWeights, multitask_loss
from mtnet_jax.representations import make_representation
from mtnet_jax.targets import Truths
from tests import slow_loops

SIZE = 64  # 2 x 2, 4 x 4 and 8 x 8 cells, 252 predictions
GRID = make_grid(SIZE)
IMAGES, SLOTS, CLASSES = 2, 6, 2
POSE = 5 + CLASSES  # the first pose channel
POSE_SIZE = {"euler": 3, "vectors": 9, "sixd": 6, "quaternion": 4}
WEIGHTS = LossWeights(alpha=0.3, xy=1.5, wh=0.7, obj=1.2, cls=0.4, heading=0.6, iou=0.9)
PARTS = ("xy", "wh", "iou", "obj", "cls", "pose", "heading")


@cache
def compiled(name, kind="squared"):
    """Jitted (outputs, truths, weights = WEIGHTS) -> ((loss, parts), gradient of the outputs)."""
    representation = make_representation(name, vector_loss=kind)

    def loss(outputs, truths, weights):
        return multitask_loss(
            outputs,
            truths,
            grid=GRID,
            representation=representation,
            weights=weights,
            iou_loss="giou",  # all of whose gradient the loops' differences see
        )

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda outputs, truths, weights=WEIGHTS: run(outputs, truths, weights)


def random_outputs(rng, name):
    channels = POSE + POSE_SIZE[name]
    return [
        rng.normal(size=(IMAGES, SIZE // s, SIZE // s, 3, channels)).astype(np.float32)
        for s in (32, 16, 8)
    ]


def random_truths(rng):
    shape = (IMAGES, SLOTS)
    centre = rng.uniform(0, SIZE, (*shape, 2))
    extent = np.exp(rng.uniform(np.log(2), np.log(60), (*shape, 2)))
    boxes = np.clip(np.concatenate([centre - extent / 2, centre + extent / 2], axis=-1), 0, SIZE)
    yaw = rng.uniform(-179, 179, IMAGES * SLOTS)
    pitch, roll = rng.uniform(-70, 70, (2, IMAGES * SLOTS))
    rotations = Rotation.from_euler("XYZ", np.stack([-pitch, yaw, roll], axis=1), degrees=True)
    has_pose = rng.random(shape) < 0.7
    matrices = rotations.as_matrix().reshape(*shape, 3, 3)
    return Truths(
        boxes=boxes.astype(np.float32),
        rotations=np.where(has_pose[..., None, None], matrices, np.eye(3)).astype(np.float32),
        has_pose=has_pose,
        ignore=rng.random(shape) < 0.2,
        labels=rng.integers(0, CLASSES, shape).astype(np.int32),
        valid=rng.random(shape) < 0.9,
        headings=rng.uniform(-180, 180, shape).astype(np.float32),
        has_heading=rng.random(shape) < 0.6,
    )


def truths_of(*boxes, has_pose=True, ignore=False, headings=None):
    """The first image shows these heads, the second one none. All look straight ahead, but for
    the headings."""
    truths = Truths(
        boxes=np.zeros((IMAGES, SLOTS, 4), np.float32),
        rotations=np.tile(np.eye(3, dtype=np.float32), (IMAGES, SLOTS, 1, 1)),
        has_pose=np.ones((IMAGES, SLOTS), bool),
        ignore=np.zeros((IMAGES, SLOTS), bool),
        labels=np.zeros((IMAGES, SLOTS), np.int32),
        valid=np.zeros((IMAGES, SLOTS), bool),
        headings=np.zeros((IMAGES, SLOTS), np.float32),
        has_heading=np.zeros((IMAGES, SLOTS), bool),
    )
    given = (0, slice(len(boxes)))
    truths.boxes[given], truths.valid[given] = boxes, True
    truths.has_pose[given], truths.ignore[given] = has_pose, ignore
    if headings is not None:
        truths.headings[given], truths.has_heading[given] = headings, True
    return truths


def around(x, y, width, height):
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def at(outputs, place, image=0):
    """The channels of one prediction."""
    level, row, column, anchor = place
    return outputs[level][image, row, column, anchor]


def place_of(box):
    return slow_loops.place_of(np.asarray(box, np.float64), SIZE)


def slow(outputs, truths, name, weights=WEIGHTS):
    return slow_loops.multitask_loss(
        outputs,
        truths,
        size=SIZE,
        pose_size=POSE_SIZE[name],
        name=name,
        weights=weights,
        iou_loss="giou",
    )


def check(outputs, truths, name, weights=WEIGHTS):
    """Compares loss, parts and counts with the loops. Returns the counts and the gradient."""
    (loss, aux), gradient = compiled(name)(outputs, truths, weights)
    expected_loss, parts, counts = slow(outputs, truths, name, weights)
    for part in PARTS:
        np.testing.assert_allclose(aux[part], parts[part], rtol=2e-5, atol=1e-6, err_msg=part)
    for count in ("positives", "posed", "headed", "shadowed"):
        assert aux[count] == counts[count], count
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)
    assert all(np.isfinite(g).all() for g in gradient)
    return counts, [np.asarray(g) for g in gradient]


def put_predictions_on_truths(rng, outputs, truths):
    """Half of the predictions whose cell holds a truth's centre come to lie on its box, roughly."""
    for b, i in zip(*np.nonzero(truths.valid), strict=True):
        box = truths.boxes[b, i].astype(np.float64)
        for place in slow_loops.all_places(SIZE):
            level, row, column, _ = place
            stride = slow_loops.STRIDES[level]
            x = (box[0] + box[2]) / 2 / stride - column
            y = (box[1] + box[3]) / 2 / stride - row
            if 0.02 < x < 0.98 and 0.02 < y < 0.98 and rng.random() < 0.5:
                exact = slow_loops.raw_of(box, place, SIZE)
                at(outputs, place, b)[:4] = exact + rng.normal(0, 0.2, 4)


def level(headings):
    """Rotations of heads that look level, by scipy."""
    return Rotation.from_euler("Y", np.reshape(headings, (-1, 1)), degrees=True).as_matrix()
