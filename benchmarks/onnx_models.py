"""ONNX models to compare with: our network, and networks that read one crop a head.

Made by PyTorch (the twin of tests/torch_twin.py); its exporter and onnxruntime's optimiser fold
BatchNorm into the convolutions. Needs requirements-benchmark.txt and torch.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn

from mtnet_jax.network.darknet53 import STAGE_BLOCKS, scaled_blocks
from mtnet_jax.system import build_system
from tests.torch_twin import TorchTwin

THREADS = 2
STEM_CHANNELS = 32  # at width 1


def write_network(path: Path, config: ConfigDict, variables: dict[str, Any]) -> None:
    """The bare network: images (1, 3, size, size) in [0, 1] -> its three maps."""
    model = build_system(config).model
    twin = TorchTwin(
        model.version,
        model.num_classes,
        model.pose_size,
        base=round(STEM_CHANNELS * model.width),
        blocks=tuple(scaled_blocks(blocks, model.depth) for blocks in STAGE_BLOCKS),
    )
    twin.copy_from_flax(variables)
    _write(path, twin, config.input.size, any_batch=False)


def write_crop_network(path: Path, name: str) -> int:
    """A network that reads crops of heads, of a size that is in use, with random weights.

    Args:
      path: file to write.
      name: "resnet50": of Hopenet and many after it; "fsanet": the two streams of FSA-Net (Yang et
        al. 2019), without the small capsules after them.

    Returns:
      The side of the crops in pixels.
    """
    torch.manual_seed(0)
    network, side = {"resnet50": (ResNet50, 224), "fsanet": (FsaStreams, 64)}[name]
    _write(path, network(), side, any_batch=True)
    return side


def session(path: Path, *, spin: bool = True) -> Any:
    """An onnxruntime session with two threads, and its optimiser at its highest level (default).

    Args:
      path: of the model.
      spin: threads wait actively after their work, onnxruntime's default; not beside others.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _write(path: Path, network: nn.Module, side: int, *, any_batch: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the old one
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, side, side),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}} if any_batch else None,
        )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, inner: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(
            *_unit(inputs, inner, 1),
            *_unit(inner, inner, 3, stride),
            *_unit(inner, 4 * inner, 1)[:2],
        )
        straight = inputs == 4 * inner and stride == 1
        self.shortcut = (
            nn.Identity() if straight else nn.Sequential(*_unit(inputs, 4 * inner, 1, stride)[:2])
        )

    def forward(self, x):
        return torch.relu(self.main(x) + self.shortcut(x))


class ResNet50(nn.Sequential):
    """ResNet-50 with nine outputs."""

    def __init__(self):
        layers = [*_unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for stage, (inner, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for block in range(blocks):
                layers.append(Bottleneck(channels, inner, 2 if stage and not block else 1))
                channels = 4 * inner
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 9))


class FsaStreams(nn.Module):
    """Two streams of separable convolutions at 64 pixels: ReLU and means, tanh and maxima."""

    def __init__(self):
        super().__init__()
        self.streams = nn.ModuleList(
            [
                _fsa_stream(nn.ReLU(), nn.AvgPool2d(2)),
                _fsa_stream(nn.Tanh(), nn.MaxPool2d(2)),
            ]
        )
        self.last = nn.Linear(64 * 8 * 8, 9)

    def forward(self, x):
        first, second = (stream(x) for stream in self.streams)
        return self.last((first * second).flatten(1))


def _fsa_stream(activation: nn.Module, pool: nn.Module) -> nn.Sequential:
    layers, channels = [], 3
    for outputs, repeats, pooled in ((16, 1, True), (32, 2, True), (64, 2, True), (128, 2, False)):
        for _ in range(repeats):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.Conv2d(channels, outputs, 1),
                nn.BatchNorm2d(outputs),
                activation,
            ]
            channels = outputs
        if pooled:
            layers.append(pool)
    return nn.Sequential(*layers, nn.Conv2d(128, 64, 1), activation)


def _unit(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def as_onnx_input(images_BxHxWx3: np.ndarray) -> np.ndarray:
    """uint8 images -> (B, 3, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(images_BxHxWx3.transpose(0, 3, 1, 2), np.float32) / 255
