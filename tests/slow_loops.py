"""Targets, losses and decoding once more, as slow NumPy loops in float64 written from the formulas.

Nothing here imports the package: the tests compare it with these loops. Predictions are spoken of
by their place (level, row, column, anchor), never by a flat index, except in `flat_index`.
"""

import math
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

STRIDES = (32, 16, 8)
COCO = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)


@cache
def anchors_for(size, anchors=COCO):
    """Anchors (3 levels, 3, 2) in pixels of an input of `size`; written down at 416."""
    return np.array(anchors, np.float64).reshape(3, 3, 2) * size / 416


@cache
def anchor_of(place, size, anchors=COCO):
    """Width and height of the anchor of a place."""
    level, _, _, anchor = place
    return tuple(anchors_for(size, anchors)[level, anchor].tolist())


def all_places(size):
    for level, stride in enumerate(STRIDES):
        for row in range(size // stride):
            for column in range(size // stride):
                for anchor in range(3):
                    yield level, row, column, anchor


def flat_index(place, size):
    """Place in the list: coarse to fine, row by row, cell by cell, anchor by anchor."""
    level, row, column, anchor = place
    before = sum(3 * (size // stride) ** 2 for stride in STRIDES[:level])
    return before + 3 * (row * (size // STRIDES[level]) + column) + anchor


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bce(logit, label):
    """-label log(p) - (1 - label) log(1 - p)."""
    log_p, log_not_p = (-max(-x, 0) - math.log1p(math.exp(-abs(x))) for x in (logit, -logit))
    return -label * log_p - (1 - label) * log_not_p


def iou(a, b):
    """Of two boxes left, top, right, bottom."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def shape_iou(a, b):
    """Of two (width, height) as if they had the same centre."""
    both = min(a[0], b[0]) * min(a[1], b[1])
    return both / (a[0] * a[1] + b[0] * b[1] - both)


def box_of(raw, place, size, anchors=COCO):
    """YOLOv3: b = (sigmoid(t) + cell) stride, size = anchor exp(t)."""
    level, row, column, _ = place
    stride = STRIDES[level]
    anchor_w, anchor_h = anchor_of(place, size, anchors)
    x, y = (sigmoid(raw[0]) + column) * stride, (sigmoid(raw[1]) + row) * stride
    w, h = anchor_w * math.exp(min(raw[2], 8)), anchor_h * math.exp(min(raw[3], 8))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def raw_of(box, place, size, anchors=COCO):
    """tx, ty, tw, th of a box with its centre strictly inside the cell."""
    level, row, column, _ = place
    stride = STRIDES[level]
    anchor_w, anchor_h = anchor_of(place, size, anchors)
    x = (box[0] + box[2]) / 2 / stride - column
    y = (box[1] + box[3]) / 2 / stride - row
    w, h = box[2] - box[0], box[3] - box[1]
    return [np.log(x / (1 - x)), np.log(y / (1 - y)), np.log(w / anchor_w), np.log(h / anchor_h)]


def place_of(box, size, anchors=COCO):
    """Best of nine by shape, first of equals; the cell of the centre, or the nearest one."""
    shape = (box[2] - box[0], box[3] - box[1])
    best, best_overlap = None, -1.0
    for level in range(3):
        for anchor in range(3):
            overlap = shape_iou(shape, anchor_of((level, 0, 0, anchor), size, anchors))
            if overlap > best_overlap:
                best, best_overlap = (level, anchor), overlap
    level, anchor = best
    cells = size // STRIDES[level]
    column = math.floor((box[0] + box[2]) / 2 / STRIDES[level])
    row = math.floor((box[1] + box[3]) / 2 / STRIDES[level])
    return level, min(max(row, 0), cells - 1), min(max(column, 0), cells - 1), anchor


def assign(boxes, valid, ignore, size, anchors=COCO):
    """Of one image: place of each truth (None: padding), owner {place: truth}, the shadowed."""
    places = [place_of(b, size, anchors) if v else None for b, v in zip(boxes, valid, strict=True)]
    owner, shadowed = {}, set()
    for i, box in enumerate(boxes):
        if not valid[i] or ignore[i]:
            continue
        if places[i] not in owner:
            owner[places[i]] = i
            continue
        rival = owner[places[i]]
        area = (box[2] - box[0]) * (box[3] - box[1])
        rival_box = boxes[rival]
        rival_area = (rival_box[2] - rival_box[0]) * (rival_box[3] - rival_box[1])
        winner, loser = (i, rival) if area > rival_area else (rival, i)
        owner[places[i]] = winner
        shadowed.add(loser)
    return places, owner, shadowed


def assign_several(boxes, valid, ignore, size, anchors, positives, threshold):
    """As `assign`, with more anchors a truth: its places (best first), {place: truth}, shadowed."""
    claims = []  # (rank, -area, truth, place) of each claim of a truth that trains
    places = []
    for i, box in enumerate(boxes):
        shape = (box[2] - box[0], box[3] - box[1])
        ranked = []
        for level in range(3):
            for anchor in range(3):
                overlap = shape_iou(shape, anchor_of((level, 0, 0, anchor), size, anchors))
                ranked.append((-overlap, level, anchor))
        ranked.sort()
        mine = []
        for rank, (overlap, level, anchor) in enumerate(ranked[:positives]):
            if rank and not -overlap > threshold:
                continue
            cells = size // STRIDES[level]
            column = math.floor((box[0] + box[2]) / 2 / STRIDES[level])
            row = math.floor((box[1] + box[3]) / 2 / STRIDES[level])
            place = (level, min(max(row, 0), cells - 1), min(max(column, 0), cells - 1), anchor)
            mine.append(place)
            if valid[i] and not ignore[i]:
                claims.append((rank, -shape[0] * shape[1], i, place))
        places.append(mine if valid[i] else [])
    owner, shadowed = {}, set()
    for rank, _, i, place in sorted(claims):
        if place not in owner:
            owner[place] = i
        elif rank == 0:
            shadowed.add(i)
    return places, owner, shadowed


def canonical(rotation):
    """Yaw, pitch, roll in degrees of R = Rx(-pitch) Ry(yaw) Rz(roll), for an upright head."""
    r = rotation
    for s in (1, -1):
        pitch = np.rad2deg(np.arctan2(s * r[1, 2], s * r[2, 2]))
        yaw = np.rad2deg(np.arctan2(r[0, 2], s * np.hypot(r[0, 0], r[0, 1])))
        roll = np.rad2deg(np.arctan2(-s * r[0, 1], s * r[0, 0]))
        if abs(pitch) < 90 and abs(roll) < 90:
            return yaw, pitch, roll
    raise AssertionError("an upside-down head")


def pose_loss(name, raw, rotation):
    """Eq. 2 to 4 for vectors; the losses of the other representations as the notes state them."""
    columns = [rotation[:, i] for i in range(3)]
    if name == "vectors":
        predicted = [raw[0:3], raw[3:6], raw[6:9]]
        loss = sum(np.sum((p - c) ** 2) for p, c in zip(predicted, columns, strict=True))
        for i in range(3):
            for j in range(i):
                loss += np.dot(predicted[i], predicted[j]) ** 2
        return loss
    if name == "sixd":
        return np.sum((raw - np.concatenate(columns[:2])) ** 2)
    if name == "quaternion":
        q = Rotation.from_matrix(rotation).as_quat(scalar_first=True)
        return min(np.sum((raw - q) ** 2), np.sum((raw + q) ** 2))
    yaw, pitch, roll = canonical(rotation)
    d, turn = abs(raw[0] - yaw / 180), abs(raw[2] - roll / 90)
    return min(d**2, (2 - d) ** 2) + (raw[1] - pitch / 90) ** 2 + min(turn**2, (4 - turn) ** 2)


def pose_of(name, raw):
    """The rotation that a finite raw output stands for."""
    if name == "vectors":
        # Kabsch: the rotation that takes the axes nearest to the three predicted columns.
        return Rotation.align_vectors(raw.reshape(3, 3), np.eye(3))[0].as_matrix()
    if name == "sixd":
        x = raw[:3] / np.linalg.norm(raw[:3])
        y = raw[3:] - np.dot(raw[3:], x) * x
        y = y / np.linalg.norm(y)
        return np.array([x, y, np.cross(x, y)]).T
    if name == "quaternion":
        return Rotation.from_quat(raw, scalar_first=True).as_matrix()
    yaw, pitch, roll = raw[0] * 180, raw[1] * 90, raw[2] * 90
    return Rotation.from_euler("XYZ", [-pitch, yaw, roll], degrees=True).as_matrix()


def heading_loss(name, raw, heading):
    """Squared distance, seen from above, of the unit vectors where a face looks and should look.

    Vectors say it with their third one as it is. The 1e-6 is what keeps the gradient finite.
    """
    x, _, z = raw[6:9] if name == "vectors" else pose_of(name, raw)[:, 2]
    length = math.sqrt(x * x + z * z + 1e-6)
    angle = math.radians(heading)
    # |u - v|^2 = |u|^2 + |v|^2 - 2 u v with both of length 1
    return 2 - 2 * (x / length * math.sin(angle) + z / length * math.cos(angle))


def iou_losses(predicted, truth):
    """Both by the definitions of the papers, for one pair of boxes."""
    (ax, ay, ar, ab), (bx, by, br, bb) = predicted, truth
    overlap = iou(predicted, truth)
    wide, tall = max(ar, br) - min(ax, bx), max(ab, bb) - min(ay, by)
    both = max(min(ar, br) - max(ax, bx), 0) * max(min(ab, bb) - max(ay, by), 0)
    union = (ar - ax) * (ab - ay) + (br - bx) * (bb - by) - both
    apart = ((ax + ar - bx - br) ** 2 + (ay + ab - by - bb) ** 2) / 4
    shapes = math.atan((br - bx) / (bb - by)) - math.atan((ar - ax) / (ab - ay))
    v = 4 / math.pi**2 * shapes**2
    trade = v / (1 - overlap + v) if v else 0
    return {
        "giou": 1 - overlap + (wide * tall - union) / (wide * tall),
        "ciou": 1 - overlap + apart / (wide**2 + tall**2) + trade * v,
    }


def multitask_loss(
    outputs,
    truths,
    *,
    size,
    pose_size,
    name,
    weights,
    anchors=COCO,
    positives=1,
    threshold=0.5,
    iou_loss="ciou",
):
    """Eq. 1 to 5 over images, cells, anchors and truths: the loss, its parts, the counts.

    Heads that know their heading alone have its loss in the place of L_pose.
    """
    sums = dict.fromkeys(("xy", "wh", "iou", "obj", "cls", "pose", "heading"), 0.0)
    counts = {"positives": 0, "posed": 0, "headed": 0, "shadowed": 0, "neutral": 0}
    num_classes = outputs[0].shape[-1] - 5 - pose_size
    for b in range(len(truths.boxes)):
        boxes = np.asarray(truths.boxes[b], np.float64).tolist()
        valid, ignore = truths.valid[b], truths.ignore[b]
        places, owner, shadowed = assign_several(
            boxes, valid, ignore, size, anchors, positives, threshold
        )
        counts["shadowed"] += len(shadowed)
        ignored_places = [p for of, i in zip(places, ignore, strict=True) if i for p in of]
        for place in all_places(size):
            level, row, column, anchor = place
            raw = outputs[level][b, row, column, anchor].tolist()
            if place not in owner:
                predicted = box_of(raw, place, size, anchors)
                close = any(
                    v and iou(predicted, box) > 0.5 for box, v in zip(boxes, valid, strict=True)
                )
                if close or place in ignored_places:
                    counts["neutral"] += 1
                else:
                    sums["obj"] += bce(raw[4], 0)
                continue
            i = owner[place]
            counts["positives"] += 1
            sums["obj"] += bce(raw[4], 1)
            left, top, right, bottom = boxes[i]
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            stride, (aw, ah) = STRIDES[level], anchor_of(place, size, anchors)
            target_x = min(max(x / stride - column, 0), 1)
            target_y = min(max(y / stride - row, 0), 1)
            factor = 2 - min((w / size) * (h / size), 1)
            sums["xy"] += factor * (
                (sigmoid(raw[0]) - target_x) ** 2 + (sigmoid(raw[1]) - target_y) ** 2
            )
            sums["wh"] += factor * ((raw[2] - np.log(w / aw)) ** 2 + (raw[3] - np.log(h / ah)) ** 2)
            sums["iou"] += iou_losses(box_of(raw, place, size, anchors), boxes[i])[iou_loss]
            for c in range(num_classes):
                sums["cls"] += bce(raw[5 + c], float(truths.labels[b, i] == c))
            if truths.has_pose[b, i]:
                counts["posed"] += 1
                rotation = np.asarray(truths.rotations[b, i], np.float64)
                sums["pose"] += pose_loss(name, np.array(raw[5 + num_classes :]), rotation)
            elif truths.has_heading is not None and truths.has_heading[b, i]:
                counts["headed"] += 1
                heading = float(truths.headings[b, i])
                sums["heading"] += heading_loss(name, np.array(raw[5 + num_classes :]), heading)
    divisors = {"pose": "posed", "heading": "headed"}
    parts = {
        part: total / max(counts[divisors.get(part, "positives")], 1)
        for part, total in sums.items()
    }
    parts["obj"] = sums["obj"] / max(counts["positives"], len(truths.boxes))
    bbox = (
        weights.xy * parts["xy"]
        + weights.wh * parts["wh"]
        + weights.iou * parts["iou"]
        + weights.obj * parts["obj"]
        + weights.cls * parts["cls"]
    )
    looks = sums["pose"] + weights.heading * sums["heading"]
    looks = looks / max(counts["posed"] + counts["headed"], 1)
    return weights.alpha * bbox + (1 - weights.alpha) * looks, parts, counts


def suppress(boxes, scores, score_threshold, iou_threshold):
    """Greedy: indices of the kept boxes, best first, of equal scores the lower index first."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if scores[i] >= score_threshold and all(
            iou(boxes[i], boxes[k]) <= iou_threshold for k in kept
        ):
            kept.append(i)
    return kept


def decode(outputs, *, size, pose_size, name, options, anchors=COCO):
    """Heads of each image, a list of (box, score, label, rotation) by falling score."""
    num_classes = outputs[0].shape[-1] - 5 - pose_size
    images = []
    for b in range(len(outputs[0])):
        found = []
        for place in all_places(size):
            level, row, column, anchor = place
            raw = outputs[level][b, row, column, anchor].tolist()
            if not np.isfinite(raw).all():
                continue
            label = int(np.argmax(raw[5 : 5 + num_classes]))
            score = sigmoid(raw[4]) * sigmoid(raw[5 + label])
            found.append((box_of(raw, place, size, anchors), score, label, raw[5 + num_classes :]))
        found.sort(key=lambda head: -head[1])
        found = found[: options.candidates]
        kept = suppress(
            [head[0] for head in found],
            [head[1] for head in found],
            options.score_threshold,
            options.iou_threshold,
        )[: options.max_heads]
        poses = [np.array(head[3]) for head in found]
        if options.vote:
            voters = [j for j, head in enumerate(found) if head[1] >= 0.3]
            means = {}
            for i in kept:
                votes = [j for j in voters if iou(found[j][0], found[i][0]) > 0.5]
                if votes:
                    total = sum(found[j][1] for j in votes)
                    means[i] = sum(found[j][1] * poses[j] for j in votes) / total
            poses = [means.get(i, pose) for i, pose in enumerate(poses)]
        images.append([(*found[i][:3], pose_of(name, poses[i])) for i in kept])
    return images
