"""Heads and poses from a picture, in three lines:

import mtnet_jax
predictor = mtnet_jax.Predictor.load("runs/quickstart")
heads = predictor("picture.jpg")
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mtnet_jax.data import geometry
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.listing import IMAGE_SUFFIXES, Listing, list_images
from mtnet_jax.decode import Heads
from mtnet_jax.errors import BadInput, BadRecord, MissingFile, Unavailable
from mtnet_jax.outputs import JsonLines, JsonList, Outputs
from mtnet_jax.predict.draw import draw_heads
from mtnet_jax.predict.inference import Detector, heads_in_picture, make_detector
from mtnet_jax.rotations import rotation_to_euler
from mtnet_jax.system import System, build_system
from mtnet_jax.weights import load_weights

DEFAULT_SCORE_THRESHOLD = 0.3
STANDARD_OUTPUT = Path("-")
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
        weights: str | os.PathLike,
        *,
        score_threshold: float = DEFAULT_SCORE_THRESHOLD,
        runtime: str = "jax",
    ) -> "Predictor":
        """Reads a work directory of `mtnet train` or a folder of `mtnet export`.

        Args:
          weights: the directory.
          score_threshold: heads of a lower score are left out.
          runtime: what computes the network. "jax" runs everywhere, "onnxruntime" on the CPU.
            The heads are the same up to rounding; docs/performance.md compares the times.

        Raises:
          FileNotFoundError: no weights there.
          ValueError: damaged weights, weights that do not fit their configuration, or a runtime
            that does not exist.
          RuntimeError: onnxruntime or onnx is not installed.
        """
        config, variables = load_weights(weights)
        return cls(config, variables, score_threshold=score_threshold, runtime=runtime)

    def __call__(self, picture: Any) -> list[Head]:
        """Finds the heads of an image.

        Args:
          picture: (H, W, 3) uint8 RGB (OpenCV reads BGR: reverse its last axis), a PIL image, the
            bytes of an image file, or its path.

        Returns:
          The heads by falling score.

        Raises:
          ValueError: an array of another shape or type, or a file that is no image, by name.
          OSError: a file that cannot be read.
        """
        image = as_rgb(picture)
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
        columns = (arrays["boxes"], arrays["scores"], arrays["rotations"], angles, arrays["labels"])
        return [
            Head(
                tuple(box.tolist()),
                float(score),
                rotation,
                *three.tolist(),
                self.class_names[label],
            )
            for box, score, rotation, three, label in zip(*columns, strict=True)
        ]


def _detector_of(runtime: str) -> Callable[[System, ConfigDict, float], Detector]:
    if runtime not in RUNTIMES:
        raise BadInput(f"There is no runtime {runtime!r}: choose {' or '.join(RUNTIMES)}.")
    if runtime == "onnxruntime":
        from mtnet_jax.predict.onnx_runtime import make_onnx_detector  # its packages are optional

        return make_onnx_detector
    return make_detector


def as_rgb(image: Any) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB; see `Predictor.__call__` for what it may be."""
    if isinstance(image, str) and "://" in image:
        raise BadInput(f"{image} is an address: download the image, and give its path or bytes.")
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if hasattr(image, "convert") and hasattr(image, "getexif"):  # PIL's, which may not be installed
        from PIL import ImageOps

        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise BadInput(
            "An image must be an array, a PIL image, bytes or a path, not a "
            f"{type(image).__name__}."
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise BadInput(
            f"An image must be (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}."
        )
    return image


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
) -> Listing:
    """Files as they are; folders become the images in them and below, sorted.

    An input that does not exist stays in the list: reading it fails, and is reported then.

    Args:
      inputs: files and folders.
      leave_out: a folder below an input folder that is not looked into: the overlays of an earlier
        run.

    Returns:
      The images, each once, and what was left out.

    Raises:
      FileNotFoundError: a folder without images.
    """
    found = Listing()
    for entry in map(Path, inputs):
        if not entry.is_dir():
            found.images.append(entry)
            continue
        inside = list_images(entry, but=leave_out and Path(leave_out))
        if not inside.images:
            raise MissingFile(
                f"No image in the folder {entry} (looked for {', '.join(IMAGE_SUFFIXES)})"
                + (f"; {inside}." if inside.left_out else ".")
            )
        found.images += inside.images
        found.left_out += inside.left_out
    once = dict.fromkeys(found.images)
    if len(once) < len(found.images):
        found.left_out["named a second time"] = len(found.images) - len(once)
    return Listing(list(once), found.left_out)


def predict_files(
    predictor: Predictor,
    pictures: list[Path],
    *,
    out: Path | None,
    json_file: Path | None,
    lines_file: Path | None = None,
    cube: bool = False,
    outputs: Outputs | None = None,
) -> list[Path]:
    """Predicts image files; writes overlays, a JSON list and JSON lines as it goes.

    Args:
      predictor: the network.
      pictures: files.
      out: folder for overlays (PNG, the image's name; a counter where names repeat), or None.
      json_file: file for the heads of all images as one list, "-" for standard output, or None.
      lines_file: the same as JSON lines, an object an image.
      cube: draw a cube round each head too.
      outputs: of the run of the command; None: these images are all that it reads.

    Returns:
      The files that could not be read; each was reported on stderr, the others went on.

    Raises:
      FileInTheWay: something that this command did not make stands where it would write.
      BadInput: an image lies in `out` itself, where an overlay could replace it.
      OSError: something cannot be written.
    """
    outputs = outputs or Outputs("predict", pictures)
    names = _overlay_names(outputs, pictures, out)
    failed = []
    with contextlib.ExitStack() as opened:
        # What cannot be written is said before the work.
        sinks = [
            opened.enter_context(_json_sink(outputs, path, form))
            for path, form in ((json_file, JsonList), (lines_file, JsonLines))
            if path is not None
        ]
        for path in tqdm(pictures, unit="image", disable=len(pictures) < 2):
            try:
                image = read_picture(path)
            except (OSError, BadRecord) as error:
                tqdm.write(f"cannot read an image: {error}", file=sys.stderr)
                failed.append(path)
                continue
            heads = predictor(image)
            if path in names:
                overlay = draw_heads(image, as_arrays(heads), cube=cube)
                write_picture(outputs, names[path], overlay, of=str(path.resolve()))
            entry = {"image": str(path), **heads_to_json(image, heads, predictor.class_names)}
            for sink in sinks:
                sink.append(entry)
    return failed


def _overlay_names(outputs: Outputs, pictures: list[Path], out: Path | None) -> dict[Path, Path]:
    if out is None:
        return {}
    for path in pictures:
        if path.resolve().parent == out.resolve():
            raise BadInput(f"{path} lies in the folder for overlays, {out}: choose another folder.")
    return {
        path: outputs.own_name(out, path.stem, ".png", str(path.resolve())) for path in pictures
    }


@contextlib.contextmanager
def _json_sink(outputs: Outputs, path: Path, form: type[JsonLines]) -> Iterator[JsonLines]:
    if path == STANDARD_OUTPUT:
        sink = form(sys.stdout.buffer, rewinds=False)
        try:
            yield sink
        finally:
            sink.close()
        return
    with outputs.writing(path, also_cut_short=True) as file:
        sink = form(file)
        try:
            yield sink
        finally:
            sink.close()


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


def check_image_name(path: Path) -> None:
    """Raises BadInput for a name whose suffix is no format that can be written."""
    if not cv2.haveImageWriter(path.name):
        raise BadInput(
            f"{path}: images cannot be written as {path.suffix or 'a file without suffix'}"
            ": name it .png or .jpg."
        )


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """An (H, W, 3) uint8 RGB image in the format of a suffix."""
    good, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    if not good:
        raise Unavailable(f"OpenCV cannot encode an image of {image.shape} as {suffix}")
    return data.tobytes()


def write_picture(outputs: Outputs, path: Path, image: np.ndarray, of: str = "") -> None:
    """Writes an RGB image as an output of a command; folders on the way are made.

    Raises:
      FileInTheWay: something else stands there.
      OSError: it cannot be written.
    """
    check_image_name(path)
    outputs.write(path, encode_image(image, path.suffix), of)
