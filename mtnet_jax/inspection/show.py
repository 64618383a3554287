"""`mtnet data show`: contact sheets of a record set, to see with one's own eyes what it holds.

A head that would be small in its place on the sheet is shown enlarged. The head in question has a
yellow box and its angles in the caption, other heads have white ones, ignored heads a grey box that
is crossed out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.selection import selected_splits
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.heads import read_head_errors
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict.draw import angle_words, contact_sheet, draw_heads, scaled_into
from mtnet_jax.predict.files import check_image_name, write_image
from mtnet_jax.rotations import rotation_to_euler

ORDERS = ("random", "yaw", "small", "worst")
YAW_EDGES = np.arange(-180, 181, 30)  # degrees
CELL = (560, 400)  # width and height of the place of an image
COLUMNS = 4

_SMALL = 0.3  # a head below this share of its place's height is enlarged ...
_ENLARGED = 0.45  # ... to this share
_WIDEST = 0.75  # share of the width that a head may have then
_BESIDE = 3  # an enlarged head beside its image has one part in so many of the width
_GAP = 4  # pixels between the two
_POSE_FIELDS = ("rotations", "has_pose", "headings", "has_heading")
_GREY = (150, 150, 150)
_NAME_LENGTH = 20  # characters of an image_id in a caption

# One row a head of the record set.
_HEAD = np.dtype(
    [
        ("source", np.int64),  # which of the splits
        ("record", np.int64),
        ("head", np.int64),
        ("size", np.float64),  # sqrt(width height), pixels
        ("yaw", np.float64),  # canonical, NaN without a pose
        ("ignore", np.bool_),
    ]
)


class View(NamedTuple):
    """What one place of the sheet shows.

    Attributes:
      source: which of the sources; None for an empty place.
      record: of the source.
      head: of the record, None for an image without heads.
      words: more for the caption.
      prediction: an entry of `evaluation.heads` with the predicted box, or None.
    """

    source: int | None
    record: int = 0
    head: int | None = None
    words: str = ""
    prediction: dict[str, Any] | None = None


def write_sheet(
    selection: str,
    out: Path,
    *,
    by: str = "random",
    count: int = 24,
    metrics: Path | None = None,
    seed: int = 0,
    outputs: Outputs | None = None,
    of: str = "",
) -> int:
    """Writes a contact sheet of a record set.

    Args:
      selection: DIR[:SPLIT], all splits unless one is named.
      out: image file to write.
      by: "random" (whole images), "yaw" (as many heads from each 30 degrees), "small" (the
        smallest boxes) or "worst" (the largest errors of `metrics`).
      count: how many places the sheet has, about that for "yaw".
      metrics: heads.json of `mtnet eval` on the same records, for "worst".
      seed: of the choice.
      outputs, of: of a command that writes the sheet among other files, and its input.

    Returns:
      How many heads or images the sheet shows.

    Raises:
      FileNotFoundError, ValueError: no such records, a metric file that is missing or of other
        records, or nothing to show.
    """
    if (by == "worst") != (metrics is not None):
        raise BadInput("--by worst and --metrics FILE (heads.json of `mtnet eval`) go together.")
    check_image_name(out)
    outputs = outputs or Outputs("data show", [metrics] if metrics else [])
    outputs.check(out, of)
    if by not in ORDERS:
        raise BadInput(f"Unknown order {by!r}: choose one of {', '.join(ORDERS)}.")
    record_set, splits = selected_splits(selection)
    labels = [RecordSource(record_set.path, split, decode=False) for split in splits]
    rng = np.random.default_rng(seed)
    frame = "camera"
    if by == "random":
        views = random_views([len(source) for source in labels], count, rng)
    elif metrics is not None:
        frame, errors = read_head_errors(metrics)
        views = worst_views(labels, errors, count, metrics)
    else:
        heads = list_heads(labels)
        views = yaw_views(heads, count, rng) if by == "yaw" else small_views(heads, count)
    if all(view.source is None for view in views):
        raise BadInput(f"{selection} has nothing to show by {by}.")
    images = [RecordSource(record_set.path, split, frame=frame) for split in splits]
    cells, captions = [], []
    for view in tqdm(views, desc="draw", unit="image"):
        cell, caption = draw_view(view, images, rng if by == "random" else None)
        cells.append(cell)
        captions.append(caption)
    columns = COLUMNS
    if by == "yaw":  # the heads of a bin stand beside each other
        each = len(views) // (len(YAW_EDGES) - 1)
        columns = each * max(round(COLUMNS / each), 1)
    write_image(outputs, out, contact_sheet(cells, min(columns, len(cells)), CELL, captions), of)
    return sum(view.source is not None for view in views)


def list_heads(sources: Sequence[RecordSource]) -> np.ndarray:
    """All heads of sources that leave images encoded, as rows of `_HEAD`."""
    rows = []
    for number, (index, record) in _records(sources):
        boxes = record["boxes"].astype(np.float64)
        of_record = np.zeros(len(boxes), _HEAD)
        of_record["source"], of_record["record"] = number, index
        of_record["head"] = np.arange(len(boxes))
        of_record["size"] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        yaw = rotation_to_euler(record["rotations"], convention="canonical")[:, 0]
        heading = np.where(record["has_heading"], record["headings"], np.nan)
        of_record["yaw"] = np.where(record["has_pose"], yaw, heading)
        of_record["ignore"] = record["ignore"]
        rows.append(of_record)
    return np.concatenate(rows) if rows else np.zeros(0, _HEAD)


def random_views(lengths: Sequence[int], count: int, rng: np.random.Generator) -> list[View]:
    """Images of any split, each at most once. Their heads are looked up when they are drawn."""
    total = sum(lengths)
    chosen = rng.choice(total, min(count, total), replace=False)
    starts = np.cumsum([0, *lengths])
    sources = np.searchsorted(starts, chosen, side="right") - 1
    return [
        View(int(source), int(place - starts[source]))
        for source, place in zip(sources, chosen, strict=True)
    ]


def small_views(heads: np.ndarray, count: int) -> list[View]:
    """The heads with the smallest boxes, smallest first; ignored heads are left out."""
    heads = heads[~heads["ignore"]]
    chosen = heads[np.argsort(heads["size"], kind="stable")[:count]]
    return [_view(row, f"{row['size']:.0f} px") for row in chosen]


def yaw_views(heads: np.ndarray, count: int, rng: np.random.Generator) -> list[View]:
    """As many heads of each 30 degrees of yaw, in a row of places; empty places where too few."""
    heads = heads[~heads["ignore"] & np.isfinite(heads["yaw"])]
    bins = len(YAW_EDGES) - 1
    each = max(count // bins, 1)
    which = np.clip(np.digitize(heads["yaw"], YAW_EDGES) - 1, 0, bins - 1)
    views = []
    for number in range(bins):
        found = np.flatnonzero(which == number)
        found = rng.choice(found, min(each, len(found)), replace=False) if len(found) else found
        views += [_view(row) for row in heads[found]]
        low, high = YAW_EDGES[number : number + 2]
        views += [View(None, words=f"no head of yaw {low:+d} to {high:+d}")] * (each - len(found))
    return views


def worst_views(
    sources: Sequence[RecordSource], errors: Sequence[dict], count: int, file: Path
) -> list[View]:
    """The heads of the largest geodesic errors; of the largest errors of the heading where there
    are no poses, of the least IoU where there are no headings."""
    known = [k for k in ("geodesic", "heading") if any(e[k] is not None for e in errors)]
    if known:
        measured = [entry for entry in errors if entry[known[0]] is not None]
        ranked = sorted(measured, key=lambda entry: -entry[known[0]])[:count]
    else:
        ranked = sorted(errors, key=lambda entry: entry["iou"])[:count]
    wanted = {entry["image_id"] for entry in ranked}
    places = {
        record["image_id"]: (number, index, len(record["boxes"]))
        for number, (index, record) in _records(sources)
        if record["image_id"] in wanted
    }
    views = []
    for entry in ranked:
        number, index, heads = places.get(entry["image_id"], (0, 0, 0))
        if not 0 <= entry["head"] < heads:
            raise BadInput(
                f"{file} speaks of head {entry['head']} of image {entry['image_id']!r}, which is "
                "not among these records: name the record set and split it was made from."
            )
        if known:
            words = f"{entry[known[0]]:.0f}° off"
        else:
            words = f"IoU {entry['iou']:.2f}" if entry["prediction"] else "missed"
        views.append(View(number, index, entry["head"], words, entry["prediction"]))
    return views


def draw_view(
    view: View, sources: Sequence[RecordSource], rng: np.random.Generator | None = None
) -> tuple[np.ndarray, str]:
    """A place of the sheet and its caption.

    Args:
      view: what to show.
      sources: the splits, with images.
      rng: given, the whole image is shown, and beside it one of its heads if that is small;
        otherwise the surroundings of the head.

    Returns:
      An RGB image that fits into `CELL`, and the caption.
    """
    if view.source is None:
        return np.full((CELL[1], CELL[0], 3), 240, np.uint8), view.words
    record = sources[view.source][view.record]
    if rng is None:
        assert view.head is not None, "views by yaw, size or error are of a head"
        cell = draw_part(record, view.head, CELL, prediction=view.prediction)
    else:
        if len(record["boxes"]):
            view = view._replace(head=int(rng.integers(len(record["boxes"]))))
        cell = draw_whole(record, view.head)
    return cell, _caption(record, view)


def draw_whole(record: dict, head: int | None) -> np.ndarray:
    """A whole image in `CELL`; beside it one of its heads enlarged, if that is small in it."""
    height, width = record["image"].shape[:2]
    enlarged = head is not None and _is_small(record, head, CELL)
    room = (CELL[0] - CELL[0] // _BESIDE - _GAP, CELL[1]) if enlarged else CELL
    cell, scale = _scaled_part(record["image"], (0, 0, width, height), room)
    cell = _draw(cell, record, scale, np.zeros(2), [] if head is None else [head])
    if head is None or not enlarged:
        return cell
    part = draw_part(record, head, (CELL[0] // _BESIDE, cell.shape[0]))
    both = np.full((cell.shape[0], cell.shape[1] + _GAP + part.shape[1], 3), 255, np.uint8)
    both[:, : cell.shape[1]] = cell
    top = (cell.shape[0] - part.shape[0]) // 2
    both[top : top + part.shape[0], cell.shape[1] + _GAP :] = part
    return both


def draw_part(
    record: dict,
    head: int,
    size: tuple[int, int],
    *,
    prediction: dict[str, Any] | None = None,
) -> np.ndarray:
    """A head with its surroundings, or the whole image if the head is large in it.

    Args:
      record: decoded.
      head: index of the head.
      size: width and height that the part is scaled into.
      prediction: drawn in place of the head, which is then white as all others.
    """
    height, width = record["image"].shape[:2]
    part = (0, 0, width, height)
    if _is_small(record, head, size):
        part = _surroundings(record["boxes"][head], (width, height), size)
    cell, scale = _scaled_part(record["image"], part, size)
    chosen = [] if prediction is not None else [head]
    return _draw(cell, record, scale, np.array(part[:2]), chosen, prediction)


def _records(sources: Sequence[RecordSource]) -> Iterator[tuple[int, tuple[int, dict]]]:
    with tqdm(total=sum(map(len, sources)), desc="read labels", unit="record") as bar:
        for number, source in enumerate(sources):
            for index in range(len(source)):
                yield number, (index, source[index])
                bar.update()


def _view(row: np.void, words: str = "") -> View:
    return View(int(row["source"]), int(row["record"]), int(row["head"]), words)


def _caption(record: dict, view: View) -> str:
    name = record["image_id"]
    if len(name) > _NAME_LENGTH:
        name = "..." + name[-_NAME_LENGTH:]
    words = [view.words] if view.words else []
    if view.head is None:
        words.append("no heads")
    elif record["has_heading"][view.head] and not record["has_pose"][view.head]:
        words.append(f"heading {round(record['headings'][view.head].item()):+d}")
    elif record["has_pose"][view.head]:
        words.append(" ".join(angle_words(record["rotations"][view.head])))
    return "  ".join([*words, name])


def _is_small(record: dict, head: int, size: tuple[int, int]) -> bool:
    height, width = record["image"].shape[:2]
    box = record["boxes"][head]
    scale = min(size[0] / width, size[1] / height)
    return max(box[2:] - box[:2]) * scale < _SMALL * size[1]


def _surroundings(
    box: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The part of an image (xyxy, whole pixels) round a box, of the shape of `size`."""
    sides = box[2:] - box[:2]
    height = max(max(sides) / _ENLARGED, sides[0] / _WIDEST * size[1] / size[0])
    wanted = np.maximum(np.array([height * size[0] / size[1], height]), 2)
    low = (box[:2] + box[2:]) / 2 - wanted / 2
    low = np.clip(low, 0, np.maximum(np.array(image_size) - wanted, 0))
    high = np.minimum(np.ceil(low + wanted), image_size)
    return (*np.floor(low).astype(int).tolist(), *high.astype(int).tolist())


def _scaled_part(
    image: np.ndarray, part: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Part of an image scaled into `size`, and the scale (2,) along x and y."""
    left, top, right, bottom = part
    scaled = scaled_into(image[top:bottom, left:right], size)
    return scaled, np.array(scaled.shape[1::-1]) / [right - left, bottom - top]


def _draw(
    cell: np.ndarray,
    record: dict,
    scale: np.ndarray,
    origin: np.ndarray,
    chosen: Sequence[int],
    prediction: dict[str, Any] | None = None,
) -> np.ndarray:
    """Draws the heads of a record onto a scaled part of its image that begins at `origin`."""

    def place(boxes: Any) -> np.ndarray:
        corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
        return ((corners - origin) * scale).reshape(-1, 4)

    ignored = np.flatnonzero(record["ignore"])
    for box in place(record["boxes"][ignored]):
        _cross_out(cell, box)
    plain = np.setdiff1d(np.arange(len(record["boxes"])), ignored)
    wanted = np.isin(plain, list(chosen))
    others, picked = plain[~wanted], plain[wanted]

    def of(which: np.ndarray) -> dict[str, Any]:
        poses = {name: record[name][which] for name in _POSE_FIELDS}
        return {"boxes": place(record["boxes"][which]), **poses}

    heads = of(picked)
    if prediction is not None:
        rotation = prediction["rotation"] or np.full((3, 3), np.nan)
        heads = {
            "boxes": place(prediction["box"]),
            "rotations": np.array(rotation)[None],
            "scores": np.array([prediction["score"]]),
        }
    return draw_heads(cell, heads, truth=of(others), label=prediction is not None)


def _cross_out(cell: np.ndarray, box: np.ndarray) -> None:
    """A head that is to be ignored: a grey box with both diagonals."""
    x1, y1, x2, y2 = np.round(np.clip(box, -1e4, 1e4)).astype(int).tolist()
    cv2.rectangle(cell, (x1, y1), (x2, y2), _GREY, 2)
    cv2.line(cell, (x1, y1), (x2, y2), _GREY, 1, cv2.LINE_AA)
    cv2.line(cell, (x1, y2), (x2, y1), _GREY, 1, cv2.LINE_AA)
