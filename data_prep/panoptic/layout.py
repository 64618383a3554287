"""Where the raw data lie, as the scripts of the Panoptic toolbox leave them.

    RAW/SEQUENCE/calibration_SEQUENCE.json
    RAW/SEQUENCE/hdFace3d/faceRecon3D_hdXXXXXXXX.json
    RAW/SEQUENCE/hdPose3d_stage1_coco19/body3DScene_XXXXXXXX.json
    RAW/SEQUENCE/hdVideos/hd_00_CC.mp4
    RAW/SEQUENCE/hdImgs/00_CC/00_CC_XXXXXXXX.jpg (or .png)

XXXXXXXX is the number of the frame, from 0, the same in json, video and images; CC the number of
the HD camera, 0 to 30. Listing reads names of directories only, never a json or an image.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from mtnet_jax.data.listing import is_of_another_system
from mtnet_jax.errors import MissingFile

CAMERA_COUNT = 31
IMAGE_SUFFIXES = (".jpg", ".png")

_FACE = re.compile(r"faceRecon3D_hd(\d{8})\.json")
_BODY = re.compile(r"body3DScene_(\d{8})\.json")
_VIDEO = re.compile(r"hd_00_(\d{2})\.mp4")
_IMAGES = re.compile(r"00_(\d{2})")


def calibration_path(raw: Path, sequence: str) -> Path:
    """The calibration of a sequence."""
    return raw / sequence / f"calibration_{sequence}.json"


def face_path(raw: Path, sequence: str, frame: int) -> Path:
    """3-D face landmarks of a frame."""
    return raw / sequence / "hdFace3d" / f"faceRecon3D_hd{frame:08d}.json"


def body_path(raw: Path, sequence: str, frame: int) -> Path:
    """3-D body joints of a frame (coco19)."""
    return raw / sequence / "hdPose3d_stage1_coco19" / f"body3DScene_{frame:08d}.json"


def labels_path(raw: Path, sequence: str, frame: int, *, body: bool) -> Path:
    """What the heads of a frame are made of: its body joints, or its faces."""
    return (body_path if body else face_path)(raw, sequence, frame)


def video_path(raw: Path, sequence: str, camera: int) -> Path:
    """HD video of a camera."""
    return raw / sequence / "hdVideos" / f"hd_00_{camera:02d}.mp4"


def image_path(raw: Path, sequence: str, camera: int, frame: int, suffix: str = ".jpg") -> Path:
    """An HD image that was extracted from a video."""
    name = f"00_{camera:02d}"
    return raw / sequence / "hdImgs" / name / f"{name}_{frame:08d}{suffix}"


def find_sequences(raw: Path) -> list[str]:
    """Folders of `raw` that hold a calibration.

    Raises:
      FileNotFoundError: there is none, or a folder holds the calibration of another sequence.
    """
    found = []
    for folder in sorted(path for path in raw.iterdir() if path.is_dir()):
        calibrations = sorted(path.name for path in folder.glob("calibration_*.json"))
        if calibration_path(raw, folder.name).name in calibrations:
            found.append(folder.name)
        elif calibrations:
            raise MissingFile(
                f"{folder} holds {', '.join(calibrations)}, the calibration of another sequence: "
                f"expected calibration_{folder.name}.json"
            )
    if not found:
        raise MissingFile(
            f"No SEQUENCE/calibration_SEQUENCE.json in {raw}: --raw must hold folders such as "
            "171204_pose3, as getData.sh of the Panoptic toolbox makes them"
        )
    return found


def other_folders(raw: Path, sequences: Collection[str]) -> list[str]:
    """Folders of `raw` that are none of the sequences."""
    return sorted(
        path.name
        for path in raw.iterdir()
        if path.is_dir() and path.name not in sequences and not is_of_another_system(path)
    )


def find_cameras(raw: Path, sequence: str) -> list[int]:
    """HD cameras of a sequence that have a video or a folder of images.

    Raises:
      FileNotFoundError: there is none.
    """
    folder = raw / sequence
    cameras = _numbers(folder / "hdVideos", _VIDEO) | _numbers(folder / "hdImgs", _IMAGES)
    if not cameras:
        raise MissingFile(
            f"No hdVideos/hd_00_CC.mp4 and no hdImgs/00_CC in {folder}: there are no images"
        )
    return sorted(cameras)


def find_frames(raw: Path, sequence: str, *, body: bool) -> list[int]:
    """Frames of a sequence that have a json of faces, or of bodies.

    Raises:
      FileNotFoundError: there is none.
    """
    example = labels_path(raw, sequence, 0, body=body)
    frames = _numbers(example.parent, _BODY if body else _FACE)
    if not frames:
        cure = ""
        if not body and _numbers(body_path(raw, sequence, 0).parent, _BODY):
            cure = "; it has body joints, from which --body-only makes coarse poses"
        raise MissingFile(
            f"No {example.name.replace('0' * 8, 'XXXXXXXX')} in {example.parent}: unpack "
            f"{example.parent.name}.tar, or leave {sequence} out{cure}"
        )
    return sorted(frames)


def _numbers(folder: Path, pattern: re.Pattern) -> set[int]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(match[1]) for match in map(pattern.fullmatch, names) if match}
