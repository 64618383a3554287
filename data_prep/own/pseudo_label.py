"""Images, or a record set, labelled by a trained network where it agrees with itself.

Each image is looked at four times: at two input sizes, as it is and flipped. A head is trusted
where every look finds it (IoU of 0.5 and more) with enough score. It gets the mean rotation of the
looks where they all lie near it, else the mean heading where those do, else a box alone.

--raw DIR with images: trusted heads become heads, doubtful ones are marked to be ignored, so that
training takes them neither for heads nor for background.

--raw DIR of a record set: its boxes and poses stay as they are. A head without a pose gets
one from a trusted prediction on it, unless its own heading disagrees; where it has one, the
prediction is turned about the vertical until it looks that way. Trusted predictions on no head of
the record are marked to be ignored.

--teacher PLAIN FLIPPED: predictions of another program (JSON, docs/evaluation.md) for the images as
they are and flipped horizontally. Where they agree on a trusted head that looks to the front, its
rotation is theirs; where the network contradicts them, the head has what was labelled, or a box
alone. A face of theirs that touches no head is marked to be ignored.

Rotations are in the frame of the weights ("ray" or "camera"); intrinsics of records stay only where
the frame is "camera", since a ray-frame rotation counts as one only without them.
"""

import argparse
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.engine import arguments
from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.own.labelled import left_out_notes
from data_prep.own.looks import Agreement, Labeller, Trusted, predictors, same_head, touches
from data_prep.own.record_items import RecordItem, image_ids, record_items, record_of
from data_prep.own.teacher import TRUST, Trust, read_teacher
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.listing import list_images
from mtnet_jax.data.records import RecordSet, find_record_sets
from mtnet_jax.errors import BadInput
from mtnet_jax.places import Place, place_argument
from mtnet_jax.rotations import angles_apart, axis_rotation, heading_degrees

# --- Images ---------------------------------------------------------------------------------------


def read_unlabelled(
    path: Path, report: Report, *, raw: Path, source: str, label: Labeller
) -> Iterator[dict]:
    """The record of an image without labels."""
    found = read_image(path, report)
    if found is None:
        return
    encoded, size = found
    image_id = path.relative_to(raw).as_posix()
    heads = HeadsOfImage(image_id, size, report)
    for trusted in label(decode_image(encoded), image_id):
        _add(heads, trusted, report, image_id)
    yield heads.record(encoded, source)


def _add(heads: HeadsOfImage, trusted: Trusted, report: Report, image_id: str) -> None:
    report.note(_kind(trusted), image_id)
    heads.add(
        trusted.box,
        trusted.rotation,
        heading=trusted.heading,
        ignore="" if trusted.agreed else _why_doubted(trusted),
    )


def _why_doubted(trusted: Trusted) -> str:
    if trusted.taught == "missed":
        return "a face of the teacher that the network misses"
    return "the looks do not agree"


def _kind(trusted: Trusted) -> str:
    if trusted.taught == "missed":
        return "faces of the teacher that the network misses"
    if not trusted.agreed:
        return "predictions on which the looks do not agree"
    if trusted.taught == "contradicted":
        return "heads with a box alone, since the network contradicts the teacher"
    if trusted.taught == "yes":
        return "heads labelled with a rotation of the teacher"
    if trusted.rotation is not None:
        return "heads labelled with a rotation"
    return f"heads labelled with a {'box' if trusted.heading is None else 'heading'} alone"


# --- Records --------------------------------------------------------------------------------------


def read_record(item: RecordItem, report: Report, *, label: Labeller, frame: str) -> Iterator[dict]:
    """A record with what it knew, and what the looks add."""
    record = record_of(item, frame=frame)
    image = decode_image(record["image"])
    size, image_id = (image.shape[1], image.shape[0]), record["image_id"]
    heads = HeadsOfImage(image_id, size, report)
    predictions = label(image, image_id)
    unused = set(range(len(predictions)))
    for i, box in enumerate(record["boxes"]):
        match = _match(box, predictions)
        unused.discard(match)
        trusted = None if match is None else predictions[match]
        rotation, heading = _known(record, i)
        if rotation is None and trusted is not None and trusted.agreed:
            rotation, heading = _upgraded(heading, trusted, label.options, report, image_id)
        heads.add(
            box,
            rotation,
            heading=heading,
            label=int(record["labels"][i]),
            ignore="as in the record" if record["ignore"][i] else "",
        )
    for other in (predictions[number] for number in sorted(unused)):
        if other.agreed:
            heads.add(other.box, ignore="a prediction on no head of the record")
        elif other.taught == "missed" and not touches(other.box, record["boxes"]):
            heads.add(other.box, ignore=_why_doubted(other))
    intrinsics = record["intrinsics"] if frame == "camera" else None
    yield heads.record(record["image"], record["source"], intrinsics)


def _known(record: dict, i: int) -> tuple[np.ndarray | None, float | None]:
    if record["has_pose"][i]:
        return record["rotations"][i], None
    return None, float(record["headings"][i]) if record["has_heading"][i] else None


def _upgraded(
    heading: float | None, trusted: Trusted, options: Agreement, report: Report, image_id: str
) -> tuple[np.ndarray | None, float | None]:
    """Rotation and heading of a head without a pose, after a trusted prediction on it."""
    if heading is None:
        report.note(_kind(trusted), image_id)
        return trusted.rotation, trusted.heading
    if trusted.taught == "contradicted":
        report.note("labelled headings that stay, since network and teacher differ", image_id)
    if trusted.rotation is None:
        return None, heading
    off = angles_apart(heading_degrees(trusted.rotation), heading)
    if off > options.heading:
        report.note("predictions that a labelled heading contradicts", image_id)
        return None, heading
    report.note("headings that became rotations", image_id)
    missing = heading - heading_degrees(trusted.rotation)
    return axis_rotation("y", missing) @ trusted.rotation, None


def _match(box: np.ndarray, predictions: Sequence[Trusted]) -> int | None:
    if not predictions:
        return None
    return same_head(box, {"boxes": np.array([p.box for p in predictions])})


# --- The converter --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert pseudo-label`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    defaults = Agreement()
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="of the network (default: those that ship)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=(416, 608),
        metavar="N",
        help="sides of the network's input, multiples of 32 (default: 416 608)",
    )
    parser.add_argument(
        "--score",
        type=arguments.share,
        default=defaults.score,
        metavar="S",
        help="least score of a head that is trusted, in every look (default: %(default)g)",
    )
    for name in ("rotation", "heading"):
        parser.add_argument(
            f"--max-{name}",
            type=arguments.degrees,
            default=getattr(defaults, name),
            metavar="DEG",
            help=f"looks that differ more from their mean {name} do not agree "
            f"(default {getattr(defaults, name):g})",
        )
    parser.add_argument(
        "--teacher",
        type=place_argument,
        nargs=2,
        metavar=("PLAIN", "FLIPPED"),
        help="predictions of another program for the images, and for the images flipped",
    )
    parser.add_argument(
        "--teacher-heading",
        type=arguments.degrees,
        default=TRUST.heading,
        metavar="DEG",
        help=f"furthest from the front that the teacher is believed (default {TRUST.heading:g})",
    )
    parser.add_argument(
        "--teacher-outward",
        type=float,
        default=TRUST.outward,
        metavar="X",
        help="what the teacher's headings are multiplied by, where it sees faces too frontal "
        f"(default {TRUST.outward:g})",
    )
    parser.add_argument(
        "--split",
        type=arguments.split,
        default="train",
        metavar="NAME",
        help="that images go into (default: train)",
    )
    parser.add_argument("--name", help="of the record set (default: the last part of --out)")


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    from mtnet_jax.shipped import DEFAULT_WEIGHTS, weights_folder

    return conversion(
        args.raw,
        name=args.name or args.out.name,
        weights=weights_folder(args.weights or DEFAULT_WEIGHTS),
        sizes=tuple(args.sizes),
        options=Agreement(args.score, args.max_rotation, args.max_heading),
        split=args.split,
        teacher=tuple(args.teacher or ()),
        trust=Trust(args.teacher_heading, args.teacher_outward),
    )


def conversion(
    raw: Path,
    *,
    name: str,
    weights: Place,
    sizes: tuple[int, ...],
    options: Agreement,
    split: str = "train",
    teacher: Sequence[Place] = (),
    trust: Trust = TRUST,
) -> Conversion:
    """Images or a record set, labelled by a network, as a data set to be written.

    Args:
      raw: folder with images, or a record set.
      name: of the record set to be written.
      weights: of the network.
      sizes: sides of its input.
      options: when looks agree.
      split: that images go into; those of a record set stay in theirs.
      teacher: two files of another program's predictions, for the images and the flipped images.
      trust: when it is believed.

    Returns:
      The conversion.

    Raises:
      BadInput: no images there, or a record set too, a network of several classes for images (of
        which a record set would have to know the names), or a teacher that does not know the
        images.
      FileNotFoundError: no weights.
    """
    frame = predictors(weights, sizes, options.doubtful)[0].frame

    def labeller(names: Sequence[str]) -> Labeller:
        learnt = read_teacher(teacher, names, frame, trust) if teacher else None
        return Labeller(weights, sizes, options, learnt)

    if _holds_records(raw):
        record_set = RecordSet.open(raw)
        items = record_items(record_set)
        ids = image_ids(itertools.chain(*items.values()), frame=frame) if teacher else ()
        read = functools.partial(read_record, label=labeller(ids), frame=frame)
        return Conversion(_description(name, record_set), items, read)
    from mtnet_jax.predict.files import find_images

    found = find_images([raw])
    if len(predictors(weights, sizes, options.doubtful)[0].class_names) > 1:
        raise BadInput(f"{weights} knows several classes: label a record set with it, not images.")
    label = labeller([path.relative_to(raw).as_posix() for path in found.images])
    read = functools.partial(read_unlabelled, raw=raw, source=name, label=label)
    notes = left_out_notes(found, raw)
    return Conversion(_description(name, None), {split: found.images}, read, notes)


def _holds_records(raw: Path) -> bool:
    """Whether a folder is a record set, or one above it; BadInput where it holds images too."""
    found = find_record_sets(raw)
    if found and raw not in found and (images := list_images(raw).images):
        raise BadInput(
            f"{raw} holds images ({images[0]}, ...) and a record set ({found[0]}): name the record "
            "set itself in --raw, or move it away to label the images"
        )
    return bool(found)


def _description(name: str, record_set: RecordSet | None) -> Description:
    return Description(
        name=name,
        version="1.0.0",
        text=f"{name}, labelled by a network where its looks agree.",
        box_rule=record_set.box_rule if record_set else "head",
        label_names=record_set.label_names if record_set else ("head",),
        homepage="",
        citation=record_set.citation if record_set else "",
        licence="",
    )
