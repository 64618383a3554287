"""`mtnet data convert panoptic`: heads of the Panoptic Studio, 31 HD cameras, up to 360 degrees.

An item is a run of frames of one camera of one sequence. Listing the items reads directories and
calibrations; json, images and videos are read by whoever works on the item.
"""

import argparse
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import HeadsOfImage, read_image
from data_prep.engine.report import Report
from data_prep.panoptic import layout
from data_prep.panoptic.calibration import Camera, read_calibration
from data_prep.panoptic.head_fit import LEAST_POINTS, REFERENCE_LANDMARKS
from data_prep.panoptic.labels import (
    Head,
    HeadRule,
    head_of_body,
    head_of_face,
    read_bodies,
    read_faces,
)
from data_prep.panoptic.options import Options, add_arguments
from data_prep.panoptic.sphere import sphere_box
from data_prep.panoptic.splits import (
    PUBLIC,
    PUBLIC_TEST,
    PUBLIC_TRAIN,
    check_disjoint,
    sequences_of_split,
)
from data_prep.panoptic.video import VideoFault, read_frames
from mtnet_jax.camera import intrinsics_of_matrix
from mtnet_jax.errors import BadInput

# What `data_prep.convert` asks a converter for.
__all__ = ["add_arguments", "conversion", "from_arguments"]

HOMEPAGE = "http://domedb.perception.cs.cmu.edu"
LICENCE = (
    "CMU Panoptic Studio Dataset: for non-commercial and research purposes only, see its homepage."
)

CITATION = """@article{joo2017panoptic,
  author  = {Joo, Hanbyul and Simon, Tomas and Li, Xulong and Liu, Hao and Tan, Lei and Gui, Lin and
             Banerjee, Sean and Godisart, Timothy and Nabbe, Bart and Matthews, Iain and
             Kanade, Takeo and Nobuhara, Shohei and Sheikh, Yaser},
  title   = {Panoptic Studio: A Massively Multiview System for Social Interaction Capture},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year    = {2017}
}"""
FACE_SOURCE, BODY_SOURCE = "panoptic", "panoptic-body"

# Frames of a video that one item spans: a minute. Long enough that the way from a key frame to the
# first wanted frame costs little, short enough to share a video among processes.
RUN_LENGTH = 1800
_KILOBYTE = 1024


@dataclass(frozen=True)
class Item:
    """Frames of one camera, ascending, that lie within `RUN_LENGTH`."""

    raw: Path
    sequence: str
    camera: int
    frames: tuple[int, ...]
    body: bool  # labels are made of body joints, not of faces

    @property
    def video(self) -> Path:
        """Of all frames, which may not be there."""
        return layout.video_path(self.raw, self.sequence, self.camera)

    def images(self, frame: int) -> list[Path]:
        """Where the image of a frame may lie, if it was extracted from the video."""
        return [
            layout.image_path(self.raw, self.sequence, self.camera, frame, suffix)
            for suffix in layout.IMAGE_SUFFIXES
        ]

    def inputs(self) -> Iterator[Path]:
        """All files that are read, see `engine.fingerprint`."""
        yield layout.calibration_path(self.raw, self.sequence)
        yield self.video
        for frame in self.frames:
            yield layout.labels_path(self.raw, self.sequence, frame, body=self.body)
            yield from self.images(frame)


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    known = len(REFERENCE_LANDMARKS)
    if not LEAST_POINTS <= args.min_points <= known:
        raise BadInput(f"--min-points {args.min_points}: from {LEAST_POINTS} to {known}.")
    rule = HeadRule(args.sphere_radius, args.min_score, args.min_points, args.max_residual)
    options = Options(
        heads=rule,
        max_aspect=args.max_aspect,
        max_size=args.max_size,
        min_kilobytes=args.min_file_size,
        drop_frames_with_lost_faces=args.drop_frames_with_lost_faces,
        keep_empty=args.keep_empty,
        body_only=args.body_only,
        quality=args.quality,
    )
    return conversion(
        args.raw,
        options,
        every=args.every,
        sequences=args.sequences,
        cameras=args.cameras,
        train_sequences=args.train_sequences,
        test_sequences=args.test_sequences,
        test_cameras=args.test_cameras,
    )


def conversion(
    raw: Path,
    options: Options | None = None,
    *,
    every: int = 60,
    sequences: Sequence[str] = (),
    cameras: Sequence[int] = (),
    train_sequences: Sequence[str] = (PUBLIC,),
    test_sequences: Sequence[str] = (PUBLIC,),
    test_cameras: Sequence[int] = (),
) -> Conversion:
    """CMU Panoptic as a data set to be written.

    Args:
      raw: folder of the sequences, see `layout`.
      options: labels and images.
      every: take the frames whose number is a multiple of this.
      sequences: take these only; empty takes all of both splits.
      cameras: take these only; empty takes all that have a video or images.
      train_sequences: names, ("all",) or ("public",).
      test_sequences: the same.
      test_cameras: the split "test" has these cameras only and "train" the others only.

    Returns:
      The conversion; a split without sequences is left out.

    Raises:
      FileNotFoundError: no sequences, no json, no images, or a calibration of another sequence.
      ValueError: a name that is not there, splits that overlap or are empty, a broken calibration,
        a camera that it does not have.
    """
    options = options or Options()
    if not options.heads.sphere_radius > 0:
        raise BadInput(f"--sphere-radius {options.heads.sphere_radius:g}: give centimetres")
    present = layout.find_sequences(raw)
    train = sequences_of_split(train_sequences, PUBLIC_TRAIN, present, "--train-sequences")
    test = sequences_of_split(test_sequences, PUBLIC_TEST, present, "--test-sequences")
    check_disjoint(train, test, test_cameras)
    for name in sequences:
        if name not in train and name not in test:
            raise BadInput(
                f"--sequences names {name!r}, which is in neither split (train: "
                f"{', '.join(train) or 'none'}; test: {', '.join(test) or 'none'}): name it in "
                "--train-sequences or --test-sequences"
            )
    splits = {
        split: [name for name in names if not sequences or name in sequences]
        for split, names in (("train", train), ("test", test))
    }
    if not any(splits.values()):
        raise BadInput(
            f"No sequence of {raw} ({', '.join(present)}) is in the public split: name them in "
            "--train-sequences and --test-sequences"
        )
    runs = {
        name: _runs(layout.find_frames(raw, name, body=options.body_only), every)
        for name in {*splits["train"], *splits["test"]}
    }
    items = {
        split: [
            Item(raw, name, camera, frames, options.body_only)
            for name in names
            for camera in _cameras(raw, name, cameras, test_cameras, split)
            for frames in runs[name]
        ]
        for split, names in splits.items()
    }
    for split, names in splits.items():
        if names and not items[split]:
            raise BadInput(
                f"--every, --cameras and --test-cameras leave nothing for the split {split!r} of "
                f"{', '.join(names)}: change them, or give --{split}-sequences ''"
            )
    items = {split: found for split, found in items.items() if found}
    left_out = {
        "sequences in neither split": [n for n in present if n not in train and n not in test],
        "folders without a calibration": layout.other_folders(raw, present),
    }
    return Conversion(
        _description(options, every, splits),
        items,
        functools.partial(_records, options),
        [(reason, names[0], len(names)) for reason, names in left_out.items() if names],
    )


def frame_heads(raw: Path, sequence: str, frame: int, options: Options) -> list[Head]:
    """The heads of a frame in the dome, the same for all cameras.

    Raises:
      ValueError: the json is cut short or has another format.
      FileNotFoundError: no json.
    """
    path = layout.labels_path(raw, sequence, frame, body=options.body_only)
    if options.body_only:
        return [head_of_body(*person, options.heads) for person in read_bodies(path)]
    return [head_of_face(*person, options.heads) for person in read_faces(path)]


def _runs(frames: Sequence[int], every: int) -> list[tuple[int, ...]]:
    runs = defaultdict(list)
    for frame in frames:
        if frame % every == 0:
            runs[frame // RUN_LENGTH].append(frame)
    return [tuple(run) for run in runs.values()]


def _cameras(
    raw: Path, sequence: str, chosen: Sequence[int], test_cameras: Sequence[int], split: str
) -> list[int]:
    calibrated = _calibration(raw, sequence)
    numbers = sorted(chosen) or layout.find_cameras(raw, sequence)
    for number in numbers:
        if number not in calibrated:
            raise BadInput(
                f"{layout.calibration_path(raw, sequence)} has no HD camera {number}: leave it out "
                "with --cameras, or get the whole file"
            )
    if test_cameras:
        numbers = [n for n in numbers if (n in test_cameras) == (split == "test")]
    return numbers


@functools.lru_cache(maxsize=8)  # items come sequence by sequence
def _calibration(raw: Path, sequence: str) -> dict[int, Camera]:
    return read_calibration(layout.calibration_path(raw, sequence))


def _description(options: Options, every: int, splits: dict[str, list[str]]) -> Description:
    sequences = "; ".join(f"{split}: {', '.join(n) or 'none'}" for split, n in splits.items())
    missing = [
        name
        for split, public in (("train", PUBLIC_TRAIN), ("test", PUBLIC_TEST))
        for name in public
        if name not in splits[split]
    ]
    coarse = (
        "COARSE poses, fitted to nose, eyes and ears of the body joints. "
        if options.body_only
        else ""
    )
    return Description(
        name="panoptic_body" if options.body_only else "panoptic",
        version="1.0.0",
        text=f"CMU Panoptic Studio, HD cameras, every {every} frames. {coarse}Sequences in "
        f"{sequences}. Of the public split, not here: {', '.join(missing) or 'none'}.",
        box_rule=f"sphere{options.heads.sphere_radius:g}",
        label_names=("head",),
        homepage=HOMEPAGE,
        citation=CITATION,
        licence=LICENCE,
    )


def _records(options: Options, item: Item, report: Report) -> Iterator[dict]:
    camera = _calibration(item.raw, item.sequence)[item.camera]
    labelled = {}
    for frame in item.frames:
        image_id = _image_id(item, frame)
        try:
            heads = frame_heads(item.raw, item.sequence, frame, options)
        except (ValueError, OSError) as error:
            kind = "body" if options.body_only else "face"
            report.drop_image(f"the {kind} file cannot be read: {error}", image_id)
            continue
        if options.drop_frames_with_lost_faces and any(head.rotation is None for head in heads):
            report.drop_image("a face in the frame is lost", image_id)
        else:
            labelled[frame] = heads
    source = BODY_SOURCE if options.body_only else FACE_SOURCE
    for frame, encoded, size in _images(item, list(labelled), options, report):
        image_id = _image_id(item, frame)
        if size != camera.size:
            report.drop_image(
                "the image is {}x{}, its calibration for {}x{}".format(*size, *camera.size),
                image_id,
            )
            continue
        record = _labelled(labelled[frame], camera, image_id, options, report).record(
            encoded, source, intrinsics_of_matrix(camera.matrix)
        )
        if options.keep_empty or not record["ignore"].all():
            yield record
        else:
            report.drop_image("no head to be found in the image", image_id)


def _labelled(
    heads: Sequence[Head], camera: Camera, image_id: str, options: Options, report: Report
) -> HeadsOfImage:
    """The heads of a frame as one camera sees them."""
    image = HeadsOfImage(image_id, camera.size, report)
    limits = np.array([*camera.size, *camera.size], np.float64)
    for head in heads:
        if head.centre is None:
            report.note("faces without a visible landmark (no box, not labelled)", image_id)
            continue
        box = sphere_box(camera, head.centre, head.radius)
        if box is None:
            report.note("heads behind the camera (not in the image)", image_id)
            continue
        left, top, right, bottom = np.clip(box, 0, limits)
        width, height = right - left, bottom - top
        if min(width, height) <= 0:
            report.note("heads beside the image (not in it)", image_id)
            continue
        ignore = head.fault
        if not ignore and max(width / height, height / width) >= options.max_aspect:
            ignore = f"box longer than {options.max_aspect:g} times its shorter side (cut off)"
        elif not ignore and (
            width >= options.max_size * camera.size[0]
            or height >= options.max_size * camera.size[1]
        ):
            ignore = f"box over {options.max_size:g} of the image"
        rotation = None if head.rotation is None else camera.rotation @ head.rotation
        image.add(box, rotation, ignore=ignore)
    return image


def _images(
    item: Item, frames: Sequence[int], options: Options, report: Report
) -> Iterator[tuple[int, bytes, tuple[int, int]]]:
    """Frame, encoded image, width and height: from hdImgs where it is there, else the video."""
    in_video = []
    for frame in frames:
        path = next((path for path in item.images(frame) if path.is_file()), None)
        if path is None:
            in_video.append(frame)
        elif path.stat().st_size < options.min_kilobytes * _KILOBYTE:
            report.drop_image(_too_small(options), str(path))
        elif (stored := read_image(path, report)) is not None:
            yield frame, *stored
    if not in_video:
        return
    if not item.video.is_file():
        for frame in in_video:
            report.drop_image("no image in hdImgs and no video", _image_id(item, frame))
        return
    fault = "the video ends before the frame, or is damaged there"
    missing = set(in_video)
    try:
        for frame, image in read_frames(item.video, in_video):
            missing.remove(frame)
            quality = [cv2.IMWRITE_JPEG_QUALITY, options.quality]
            encoded = cv2.imencode(".jpg", image, quality)[1].tobytes()
            if len(encoded) < options.min_kilobytes * _KILOBYTE:
                report.drop_image(_too_small(options), _image_id(item, frame))
            else:
                yield frame, encoded, (image.shape[1], image.shape[0])
    except VideoFault as error:
        fault = f"{item.video.name}: {error}"
    for frame in sorted(missing):
        report.drop_image(fault, _image_id(item, frame))


def _too_small(options: Options) -> str:
    return f"the image has less than {options.min_kilobytes:g} KB (damaged)"


def _image_id(item: Item, frame: int) -> str:
    return f"{item.sequence}/00_{item.camera:02d}/{frame:08d}"
