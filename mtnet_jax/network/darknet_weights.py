"""Reads Darknet's weight files: `darknet53.conv.74` (backbone) and `yolov3.weights` (and neck).

A file is a header and then float32 numbers, little endian, convolution by convolution in the order
of the network's description (`load_convolutional_weights` of Darknet's parser.c):

* header: int32 major, minor, revision; then the count of images seen, int64 from version 0.2 on
  and int32 before;
* a convolution with BatchNorm: biases, scales, running means, running variances, kernel;
* a linear convolution: biases, kernel. Kernels are (out, in, height, width).

yolov3.weights holds, after the 52 convolutions of Darknet-53, for strides 32, 16 and 8: the lateral
1x1 (not at stride 32), the six convolutions of the scale, and its linear detection convolution.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtnet_jax.anchors import ANCHORS_PER_CELL
from mtnet_jax.errors import BadInput
from mtnet_jax.network.darknet53 import STAGE_BLOCKS
from mtnet_jax.network.fpn import SCALE_CHANNELS

BACKBONE_FLOATS = 40_620_640  # with running statistics
NECK_FLOATS = 20_923_392
COCO_CHANNELS = ANCHORS_PER_CELL * (5 + 80)  # of a detection convolution in yolov3.weights
BACKBONE_CONVOLUTIONS = 2 * sum(STAGE_BLOCKS) + len(STAGE_BLOCKS) + 1

Tree = dict[str, Any]


@dataclass(frozen=True)
class WeightsReport:
    """What came out of a weight file.

    Attributes:
      path: the file.
      version: major, minor, revision of the header.
      images_seen: the header's count of training images.
      loaded: group -> floats read into it (running statistics included).
      unused: floats of the file that the network has no place for.
      untouched: groups of the network that keep the values they had.
    """

    path: Path
    version: tuple[int, int, int]
    images_seen: int
    loaded: dict[str, int]
    unused: int
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        loaded = ", ".join(f"{group} {count:,}" for group, count in self.loaded.items())
        text = f"{self.path.name}: loaded {loaded} floats"
        if self.unused:
            text += f"; {self.unused:,} floats of its detection convolutions left out"
        if self.untouched:
            text += f"; as before: {', '.join(self.untouched)}"
        return text


def load_darknet_weights(
    path: str | Path, variables: Mapping[str, Any], *, detection_channels: int = COCO_CHANNELS
) -> tuple[Tree, WeightsReport]:
    """Loads a Darknet weight file into a `MultitaskNet` of width 1 and depth 1.

    The kind of file is told by its size, which must be exact. The linear detection convolutions of
    yolov3.weights go into the face branch only where they mean the same: version v2 with as many
    classes as the file. Their anchors are then those of yolov3.cfg, and the classes in its order.

    Args:
      path: a file laid out as darknet53.conv.74 or yolov3.weights.
      variables: {"params", "batch_stats"} of the network; not changed.
      detection_channels: 3 (5 + classes) of the net the file was written by, 255 for COCO.

    Returns:
      The variables with the file's values in place (NumPy arrays where read), and the report.

    Raises:
      ValueError: a network of another width or depth; a file of another size, with the numbers of
        floats expected and found; numbers that are not finite, or a negative variance.
    """
    path = Path(path)
    params = variables["params"]
    _check_network(params)
    version, seen, floats = _read(path)

    detection = [
        detection_channels * (params["face"][f"scale{scale}"]["kernel"].shape[2] + 1)
        for scale in range(1, len(SCALE_CHANNELS) + 1)
    ]
    full = BACKBONE_FLOATS + NECK_FLOATS + sum(detection)
    if floats.size not in (BACKBONE_FLOATS, full):
        raise BadInput(
            f"{path}: {floats.size:,} floats after the header; expected {BACKBONE_FLOATS:,} "
            f"(backbone, as darknet53.conv.74) or {full:,} (backbone, neck and detection "
            f"convolutions of {detection_channels} channels, as yolov3.weights)"
        )
    if not np.isfinite(floats).all():
        raise BadInput(f"{path}: holds numbers that are not finite")

    with_face = "pose" in params and params["face"]["scale1"]["bias"].size == detection_channels
    result = jax.tree.map(lambda leaf: leaf, dict(variables))  # new dicts, the same arrays
    cursor = _Cursor(path, floats)
    for layer in _backbone_layers():
        cursor.read_convolution(result, ("backbone", *layer))
    if floats.size == full:
        for scale, size in enumerate(detection, start=1):
            for name in _neck_layers(scale):
                cursor.read_convolution(result, ("neck", name))
            if with_face:
                cursor.read_linear(result, ("face", f"scale{scale}"))
            else:
                cursor.take((size,))
    assert cursor.position == floats.size

    loaded = cursor.loaded
    return result, WeightsReport(
        path=path,
        version=version,
        images_seen=seen,
        loaded=loaded,
        unused=floats.size - sum(loaded.values()),
        untouched=tuple(group for group in params if group not in loaded),
    )


class _Cursor:
    """Takes arrays off the front of a file's floats and counts them by group."""

    def __init__(self, path: Path, floats: np.ndarray) -> None:
        self.path = path
        self.floats = floats
        self.position = 0
        self.loaded: dict[str, int] = {}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        start, self.position = self.position, self.position + math.prod(shape)
        return self.floats[start : self.position].reshape(shape)

    def read_convolution(self, variables: Tree, layer: tuple[str, ...]) -> None:
        """Convolution with BatchNorm: biases, scales, means, variances, kernel."""
        start = self.position
        params = _descend(variables["params"], layer)
        stats = _descend(variables["batch_stats"], layer)["bn"]
        shape = stats["mean"].shape
        params["bn"]["bias"] = self.take(shape)
        params["bn"]["scale"] = self.take(shape)
        stats["mean"] = self.take(shape)
        stats["var"] = self.take(shape)
        if (stats["var"] < 0).any():
            raise BadInput(
                f"{self.path}: a negative variance at {'/'.join(layer)}: the file's convolutions "
                "are not those of Darknet-53 and YOLOv3"
            )
        params["kernel"] = self._take_kernel(params["kernel"].shape)
        self._count(layer[0], start)

    def read_linear(self, variables: Tree, layer: tuple[str, ...]) -> None:
        """Linear convolution: biases, kernel."""
        start = self.position
        params = _descend(variables["params"], layer)
        params["bias"] = self.take(params["bias"].shape)
        params["kernel"] = self._take_kernel(params["kernel"].shape)
        self._count(layer[0], start)

    def _take_kernel(self, shape_HWIO: tuple[int, ...]) -> np.ndarray:
        height, width, inputs, outputs = shape_HWIO
        kernel_OIHW = self.take((outputs, inputs, height, width))
        return np.ascontiguousarray(kernel_OIHW.transpose(2, 3, 1, 0))

    def _count(self, group: str, start: int) -> None:
        self.loaded[group] = self.loaded.get(group, 0) + self.position - start


def _descend(tree: Tree, path: tuple[str, ...]) -> Tree:
    for name in path:
        tree = tree[name]
    return tree


def _backbone_layers() -> Iterator[tuple[str, ...]]:
    yield ("stem",)
    for stage, blocks in enumerate(STAGE_BLOCKS, start=1):
        yield (f"stage{stage}_down",)
        for block in range(1, blocks + 1):
            yield (f"stage{stage}_block{block}", "conv1")
            yield (f"stage{stage}_block{block}", "conv2")


def _neck_layers(scale: int) -> list[str]:
    lateral = [f"lateral{scale}"] if scale > 1 else []
    return lateral + [f"scale{scale}_conv{number}" for number in range(1, 7)]


def _read(path: Path) -> tuple[tuple[int, int, int], int, np.ndarray]:
    """Header's version and count of images, and the floats after it."""
    data = path.read_bytes()
    if len(data) < 20:
        raise BadInput(f"{path}: {len(data)} bytes, not even the 20 of a header")
    major, minor, revision = (int(value) for value in np.frombuffer(data, "<i4", count=3))
    wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    seen = int(np.frombuffer(data, "<i8" if wide else "<i4", count=1, offset=12)[0])
    header = 20 if wide else 16
    count, rest = divmod(len(data) - header, 4)
    if rest:
        raise BadInput(
            f"{path}: {len(data):,} bytes are no whole number of floats after a header of "
            f"{header}: {count:,} floats and {rest} bytes; expected {BACKBONE_FLOATS:,} floats "
            "(darknet53.conv.74) or those of a yolov3.weights"
        )
    return (major, minor, revision), seen, np.frombuffer(data, "<f4", offset=header)


def _check_network(params: Mapping[str, Any]) -> None:
    """Refuses a net whose backbone or neck is not that of width 1 and depth 1."""
    for group, expected, convolutions in (
        ("backbone", BACKBONE_FLOATS, BACKBONE_CONVOLUTIONS),
        ("neck", NECK_FLOATS, None),
    ):
        leaves = jax.tree_util.tree_leaves_with_path(params[group])
        kernels = sum(path[-1].key == "kernel" for path, _ in leaves)
        # Each scale has a running mean, each bias a running variance beside it in the file.
        floats = sum(leaf.size * (1 if path[-1].key == "kernel" else 2) for path, leaf in leaves)
        if floats != expected or convolutions not in (None, kernels):
            raise BadInput(
                f"Darknet's weights fit a net of width 1 and depth 1: its {group} holds "
                f"{expected:,} floats, that of this net {floats:,} in {kernels} convolutions"
            )
