"""Two small sequences in the layout of the Panoptic Studio, for tests, and their conversion."""

import json
import pickle

import numpy as np

from data_prep.engine.report import Report
from data_prep.panoptic import layout
from data_prep.panoptic.converter import Options, conversion
from tests.panoptic_raw import copy_calibration, noise_jpeg, person, write_faces, write_image

TRAIN, TEST = "160906_pizza1", "160906_ian1"
FACE_UP = np.diag([1.0, -1.0, -1.0])
STANDING = np.array([0.0, -150.0, 0.0])
SMALL = (256, 144)


def shrink_calibration(raw, sequence):
    """The real cameras with small images: K scaled, so that videos for tests are small too."""
    path = layout.calibration_path(raw, sequence)
    content = json.loads(path.read_text())
    content["cameras"] = [camera for camera in content["cameras"] if camera["type"] == "hd"]
    for camera in content["cameras"]:
        share = SMALL[0] / 1920
        camera["resolution"] = list(SMALL)
        camera["K"] = (np.diag([share, share, 1]) @ camera["K"]).tolist()
    path.write_text(json.dumps(content))


def write_two_sequences(data_dir, folder):
    """Two sequences, two cameras, frames 0 to 180 with one person; images of 256 x 144."""
    for sequence in (TRAIN, TEST):
        copy_calibration(data_dir, folder, sequence)
        shrink_calibration(folder, sequence)
        for frame in (0, 1, 60, 120, 180):
            write_faces(folder, sequence, frame, [person(FACE_UP, STANDING)])
            for camera in (0, 13):
                write_image(folder, sequence, camera, frame, noise_jpeg(*SMALL))
    return folder


def convert(raw, options=None, **choices):
    """Split -> image_id -> record, and the report."""
    converted = conversion(raw, options or Options(min_kilobytes=0), **choices)
    converted = pickle.loads(pickle.dumps(converted))  # as another process sees it
    report = Report(converted.description)
    found = {
        split: {
            record["image_id"]: record for item in items for record in converted.read(item, report)
        }
        for split, items in converted.splits.items()
    }
    return found, report.as_dict()


def counts(events: dict) -> dict[str, int]:
    return {reason: event["count"] for reason, event in events.items()}
