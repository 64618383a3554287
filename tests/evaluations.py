"""Predictions and truths of the tests of the evaluation, and matching written out slowly."""

import numpy as np
from scipy.spatial.transform import Rotation


def a_pred(boxes, scores, rotations=None):
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "rotations": _rotations(rotations, len(scores)),
    }


def a_truth(boxes, rotations=None, ignore=None, has_pose=None):
    n = len(boxes)
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "rotations": _rotations(rotations, n),
        "has_pose": np.full(n, rotations is not None) if has_pose is None else np.array(has_pose),
        "ignore": np.zeros(n, bool) if ignore is None else np.array(ignore, bool),
        "width": 400,
        "height": 200,
        "image_id": "made",
    }


def _rotations(rotations, n):
    if rotations is None:
        return np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    return np.array(rotations, np.float32).reshape(-1, 3, 3)


def canonical(yaw, pitch=0.0, roll=0.0):
    """R = Rx(-pitch) Ry(yaw) Rz(roll) by scipy."""
    return Rotation.from_euler("XYZ", [-pitch, yaw, roll], degrees=True).as_matrix()


def random_pairs(seed, images=30, upright=False):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        n = int(rng.integers(0, 5))
        corner = rng.uniform(0, 150, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(15, 60, (n, 2))], axis=1)
        chosen = rng.integers(0, n, int(rng.integers(0, 7))) if n else np.zeros(0, int)
        guesses = boxes[chosen] + rng.normal(0, 5, (len(chosen), 4))
        poses = [_random_pose(rng, upright) for _ in range(n)]
        guessed = [
            poses[i] @ Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix() for i in chosen
        ]
        pairs.append(
            (
                a_pred(guesses, rng.uniform(0, 1, len(chosen)), guessed),
                a_truth(boxes, poses, rng.random(n) < 0.2, rng.random(n) < 0.8),
            )
        )
    return pairs


def _random_pose(rng, upright):
    if not upright:
        return Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return canonical(rng.uniform(-180, 180), rng.uniform(-60, 60), rng.uniform(-60, 60))


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def slow_match(pred, truth, threshold):
    """{prediction: truth}, set of absorbed predictions."""
    takes, absorbed = {}, set()
    order = sorted(range(len(pred["scores"])), key=lambda i: (-float(pred["scores"][i]), i))
    for i in order:
        overlaps = [
            slow_iou(pred["boxes"][i].astype(float), b.astype(float)) for b in truth["boxes"]
        ]
        best = None
        for j, overlap in enumerate(overlaps):
            is_free = not truth["ignore"][j] and j not in takes.values()
            if is_free and overlap >= threshold and (best is None or overlap > overlaps[best]):
                best = j
        if best is not None:
            takes[i] = best
        elif any(g and o >= threshold for g, o in zip(truth["ignore"], overlaps, strict=True)):
            absorbed.add(i)
    return takes, absorbed


NOTHING = a_pred([], [])
