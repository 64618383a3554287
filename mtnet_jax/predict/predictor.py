"""Heads and poses from an image, in three lines:

import mtnet_jax
predictor = mtnet_jax.Predictor()
heads = predictor("image.jpg")
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.camera import check_intrinsics, intrinsics_of_view, ray_to_camera
from mtnet_jax.data.images import decode_image, eight_bits
from mtnet_jax.errors import BadInput, BadRecord
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.places import Place
from mtnet_jax.predict.head import Head
from mtnet_jax.predict.looks import look_at
from mtnet_jax.predict.placing import Found, chosen, letterboxed
from mtnet_jax.predict.runtimes import Wanted, open_weights
from mtnet_jax.predict.second_look import LEAST_SCORE, looks_again, merge
from mtnet_jax.predict.tiles import AUTO, Tile, check_tile
from mtnet_jax.rotations import rotation_to_euler
from mtnet_jax.run_metrics import LAST, Step
from mtnet_jax.shipped import weights_folder

Image = Any  # an array, a PIL image, bytes or a path; see `Predictor.__call__`


class Predictor:
    """A trained network that takes images of any size and shape.

    Threads may share it; pickled, as for other processes, it opens its weights again there.

    Attributes:
      class_names: the labels that heads may have.
      frame: what rotations are relative to, "camera" or "ray" (`mtnet_jax.camera`).
      size: side of the network's input in pixels, into which every image is scaled.
      runtime: what computes the network, "jax" or "onnxruntime".
    """

    def __init__(
        self,
        weights: str | os.PathLike | Place | None = None,
        *,
        score_threshold: float = FOUND_SCORE,
        iou_threshold: float | None = None,
        runtime: str = "auto",
        device: str | None = None,
        size: int | None = None,
        tile: Tile = AUTO,
        second_look: bool | None = None,
        fov: float | None = None,
        intrinsics: Sequence[float] | None = None,
        step: Step = LAST,
    ):
        """Opens weights; those that ship if none are named.

        Args:
          weights: a work directory of `mtnet train`, a folder of `mtnet export`, or one of its
            files (.onnx); or the name of weights that ship.
          score_threshold: heads of a lower score are left out.
          iou_threshold: heads that overlap a better one by more are left out; None: as trained.
            What several looks say of a head is joined as trained.
          runtime: "onnxruntime" (CPU, starts fast), "jax", or "auto": onnxruntime where the weights
            have an exported file and no accelerator is there, else JAX. The heads are the same up
            to rounding.
          device: of JAX: "cpu", "gpu" or "tpu"; None: the best there is.
          size: side of the network's input, a multiple of 32; None: as trained. A larger one finds
            smaller heads in large images, and takes longer.
          tile: images larger than this many pixels are also looked at in overlapping tiles of this
            side, each as closely as a small image. "auto": where second looks are taken, large
            images with small heads, or none that is sure, in at most nine tiles. None: never.
          second_look: heads that the input shows too large or too small to be read best are looked
            at once more (`far_look`, `turned_look`, `tiles`, `close_look`): better boxes and poses
            of these. False takes half the time or less. None: as the weights were trained for.
          fov: degrees that the longer side of the images spans: then heads have `rotation_camera`.
          intrinsics: fx, fy, cx, cy in pixels, instead of `fov`.
          step: which checkpoint of a work directory: a number, "last" or "best".

        Raises:
          FileNotFoundError: no weights there.
          ValueError: damaged weights, weights that do not fit their configuration, or an option
            that cannot be.
          RuntimeError: a package that the runtime needs is not installed.
        """
        self._opened_with = {name: value for name, value in locals().items() if name != "self"}
        check_share("score_threshold", score_threshold)
        if iou_threshold is not None:
            check_share("iou_threshold", iou_threshold)
        check_camera(fov, intrinsics)
        check_tile(tile)
        least = score_threshold if second_look is False else min(score_threshold, LEAST_SCORE)
        wanted = Wanted(least, iou_threshold, runtime, size, device, step)
        config, self._detect, self.runtime, _ = open_weights(weights_folder(weights), wanted)
        self.class_names = tuple(config.class_names)
        self.frame = config.frame
        self.size = config.input.size
        self._joining, self._suppression = config.decode.iou_threshold, iou_threshold
        self._score_threshold = score_threshold
        self._tile = tile
        self._second_looks = looks_again(config, second_look)
        self._batch = 1  # the most images so far in one call
        self._fov, self._intrinsics = fov, intrinsics

    def __reduce__(self) -> tuple[Callable[[], "Predictor"], tuple[()]]:
        return partial(type(self), **self._opened_with), ()

    @classmethod
    def load(cls, weights: str | os.PathLike | Place | None = None, **options: Any) -> "Predictor":
        """The same as `Predictor(weights, **options)`."""
        return cls(weights, **options)

    def __call__(self, image: Image) -> list[Head]:
        """Finds the heads of an image.

        Args:
          image: (H, W, 3) uint8 RGB (OpenCV reads BGR: reverse its last axis), a PIL image, the
            bytes of an image file, or its path.

        Returns:
          The heads by falling score.

        Raises:
          ValueError: an array of another shape or type, or a file that is no image, by name.
          OSError: a file that cannot be read.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Iterable[Image]) -> list[list[Head]]:
        """Finds the heads of several images, each of any size, each look at all in one call.

        JAX compiles once for each number of images up to the largest so far: fewer are filled up.
        Of each of them one tile at a time goes through the network.
        """
        if isinstance(images, str | os.PathLike | bytes):
            raise BadInput("Several images are a list: for one take the predictor itself.")
        pixels = [as_rgb(image) for image in images]
        if not pixels:
            return []
        inputs, matrices = zip(*(letterboxed(image, self.size) for image in pixels), strict=True)
        found = look_at(
            lambda inputs: self._detect(self._filled_up(inputs)),
            pixels,
            inputs,
            matrices,
            iou_threshold=self._joining,
            second_looks=self._second_looks,
            tile=self._tile,
        )
        return [
            self._as_heads(self._sure(arrays), image.shape)
            for image, arrays in zip(pixels, found, strict=True)
        ]

    def _filled_up(self, inputs: np.ndarray) -> np.ndarray:
        count = len(inputs)
        if self.runtime != "jax" or count == 1:  # the first takes any number, alone nothing is won
            return inputs
        most = self._batch = max(self._batch, count)  # other threads may change it meanwhile
        return np.pad(inputs, [(0, most - count), (0, 0), (0, 0), (0, 0)])

    def _sure(self, found: Found) -> Found:
        """The heads that are asked for: far looks take means of less sure ones too, and of several
        looks they may overlap by more."""
        if self._suppression is not None:
            found = merge([found], self._suppression)
        return chosen(found, found["scores"] >= self._score_threshold)

    def _as_heads(self, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> list[Head]:
        # The angles of all heads at once: one by one they would cost as much as a small network.
        angles = rotation_to_euler(arrays["rotations"].astype(np.float64), convention="canonical")
        columns = (
            map(tuple, arrays["boxes"].tolist()),
            arrays["scores"].tolist(),
            arrays["rotations"],
            angles.tolist(),
            arrays["labels"].tolist(),
            self._in_camera(arrays, shape),
        )
        return [
            Head(
                box,
                score,
                rotation,
                yaw,
                pitch,
                roll,
                self.class_names[label],
                self.frame,
                rotation_camera,
            )
            for box, score, rotation, (yaw, pitch, roll), label, rotation_camera in zip(
                *columns, strict=True
            )
        ]

    def _in_camera(
        self, arrays: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> Sequence[np.ndarray | None]:
        """Rotations in camera axes, None for each where the camera is not known."""
        rotations = arrays["rotations"]
        if self._intrinsics is not None:
            intrinsics = np.asarray(self._intrinsics, np.float64)
        elif self._fov is not None:
            intrinsics = intrinsics_of_view(self._fov, shape[1], shape[0])
        else:
            return [None] * len(rotations)
        if self.frame == "camera":
            return list(rotations)
        return list(ray_to_camera(rotations, arrays["boxes"], intrinsics))


def check_share(name: str, number: float) -> None:
    """Raises BadInput for an option that is no number from 0 to 1."""
    if not (isinstance(number, Real) and 0 <= number <= 1):
        raise BadInput(f"{name} is {number!r}: it must be a number from 0 to 1.")


def check_camera(fov: float | None, intrinsics: Sequence[float] | None) -> None:
    """Raises BadInput for a camera that cannot be, or that is given twice."""
    if fov is not None and intrinsics is not None:
        raise BadInput("fov and intrinsics are two ways to name one camera: give one of them.")
    if fov is not None:
        intrinsics_of_view(fov, 1, 1)
    if intrinsics is not None:
        check_intrinsics(intrinsics)


def as_rgb(image: Any) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB; see `Predictor.__call__` for what that may be."""
    if isinstance(image, str) and "://" in image:
        raise BadInput(f"{image} is an address: download the image, and give its path or bytes.")
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if hasattr(image, "convert") and hasattr(image, "getexif"):  # PIL's, which may not be installed
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):  # more than 8 bits, which convert() would clip
            return np.repeat(eight_bits(np.asarray(upright))[..., None], 3, axis=-1)
        image = np.asarray(upright.convert("RGB"))
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


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises:
      OSError: the file cannot be read.
      BadRecord: (a ValueError) it is no image; the message names it.
    """
    try:
        return decode_image(Path(path).read_bytes())
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from error
