"""Heads drawn on images: boxes, axes or cubes of the pose, labels; sheets of many images.

The three axes are the head's own, seen from the camera without perspective: columns 0, 1 and minus
column 2 of R, of which the image shows the first two components. Red points to the subject's
left, green down to the chin, blue out of the face. A head of which the heading alone is known gets
a flat blue arrow: where its face looks, as if it were seen a little from above.

Coordinates follow boxes.py (0 is the outer edge of the first pixel), at a sixteenth of a pixel.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from mtnet_jax.errors import BadInput
from mtnet_jax.rotations import rotation_to_euler

RED, GREEN, BLUE = (235, 50, 40), (40, 200, 60), (30, 110, 255)
AXIS_COLOURS = (RED, GREEN, BLUE)  # x, y, out of the face
BOX_COLOUR = (255, 205, 0)
TRUTH_COLOUR = (255, 255, 255)
DARK = (20, 20, 20)

_SHIFT = 4  # fractional bits of drawing coordinates
_SMOOTHED = 2  # pixels beyond an edge that anti-aliasing may change
_LIMIT = 1e5  # pixels; further out nothing is visible and the fixed-point numbers would overflow
_AXIS_LENGTH = 0.62  # of the box's mean side
_CUBE_SIDE = 0.8  # of the box's mean side
_FORESHORTENED = 0.45  # how long what points into the camera is drawn, seen from above

# Corners of a cube of side 2 in head axes, and its faces as corner indices with outward normals.
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_FACES = (
    ((0, 2, 6, 4), (0, 0, -1)),  # the face of the head
    ((1, 3, 7, 5), (0, 0, 1)),
    ((0, 1, 3, 2), (-1, 0, 0)),
    ((4, 5, 7, 6), (1, 0, 0)),
    ((0, 1, 5, 4), (0, -1, 0)),
    ((2, 3, 7, 6), (0, 1, 0)),
)


def draw_heads(
    image: np.ndarray,
    heads: dict[str, Any],
    *,
    truth: dict[str, Any] | None = None,
    cube: bool = False,
    label: bool = True,
) -> np.ndarray:
    """A copy of an image with heads drawn on it.

    Heads that cover much are drawn first, so that small ones stay visible. A head whose rotation is
    not finite gets its box alone; a head whose box is not finite is left out.

    Args:
      image: (H, W, 3) uint8 RGB.
      heads: "boxes" (m, 4) xyxy in pixels, "rotations" (m, 3, 3), and optionally "scores" (m,) and
        "has_pose" (m,) bool, "headings" (m,) and "has_heading" (m,): a decoded record can be given
        as well as a prediction. "names" (m,), strings, are written before the scores.
      truth: a decoded record, drawn thinner and below: white boxes, axes with a white rim.
      cube: draw a cube, its front face filled, instead of the axes.
      label: write score and yaw, pitch, roll (degrees, canonical) beside each box.

    Returns:
      (H, W, 3) uint8 RGB.

    Raises:
      ValueError: the image is not (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInput(f"Expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}.")
    canvas = np.ascontiguousarray(image).copy()
    width = line_width(image.shape)
    if truth is not None:
        drawn = _heads(truth)
        for box, rotation, heading in zip(
            drawn.boxes, drawn.rotations, drawn.headings, strict=True
        ):
            _draw_box(canvas, box, TRUTH_COLOUR, max(width - 1, 1))
            if np.isfinite(rotation).all():
                _draw_axes(canvas, box, rotation, max(width - 1, 1), rim=TRUTH_COLOUR)
            elif np.isfinite(heading):
                _draw_heading(canvas, box, heading, max(width - 1, 1), rim=TRUTH_COLOUR)
    drawn = _heads(heads)
    for box, rotation, heading in zip(*drawn[:3], strict=True):
        _draw_box(canvas, box, BOX_COLOUR, width)
        if np.isfinite(rotation).all():
            (_draw_cube if cube else _draw_axes)(canvas, box, rotation, width)
        elif np.isfinite(heading):
            _draw_heading(canvas, box, heading, width)
    if label:
        _draw_labels(canvas, drawn)
    return canvas


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    size: tuple[int, int],
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Images in rows of equal cells, each scaled to fit its cell and centred in it.

    Args:
      images: (H, W, 3) uint8 RGB images of any sizes.
      columns: cells in a row.
      size: width and height of the place of an image, in pixels.
      captions: a line of text below each image.

    Returns:
      (rows (height + caption + gap) + gap, columns (width + gap) + gap, 3) uint8 RGB on white.

    Raises:
      ValueError: no column, or captions of another number than images.
    """
    if columns < 1:
        raise BadInput(f"A sheet needs at least one column, got {columns}.")
    if captions is not None and len(captions) != len(images):
        raise BadInput(f"{len(captions)} captions for {len(images)} images.")
    width, height = size
    gap = max(width // 60, 2)
    text_size = int(np.clip(width // 22, 11, 28))
    below = 0 if captions is None else round(1.7 * text_size)
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + below + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8
    )
    for index, image in enumerate(images):
        scaled = scaled_into(image, size)
        h, w = scaled.shape[:2]
        left = gap + index % columns * (width + gap)
        top = gap + index // columns * (height + below + gap)
        x, y = left + (width - w) // 2, top + (height - h) // 2
        sheet[y : y + h, x : x + w] = scaled
        if captions is not None:
            text = _shorten(captions[index], width, text_size)
            text_width = _text_width(text, text_size)
            place = (left + (width - text_width) // 2, top + height + round(1.2 * text_size))
            _write(sheet, text, place, DARK, text_size)
    return sheet


def scaled_into(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image as large as it fits into a width and height, at least a pixel either way."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    target = (max(round(scale * width), 1), max(round(scale * height), 1))
    # Averaging the area keeps thin lines when shrinking; enlarging wants a smooth kernel.
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, target, interpolation=kernel)


def angle_words(rotation: np.ndarray) -> list[str]:
    """Yaw, pitch and roll of a rotation (whole degrees, canonical), as y+12, p-3, r+0."""
    angles = rotation_to_euler(rotation, convention="canonical")
    return [f"{name}{round(angle):+d}" for name, angle in zip("ypr", angles, strict=True)]


def line_width(shape: tuple[int, ...]) -> int:
    """Width of lines in pixels for an image of shape (H, W, ...): 2 at VGA size, 5 at full HD."""
    return round(1 + max(shape[:2]) / 480)


class _Heads(NamedTuple):
    """What is drawn: heads with finite boxes, large ones first."""

    boxes: np.ndarray  # (k, 4)
    rotations: np.ndarray  # (k, 3, 3), NaN without a pose
    headings: np.ndarray  # (k,) degrees, NaN where not known
    scores: np.ndarray | None  # (k,)
    names: list[str]  # k, empty where there is none


def _heads(heads: dict[str, Any]) -> _Heads:
    boxes = np.asarray(heads["boxes"], np.float64).reshape(-1, 4)
    rotations = np.asarray(heads["rotations"], np.float64).reshape(-1, 3, 3)
    if "has_pose" in heads:
        posed = np.asarray(heads["has_pose"], bool).reshape(-1, 1, 1)
        rotations = np.where(posed, rotations, np.nan)
    headings = np.full(len(boxes), np.nan)
    if "has_heading" in heads:
        headings = np.where(heads["has_heading"], heads["headings"], np.nan).reshape(-1)
    scores = np.asarray(heads["scores"], np.float64).reshape(-1) if "scores" in heads else None
    finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    boxes = np.clip(boxes, -_LIMIT, _LIMIT)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = finite[np.argsort(-area[finite], kind="stable")]
    return _Heads(
        boxes[order],
        rotations[order],
        headings[order],
        None if scores is None else scores[order],
        [heads["names"][i] if "names" in heads else "" for i in order],
    )


def _fit_width(box: np.ndarray, width: int) -> int:
    """Thinner lines for a head so small that it would vanish behind them."""
    return int(np.clip(_centre_and_size(box)[1] / 16, 1, width))


def _centre_and_size(box: np.ndarray) -> tuple[np.ndarray, float]:
    return (box[:2] + box[2:]) / 2, float(np.mean(np.abs(box[2:] - box[:2])))


def _draw_box(canvas: np.ndarray, box: np.ndarray, colour: tuple, width: int) -> None:
    width = _fit_width(box, width)
    # Whole pixels without anti-aliasing: level lines are sharpest so.
    low, high = np.floor(box[:2]).astype(int).tolist(), (np.ceil(box[2:]) - 1).astype(int).tolist()
    cv2.rectangle(canvas, low, high, DARK, width + 2, cv2.LINE_8)
    cv2.rectangle(canvas, low, high, colour, width, cv2.LINE_8)


def _draw_axes(
    canvas: np.ndarray, box: np.ndarray, rotation: np.ndarray, width: int, rim: tuple = DARK
) -> None:
    centre, size = _centre_and_size(box)
    axes = rotation * [1, 1, -1]  # columns
    width = _fit_width(box, width + 1)
    # The tip that lies furthest away first: nearer axes cover it.
    for index in np.argsort(-axes[2], kind="stable"):
        tip = centre + _AXIS_LENGTH * size * axes[:2, index]
        _line(canvas, centre, tip, rim, width + 2)
        _line(canvas, centre, tip, AXIS_COLOURS[index], width)


def _draw_heading(
    canvas: np.ndarray, box: np.ndarray, heading: float, width: int, rim: tuple = DARK
) -> None:
    """A flat arrow as it lies on the ground, seen a little from above: down is into the camera."""
    centre, size = _centre_and_size(box)
    width = _fit_width(box, width + 1)
    angle = np.deg2rad(heading)
    ahead = np.array([-np.sin(angle), np.cos(angle)])
    aside = np.array([-ahead[1], ahead[0]])
    lying = _AXIS_LENGTH * size * np.array([1.0, _FORESHORTENED])
    tip = centre + ahead * lying
    barbs = [centre + (0.6 * ahead + side * aside) * lying for side in (-0.35, 0.35)]
    for colour, thickness in ((rim, width + 2), (BLUE, width)):
        for a, b in ((centre, tip), (barbs[0], tip), (barbs[1], tip)):
            _line(canvas, a, b, colour, thickness)


def _draw_cube(canvas: np.ndarray, box: np.ndarray, rotation: np.ndarray, width: int) -> None:
    centre, size = _centre_and_size(box)
    width = _fit_width(box, width)
    corners = centre + _CUBE_SIDE / 2 * size * (_CORNERS @ rotation.T)[:, :2]
    # A side is seen when its outward normal points to the camera, against +z.
    seen = [(rotation @ normal)[2] < 0 for _, normal in _FACES]
    front = corners[list(_FACES[0][0])]
    for visible in (False, True):
        if seen[0] == visible:
            _fill(canvas, front, BLUE, 0.3 if visible else 0.12)
        for (indices, _), is_seen in zip(_FACES[1:], seen[1:], strict=True):
            if is_seen == visible:
                if visible:
                    _outline(canvas, corners[list(indices)], DARK, width + 2)
                _outline(canvas, corners[list(indices)], RED if visible else (150, 80, 75), width)
        if seen[0] == visible:
            _outline(canvas, front, DARK, width + 2)
            _outline(canvas, front, BLUE if visible else (75, 105, 165), width)


def _draw_labels(canvas: np.ndarray, drawn: _Heads) -> None:
    """Score and angles beside each box, where they cover least of the heads and other labels."""
    size = _text_size(canvas)
    count = len(drawn.boxes)
    taken = np.concatenate([drawn.boxes, np.empty_like(drawn.boxes)])  # and a label for each
    for index, (box, rotation) in enumerate(zip(drawn.boxes, drawn.rotations, strict=True)):
        words = [drawn.names[index]] if drawn.names[index] else []
        words += [] if drawn.scores is None else [f"{drawn.scores[index]:.2f}"]
        if np.isfinite(rotation).all():
            words += [f"{word}°" for word in angle_words(rotation)]
        elif np.isfinite(drawn.headings[index]):
            words.append(f"heading {round(drawn.headings[index]):+d}°")
        if not words:
            continue
        height = round(1.3 * size)
        # In a crowd, or a small image, the first word has to do: there may be room for it where all
        # would cover heads, or be cut off.
        for text in (" ".join(words), words[0]):
            width = _text_width(text, size) + size // 2
            place, covered = _free_place(box, (width, height), canvas.shape, taken[:count])
            if covered == 0 and width <= canvas.shape[1]:
                break
        if width > canvas.shape[1]:
            continue
        taken[count] = place
        count += 1
        left, top = int(place[0]), int(place[1])
        _shade(canvas, left, top, width, height)
        _write(canvas, text, (left + size // 4, top + size), (255, 255, 255), size)


def _free_place(
    box: np.ndarray, size: tuple[int, int], image_shape: tuple[int, ...], taken: np.ndarray
) -> tuple[np.ndarray, float]:
    """Where a label of a size goes: above, below, right or left of the box, inside the image.

    Args:
      box: (4,) xyxy.
      size: width and height of the label.
      image_shape: shape of the image (H, W, ...).
      taken: (k, 4) xyxy boxes and labels not to cover.

    Returns:
      (4,) xyxy of the label, and the area of what it covers nevertheless.
    """
    w, h = size
    left, top, right, bottom = box
    corners = np.array(
        [
            (left, top - h - 2),
            (left, bottom + 2),
            (right - w, top - h - 2),
            (right - w, bottom + 2),
            (right + 2, top),
            (left - w - 2, top),
            (right + 2, bottom - h),
            (left - w - 2, bottom - h),
        ]
    )
    room = np.maximum(np.array([image_shape[1] - w, image_shape[0] - h]), 0)
    corners = np.floor(np.clip(corners, 0, room))
    places = np.concatenate([corners, corners + size], axis=1)
    low, high = places[:, :2].min(axis=0), places[:, 2:].max(axis=0)
    near = taken[((taken[:, :2] < high) & (taken[:, 2:] > low)).all(axis=1)]
    overlap = np.minimum(places[:, None, 2:], near[None, :, 2:]) - np.maximum(
        places[:, None, :2], near[None, :, :2]
    )
    covered = np.prod(np.maximum(overlap, 0), axis=-1).sum(axis=1)
    best = np.argmin(covered)  # the first of the best
    return places[best], float(covered[best])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points as OpenCV's fixed-point ones, where 0 is the middle of the first pixel."""
    return np.round((np.clip(points, -_LIMIT, _LIMIT) - 0.5) * 2**_SHIFT).astype(np.int32)


def _line(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple, width: int) -> None:
    cv2.line(canvas, _fixed(a).tolist(), _fixed(b).tolist(), colour, width, cv2.LINE_AA, _SHIFT)


def _outline(canvas: np.ndarray, points: np.ndarray, colour: tuple, width: int) -> None:
    cv2.polylines(canvas, [_fixed(points)], True, colour, width, cv2.LINE_AA, _SHIFT)


def _fill(canvas: np.ndarray, points: np.ndarray, colour: tuple, opacity: float) -> None:
    fixed = _fixed(points)
    # Smoothed edges reach beyond their pixels. What lies outside of the image is not needed.
    left, top = np.maximum((fixed.min(axis=0) >> _SHIFT) - _SMOOTHED, 0).tolist()
    right, bottom = np.maximum((fixed.max(axis=0) >> _SHIFT) + _SMOOTHED + 1, 0).tolist()
    part = canvas[top:bottom, left:right]
    if not part.size:
        return
    filled = part.copy()
    moved = fixed - np.array([left, top], np.int32) * 2**_SHIFT
    cv2.fillPoly(filled, [moved], colour, cv2.LINE_AA, _SHIFT)
    part[:] = cv2.addWeighted(filled, opacity, part, 1 - opacity, 0)


def _shade(canvas: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Darken a rectangle so that white text on it can be read on any image."""
    part = canvas[top : top + height, left : left + width]
    part[:] = (0.3 * part + 0.7 * np.array(DARK)).astype(np.uint8)


def _write(canvas: np.ndarray, text: str, place: tuple[int, int], colour: tuple, size: int) -> None:
    cv2.putText(canvas, text, place, colour, cv2.FontFace("sans"), size, 500)


def _text_size(canvas: np.ndarray) -> int:
    return int(np.clip(max(canvas.shape[:2]) // 60, 11, 40))


def _text_width(text: str, size: int) -> int:
    left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), size, 500)
    return left + width


def _shorten(text: str, width: int, size: int) -> str:
    """The text, cut with an ellipsis to fit a width."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."
