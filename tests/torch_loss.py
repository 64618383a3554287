"""The multitask loss once more, in PyTorch, for vectors: for comparison in tests and benchmarks.

Written from section 3.3 of the paper over lists of boxes, as ports of YOLOv3 do, and not over
padded arrays: the truths of all images are one long list with the image each belongs to.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

STRIDES = (32, 16, 8)
NEUTRAL_IOU = 0.5


def multitask_loss(maps, batch, anchors, size, *, alpha, cls_weight=0.5) -> torch.Tensor:
    """The total loss (eq. 5), lambda_xy = lambda_wh = lambda_obj = 1, heads of one class.

    Args:
      maps: three of (B, K, K, 3, 15): tx, ty, tw, th, objectness, class, three vectors.
      batch: "boxes" (B, M, 4) xyxy pixels, "rotations" (B, M, 3, 3), and as (B, M) bool "valid",
        "ignore", "has_pose"; tensors.
      anchors: (3, 3, 2) widths and heights in pixels, strides 32, 16, 8.
      size: side of the images in pixels.
      alpha: weight of the box loss; the pose has the rest.
      cls_weight: lambda_cls.
    """
    image, slot = batch["valid"].nonzero(as_tuple=True)
    boxes, ignored = batch["boxes"][image, slot], batch["ignore"][image, slot]
    centre, wh = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    level, anchor = _best_anchor(wh, anchors)
    stride = torch.tensor(STRIDES)[level]
    cell = (centre / stride[:, None]).long().clamp(min=0)
    cell = torch.minimum(cell, (size // stride - 1)[:, None])
    wins = _largest_of_a_prediction(image, level, cell, anchor, wh.prod(1), ignored)

    total = {"xy": 0.0, "wh": 0.0, "obj": 0.0, "cls": 0.0, "pose": 0.0}
    positives, posed = max(int(wins.sum()), 1), 0
    for number, raw in enumerate(maps):
        here = level == number
        total["obj"] += _objectness(
            raw, number, here, anchors, boxes, image, cell, anchor, wins, ignored
        )
        mine = here & wins
        rows = (image[mine], cell[mine, 1], cell[mine, 0], anchor[mine])
        answer = raw[rows]
        small = 2 - (wh[mine].prod(1) / size**2).clamp(max=1)
        offset = centre[mine] / STRIDES[number] - cell[mine]
        ratio = torch.log(wh[mine] / anchors[number][anchor[mine]])
        total["xy"] += (small * ((answer[:, :2].sigmoid() - offset) ** 2).sum(1)).sum()
        total["wh"] += (small * ((answer[:, 2:4] - ratio) ** 2).sum(1)).sum()
        total["cls"] += bce(answer[:, 5], torch.ones(len(answer)), reduction="sum")
        known = batch["has_pose"][image, slot][mine]
        posed += int(known.sum())
        truth = batch["rotations"][image, slot][mine][known]
        total["pose"] += _vectors(answer[known, 6:].reshape(-1, 3, 3), truth.transpose(1, 2))
    box = (total["xy"] + total["wh"] + cls_weight * total["cls"]) / positives
    box = box + total["obj"] / max(positives, len(maps[0]))
    return alpha * box + (1 - alpha) * total["pose"] / max(posed, 1)


def _best_anchor(wh, anchors):
    flat = anchors.reshape(-1, 2)
    inner = torch.minimum(wh[:, None], flat).prod(2)
    best = (inner / (wh.prod(1)[:, None] + flat.prod(1) - inner)).argmax(1)
    return best // 3, best % 3


def _largest_of_a_prediction(image, level, cell, anchor, area, ignored):
    """Of truths that claim the same prediction the largest has it, the first of equal ones."""
    wins, taken = torch.zeros(len(area), dtype=torch.bool), set()
    for k in torch.argsort(-area, stable=True).tolist():
        claim = (int(image[k]), int(level[k]), *cell[k].tolist(), int(anchor[k]))
        if not ignored[k] and claim not in taken:
            taken.add(claim)
            wins[k] = True
    return wins


def _objectness(raw, number, here, anchors, boxes, image, cell, anchor, wins, ignored):
    stride, side = STRIDES[number], raw.shape[1]
    with torch.no_grad():
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        corner = torch.stack([x, y], -1)[:, :, None]
        centre = (raw[..., :2].sigmoid() + corner) * stride
        half = raw[..., 2:4].clamp(max=8).exp() * anchors[number] / 2
        low, high = centre - half, centre + half
        counted = torch.ones(raw.shape[:4], dtype=torch.bool)
        for b in range(len(raw)):
            theirs = boxes[image == b]
            inner = torch.minimum(high[b][..., None, :], theirs[:, 2:])
            inner = inner - torch.maximum(low[b][..., None, :], theirs[:, :2])
            inner = inner.clamp(min=0).prod(-1)
            own = (2 * half[b]).prod(-1)[..., None]
            union = own + (theirs[:, 2:] - theirs[:, :2]).prod(1) - inner
            counted[b] = ~(inner / union > NEUTRAL_IOU).any(-1)
        place = (image, cell[:, 1], cell[:, 0], anchor)
        counted[tuple(p[here & ignored] for p in place)] = False
        target = torch.zeros(raw.shape[:4])
        mine = tuple(p[here & wins] for p in place)
        counted[mine], target[mine] = True, 1.0
    return bce(raw[..., 4][counted], target[counted], reduction="sum")


def _vectors(predicted, truth):
    """Eq. 2 to 4; both (n, 3, 3), one vector a row."""
    dots = predicted @ predicted.transpose(1, 2)
    pairs = dots[:, 0, 1] ** 2 + dots[:, 0, 2] ** 2 + dots[:, 1, 2] ** 2
    return ((predicted - truth) ** 2).sum() + pairs.sum()
