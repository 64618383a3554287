"""Heads and poses from a picture, in three lines:

import mtnet_jax
predictor = mtnet_jax.Predictor.load("runs/quickstart")
heads = predictor("picture.jpg")
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mtnet_jax.data import geometry
from mtnet_jax.data.images import decode_image
from mtnet_jax.decode import Heads
from mtnet_jax.errors import BadInput, BadRecord, MissingFile, Unavailable
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.inference import Detector, heads_in_picture, make_detector
from mtnet_jax.rotations import rotation_to_euler
from mtnet_jax.shipped import DEFAULT_WEIGHTS, weights_folder
from mtnet_jax.system import System, build_system
from mtnet_jax.weights import load_weights

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_SCORE_THRESHOLD = 0.3
RUNTIMES = ("jax", "onnxruntime")  # what computes the network


@dataclass(frozen=True)
class Head:
    """One head of a picture.

    Attributes:
      box: left, top, right, bottom in pixels of the picture, 0 at its outer edge.
      score: 0 to 1.
      rotation: (3, 3) head axes to camera axes (see `mtnet_jax.rotations`); the face looks along
        minus its third column.
      yaw: degrees, canonical: + turns the face to the left of the picture; +-180 is the back of a
        head.
      pitch: degrees, canonical: + looks up.
      roll: degrees, canonical: + is clockwise in the picture.
      label: name of the class, one of the predictor's `class_names`.
    """

    box: tuple[float, float, float, float]
    score: float
    rotation: np.ndarray
    yaw: float
    pitch: float
    roll: float
    label: str

    def to_json(self, *, label: bool = False) -> dict[str, Any]:
        """Plain numbers and lists, with the label (where a network knows several) if asked."""
        numbers = {
            "box": [round(v, 2) for v in self.box],
            "score": round(self.score, 4),
            "rotation": [[round(float(v), 6) for v in row] for row in self.rotation],
            "yaw": round(self.yaw, 3),
            "pitch": round(self.pitch, 3),
            "roll": round(self.roll, 3),
        }
        return {**numbers, "label": self.label} if label else numbers


class Predictor:
    """A trained network that takes pictures of any size. Compiles once, at the first picture."""

    def __init__(
        self,
        config: ConfigDict,
        variables: dict[str, Any],
        *,
        score_threshold: float = DEFAULT_SCORE_THRESHOLD,
        runtime: str = "jax",
    ):
        self._system = build_system(config)
        make = _detector_of(runtime)
        self._detect = make(self._system, config, score_threshold)(variables)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that heads may have."""
        return self._system.class_names

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike = DEFAULT_WEIGHTS,
        *,
        score_threshold: float = DEFAULT_SCORE_THRESHOLD,
        runtime: str = "jax",
    ) -> "Predictor":
        """Reads a work directory of `mtnet train` or a folder of `mtnet export`.

        Args:
          weights: the directory, or the name of weights that ship.
          score_threshold: heads of a lower score are left out.
          runtime: what computes the network. "jax" runs everywhere, "onnxruntime" on the CPU.
            The heads are the same up to rounding; docs/performance.md compares the times.

        Raises:
          FileNotFoundError: no weights there.
          ValueError: damaged weights, weights that do not fit their configuration, or a runtime
            that does not exist.
          RuntimeError: onnxruntime or onnx is not installed.
        """
        config, variables = load_weights(weights_folder(weights))
        return cls(config, variables, score_threshold=score_threshold, runtime=runtime)

    def __call__(self, picture: np.ndarray | str | os.PathLike) -> list[Head]:
        """Finds the heads of a picture.

        Args:
          picture: (H, W, 3) uint8 RGB (OpenCV reads BGR: reverse its last axis), or a file.

        Returns:
          The heads by falling score.

        Raises:
          ValueError: an array of another shape or type, or a file that is no picture, by name.
          OSError: a file that cannot be read.
        """
        image = picture if isinstance(picture, np.ndarray) else read_picture(picture)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise BadInput(
                f"A picture must be (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}."
            )
        size = self._system.grid.size
        matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
        inputs = geometry.map_picture(image, matrix, size)[None]
        # On the CPU the arrays are only looked at; jax.device_get would take longer than to draw up
        # the heads.
        found = Heads(*map(np.asarray, self._detect(inputs)))
        return self._as_heads(heads_in_picture(found, 0, matrix, image.shape))

    def _as_heads(self, arrays: dict[str, np.ndarray]) -> list[Head]:
        # The angles of all heads at once: one by one they would cost as much as a small network.
        angles = rotation_to_euler(arrays["rotations"].astype(np.float64), convention="canonical")
        columns = (
            arrays["boxes"],
            arrays["scores"],
            arrays["rotations"],
            angles.tolist(),
            arrays["labels"],
        )
        return [
            Head(
                tuple(box.tolist()),
                float(score),
                rotation,
                yaw,
                pitch,
                roll,
                self.class_names[label],
            )
            for box, score, rotation, (yaw, pitch, roll), label in zip(*columns, strict=True)
        ]


def _detector_of(runtime: str) -> Callable[[System, ConfigDict, float], Detector]:
    if runtime not in RUNTIMES:
        raise BadInput(f"There is no runtime {runtime!r}: choose {' or '.join(RUNTIMES)}.")
    if runtime == "onnxruntime":
        from mtnet_jax.predict.onnx_runtime import make_onnx_detector  # its packages are optional

        return make_onnx_detector
    return make_detector


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises:
      OSError: the file cannot be read.
      BadRecord: (a ValueError) it is no picture; the message names it.
    """
    try:
        return decode_image(Path(path).read_bytes())
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from error


def find_pictures(
    inputs: Iterable[str | os.PathLike], *, leave_out: str | os.PathLike | None = None
) -> list[Path]:
    """Files as they are; folders become the pictures in them and below, sorted.

    An input that does not exist stays in the list: reading it fails, and is reported then.

    Args:
      inputs: files and folders.
      leave_out: a folder below an input folder that is not looked into: the overlays of an earlier
        run.

    Raises:
      FileNotFoundError: a folder without pictures.
    """
    found: list[Path] = []
    for entry in map(Path, inputs):
        if not entry.is_dir():
            found.append(entry)
            continue
        inside = sorted(
            path
            for path in entry.rglob("*")
            if path.suffix.lower() in PICTURE_SUFFIXES
            and path.is_file()
            and not (leave_out and _lies_below(path, leave_out) and _lies_below(leave_out, entry))
        )
        if not inside:
            raise MissingFile(
                f"No picture in the folder {entry} (looked for {', '.join(PICTURE_SUFFIXES)})."
            )
        found.extend(inside)
    return found


def predict_files(
    predictor: Predictor,
    pictures: list[Path],
    *,
    out: Path | None,
    json_file: Path | None,
    cube: bool = False,
) -> list[Path]:
    """Predicts picture files; writes overlays and one JSON list.

    Args:
      predictor: the network.
      pictures: files.
      out: folder for overlays (PNG, the picture's name; a counter where names repeat), or None.
      json_file: file for the heads of all pictures, or None.
      cube: draw a cube round each head too.

    Returns:
      The files that could not be read; each was reported on stderr, the others went on.

    Raises:
      ValueError: a picture lies in `out` itself, where an overlay could replace it.
      OSError: something cannot be written.
    """
    for path in pictures:
        if out is not None and path.resolve().parent == out.resolve():
            raise BadInput(f"{path} lies in the folder for overlays, {out}: choose another folder.")
    # What cannot be written is said before the work; what an earlier run wrote stays until then.
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.open("a").close()
    failed: list[Path] = []
    results: list[dict] = []
    names: set[str] = set()
    for path in tqdm(pictures, unit="picture", disable=len(pictures) < 2):
        try:
            image = read_picture(path)
        except (OSError, BadRecord) as error:
            tqdm.write(f"cannot read a picture: {error}", file=sys.stderr)
            failed.append(path)
            continue
        heads = predictor(image)
        results.append(
            {
                "image": str(path),
                **heads_to_json(image, heads, predictor.class_names),
            }
        )
        if out is not None:
            overlay = draw_heads(image, as_arrays(heads), cube=cube)
            write_picture(out / _free_name(path.stem, names), overlay)
    if json_file is not None:
        json_file.write_text(json.dumps(results, indent=1) + "\n")
    return failed


def heads_to_json(
    image: np.ndarray, heads: list[Head], class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Size and heads of a picture, ready for JSON; heads name their label if there are several."""
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "heads": [head.to_json(label=len(class_names) > 1) for head in heads],
    }


def as_arrays(heads: list[Head]) -> dict[str, np.ndarray]:
    """Heads as the arrays that drawing and metrics take."""
    return {
        "boxes": np.array([h.box for h in heads], np.float32).reshape(-1, 4),
        "scores": np.array([h.score for h in heads], np.float32),
        "rotations": np.array([h.rotation for h in heads], np.float32).reshape(-1, 3, 3),
    }


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes an RGB picture; folders on the way are made.

    Raises:
      OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))
    if not good:
        raise Unavailable(f"OpenCV cannot encode {path}")
    path.write_bytes(data.tobytes())


def _lies_below(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    return Path(folder).resolve() in Path(path).resolve().parents


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name not used before in this run, now taken; folders may hold pictures of one name.

    Names that differ in case only are one name: some file systems do not tell them apart.
    """
    name, number = f"{stem}.png", 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}_{number}.png"
    taken.add(name.lower())
    return name
