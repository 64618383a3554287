"""Raw data in the layout of the Panoptic Studio, for tests: json as published, images, videos."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from data_prep.panoptic import layout

# 14 of the 70 landmarks carry the pose; the numbers are those of the common 58-point head, written
# out again so that a slip in the converter's table is seen.
HEAD = {
    17: (-6.825897, 6.760612, 4.402142),
    21: (-1.330353, 7.122144, 6.903745),
    26: (6.825897, 6.760612, 4.402142),
    22: (1.330353, 7.122144, 6.903745),
    45: (5.311432, 5.485328, 3.987654),
    42: (1.789930, 5.393625, 4.413414),
    39: (-1.789930, 5.393625, 4.413414),
    36: (-5.311432, 5.485328, 3.987654),
    35: (1.930245, 0.424351, 5.914376),
    31: (-1.930245, 0.424351, 5.914376),
    54: (2.774015, -2.080775, 5.048531),
    48: (-2.774015, -2.080775, 5.048531),
    57: (0.000000, -3.116408, 6.097667),
    8: (0.000000, -7.415691, 4.070434),
}
REAL = "160906_band1"


def person(rotation, position, scale=1.0, lost=(), number=0) -> dict:
    """An entry of "people": the reference head, placed; other landmarks and lost ones are wild.

    Args:
      rotation: (3, 3) reference axes (x left, y up, z out of the face) to the dome.
      position: (3,) of the origin of the reference head, cm.
      scale: of the head.
      lost: landmarks with a low score and a wrong place.
      number: "id" of the person.
    """
    rng = np.random.default_rng(number)
    landmarks = rng.uniform(-300, 300, (70, 3))
    scores = np.full(70, 0.05)
    for landmark, point in HEAD.items():
        if landmark in lost:
            continue
        for axis in range(3):
            moved = sum(rotation[axis][k] * point[k] for k in range(3))
            landmarks[landmark, axis] = scale * moved + position[axis]
        scores[landmark] = rng.uniform(0.11, 0.9)
    return {
        "id": number,
        "face70": {
            "landmarks": landmarks.reshape(-1).tolist(),
            "averageScore": scores.tolist(),
            "averageReproError": [1.0] * 70,
            "visibility": [[0, 1]] * 70,
        },
    }


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_faces(raw: Path, sequence: str, frame: int, people: list[dict]) -> None:
    content = {"version": 0.5, "univTime": 0.0, "fpsType": "hd_29_97", "people": people}
    write_json(layout.face_path(raw, sequence, frame), content)


def copy_calibration(data_dir: Path, raw: Path, sequence: str = REAL) -> dict[int, dict]:
    """The real calibration under the name of a sequence; returns its HD cameras as in the json."""
    source = data_dir / "panoptic" / REAL / f"calibration_{REAL}.json"
    target = layout.calibration_path(raw, sequence)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)
    return hd_cameras(target)


def hd_cameras(path: Path) -> dict[int, dict]:
    """Number -> entry of the json, its numbers as arrays, read without the converter."""
    cameras = {}
    for entry in json.loads(path.read_text())["cameras"]:
        if entry["type"] == "hd":
            numbers = {key: np.array(entry[key]) for key in ("K", "R", "t", "distCoef")}
            cameras[int(entry["name"].split("_")[1])] = numbers
    return cameras


def noise_jpeg(width=1920, height=1080) -> bytes:
    """An image above 100 KB."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (width, height)))[1].tobytes()


def write_image(raw: Path, sequence: str, camera: int, frame: int, encoded: bytes) -> Path:
    path = layout.image_path(raw, sequence, camera, frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)
    return path


def write_video(
    path: Path, frames: range, *, size=(256, 144), keys=250, b_frames=3, rate=Fraction(30000, 1001),
    options=(), gap_at=None,
) -> None:  # fmt: skip
    """H.264 with the number of each frame drawn as 16 black or white blocks over moving noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    noise = np.random.default_rng(1).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    noise = cv2.resize(noise, (width, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {
            "crf": "20", "preset": "veryfast", "g": str(keys), "bf": str(b_frames), **dict(options),
        }  # fmt: skip
        for number in frames:
            image = np.roll(noise, 3 * number, axis=1)
            side = width // 16
            for bit in range(16):
                image[:16, bit * side : (bit + 1) * side] = 255 * (number >> bit & 1)
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.pts = number - frames[0] + (7 if gap_at is not None and number >= gap_at else 0)
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def drawn_number(image: np.ndarray) -> int:
    """The number that `write_video` drew."""
    side = image.shape[1] // 16
    blocks = [image[4:12, bit * side + 4 : (bit + 1) * side - 4].mean() for bit in range(16)]
    return sum(1 << bit for bit, mean in enumerate(blocks) if mean > 127)
