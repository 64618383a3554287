"""From the command to the overlay of one image: seconds, processor time and memory.

    python -m benchmarks.start_predict --peers .venv-peers/bin/python --face-model package

- mtnet, mtnet jax: `mtnet predict IMAGE --weights ...` with either runtime.
- mediapipe: `benchmarks.peers mediapipe` (its docstring says how to get what it needs), without an
  overlay.
- two stages: the least program that finds faces and gives each crop to another network, OpenCV and
  onnxruntime alone. The networks are stand-ins, untrained, of the published sizes of YuNet (76
  thousand parameters in depthwise layers, 320 pixels) and FSA-Net (1.2 million, crops of 64
  pixels), so they find nothing: a crop of the middle goes to the second. Time and memory depend on
  sizes alone.

Each in new processes, in turn, as often as --turns says; medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mtnet_jax.export.graph import Graph, require, write_model
from mtnet_jax.shipped import shipped

IMAGE = shipped("demo/images/person11146+0+0.jpg")
TWO_STAGES = """
import sys
import cv2, numpy as np, onnxruntime
find, turn = (onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
              for name in sys.argv[1:3])
image = cv2.imread(sys.argv[3])
def look(session, pixels, size):
    pixels = cv2.resize(pixels, (size, size)).astype(np.float32).transpose(2, 0, 1)[None]
    return session.run(None, {"x": pixels})[0]
look(find, image, 320)
height, width = image.shape[:2]
box = width // 4, height // 4, width * 3 // 4, height * 3 // 4
yaw, pitch, roll = look(turn, image[box[1]:box[3], box[0]:box[2]], 64).reshape(-1)[:3]
cv2.rectangle(image, box[:2], box[2:], (0, 0, 255), 2)
cv2.imwrite(sys.argv[4], image)
"""


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="release")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="that has MediaPipe")
    parser.add_argument("--face-model", type=Path, metavar="DIR", help="see benchmarks.peers")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = programs(folder, args.weights, args.peers, args.face_model)
        for command in commands.values():
            measure(command)  # files and caches are warm for all
        found: dict[str, list[tuple[float, ...]]] = {title: [] for title in commands}
        for _ in range(args.turns):
            for title, command in commands.items():
                found[title].append(measure(command))
    print(f"{'':12s} seconds  CPU s  most MB")
    for title, runs in found.items():
        seconds, cpu, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{title:12s} {seconds:7.2f} {cpu:6.2f} {memory:8.0f}")


def programs(
    folder: Path, weights: str, peers: Path | None, face_model: Path | None
) -> dict[str, list[str]]:
    """Title -> command; each writes into a folder."""
    write_model(folder / "find.onnx", stand_in_of_yunet())
    write_model(folder / "turn.onnx", stand_in_of_fsanet())
    (folder / "two_stages.py").write_text(TWO_STAGES)
    mtnet = [sys.executable, "-m", "mtnet_jax.cli", "predict", str(IMAGE), "--weights", weights]
    mtnet += ["--out", str(folder / "heads")]
    files = [str(folder / file) for file in ("two_stages.py", "find.onnx", "turn.onnx")]
    found = {
        "mtnet": mtnet,
        "mtnet jax": [*mtnet, "--runtime", "jax"],
        "two stages": [sys.executable, *files, str(IMAGE), str(folder / "two_stages.png")],
    }
    if peers and face_model:
        (folder / "images").mkdir()
        (folder / "images" / IMAGE.name).symlink_to(IMAGE)
        command = [str(peers), "-m", "benchmarks.peers", "mediapipe"]
        command += ["--images", str(folder / "images"), "--face-model", str(face_model)]
        found["mediapipe"] = [*command, "--out", str(folder / "mediapipe.json")]
    return found


def measure(command: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and the most megabytes of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.decode(errors='replace')}")
    seconds = time.perf_counter() - start
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def stand_in_of_yunet() -> Any:
    """Depthwise-separable layers at 320 pixels, 76 thousand parameters."""
    net = _Net(320, 3)
    net.layer(16, 3, stride=2)
    for features, stride in ((32, 2), (64, 1), (64, 2), (64, 1), (64, 2), (64, 1), (64, 2)):
        net.layer(net.channels, 3, stride=stride, groups=net.channels)
        net.layer(features, 1)
    for _ in range(10):
        net.layer(net.channels, 3, groups=net.channels)
        net.layer(64, 1)
    net.layer(16, 1)
    return net.model()


def stand_in_of_fsanet() -> Any:
    """3x3 layers at 64 pixels, 1.2 million parameters."""
    net = _Net(64, 3)
    for features, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2)):
        net.layer(features, 3, stride=stride)
    net.layer(200, 3)
    net.layer(3, 8, pads=0)
    return net.model()


class _Net:
    """Convolutions in a row, with random weights."""

    def __init__(self, size: int, channels: int):
        self.graph = Graph(require("onnx"))
        self.channels = channels
        self._size, self._x, self._rng = size, "x", np.random.default_rng(0)

    def layer(
        self, features: int, side: int, *, stride: int = 1, groups: int = 1, pads: int | None = None
    ) -> None:
        """A convolution and a ReLU."""
        shape = (features, self.channels // groups, side, side)
        kernel = self._rng.normal(0, 0.05, shape).astype(np.float32)
        pads = side // 2 if pads is None else pads
        inputs = [self._x, self.graph.array(kernel), self.graph.array(np.zeros(features, "f4"))]
        options = {"strides": 2 * [stride], "group": groups, "pads": 4 * [pads]}
        self._x = self.graph.add("Relu", [self.graph.add("Conv", inputs, **options)])
        self.channels = features

    def model(self) -> Any:
        """The finished model, its result `y`."""
        self.graph.add("Identity", [self._x], outputs=["y"])
        kind = self.graph.types.FLOAT
        square = (kind, [1, 3, self._size, self._size])
        return self.graph.model(
            "stand_in", {"x": square}, {"y": (kind, [1, self.channels, "h", "w"])}, {}
        )


if __name__ == "__main__":
    main()
