"""The network once more, in PyTorch: NCHW, modules in torch's idioms, for comparison in the tests.

Submodules bear the names of the Flax modules, so weights are copied by walking names.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

BLOCKS = (1, 2, 8, 8, 4)


def unit(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
            bn=nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1),
            act=nn.LeakyReLU(0.1),
        )
    )


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = unit(channels, channels // 2, 1)
        self.conv2 = unit(channels // 2, channels, 3)

    def forward(self, x):
        return x + self.conv2(self.conv1(x))


class Backbone(nn.Sequential):
    """Sequential; keeps the outputs of the last three stages."""

    def __init__(self, base: int, blocks: tuple[int, ...]):
        layers = OrderedDict(stem=unit(3, base, 3))
        channels = base
        for stage, count in enumerate(blocks, 1):
            layers[f"stage{stage}_down"] = unit(channels, 2 * channels, 3, 2)
            channels *= 2
            for block in range(1, count + 1):
                layers[f"stage{stage}_block{block}"] = Residual(channels)
        super().__init__(layers)
        self.ends = [f"stage{stage}_block{blocks[stage - 1]}" for stage in (3, 4, 5)]

    def forward(self, x):
        kept = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.ends:
                kept.append(x)
        return kept


class Neck(nn.Module):
    def __init__(self, base: int):
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        inputs = 32 * base
        for scale, narrow in enumerate((16 * base, 8 * base, 4 * base), 1):
            if scale > 1:
                self.add_module(f"lateral{scale}", unit(2 * narrow, narrow, 1))
                inputs = narrow + 2 * narrow
            for number in range(1, 7):
                odd = number % 2 == 1
                outputs = narrow if odd else 2 * narrow
                self.add_module(
                    f"scale{scale}_conv{number}", unit(inputs, outputs, 1 if odd else 3)
                )
                inputs = outputs

    def forward(self, c3, c4, c5):
        p5 = self._first_five(c5, 1)
        in4 = torch.cat([self.upsample(self.lateral2(p5)), c4], 1)
        p4 = self._first_five(in4, 2)
        in3 = torch.cat([self.upsample(self.lateral3(p4)), c3], 1)
        p3 = self._first_five(in3, 3)
        sixth = [self.scale1_conv6(p5), self.scale2_conv6(p4), self.scale3_conv6(p3)]
        return sixth, [c5, in4, in3]

    def _first_five(self, x, scale):
        for number in range(1, 6):
            x = getattr(self, f"scale{scale}_conv{number}")(x)
        return x


class TorchTwin(nn.Module):
    """Base is the stem's channel count: 32 at width 1."""

    def __init__(
        self,
        version: str,
        classes: int,
        pose_size: int,
        *,
        base: int = 32,
        blocks: tuple[int, ...] = BLOCKS,
        tanh_box: bool = False,
        tanh_pose: bool = False,
        boxes_to_pose: bool = False,
        pose_blocks: int = 0,
    ):
        super().__init__()
        self.classes, self.pose_size = classes, pose_size
        self.tanh_box, self.tanh_pose, self.boxes_to_pose = tanh_box, tanh_pose, boxes_to_pose
        self.backbone = Backbone(base, blocks)
        self.neck = Neck(base)
        face_channels = 3 * (5 + classes + (pose_size if version == "v1" else 0))
        self.face = nn.ModuleDict(
            {
                f"scale{i}": nn.Conv2d(wide * base, face_channels, 1)
                for i, wide in enumerate((32, 16, 8), 1)
            }
        )
        self.pose = None
        if version == "v2":
            self.pose = nn.ModuleDict()
            extra = face_channels if boxes_to_pose else 0
            for i, (inputs, hidden) in enumerate(((32, 16), (24, 8), (12, 4)), 1):
                residuals = [Residual(inputs * base + extra) for _ in range(pose_blocks)]
                for number, residual in enumerate(residuals, 1):
                    self.pose[f"scale{i}_block{number}"] = residual
                self.pose[f"hidden{i}"] = unit(inputs * base + extra, hidden * base, 1)
                self.pose[f"scale{i}"] = nn.Conv2d(hidden * base, 3 * pose_size, 1)

    def forward(self, x):
        sixth, inputs = self.neck(*self.backbone(x))
        outputs = []
        for i, (features, pose_input) in enumerate(zip(sixth, inputs, strict=True), 1):
            face = self.face[f"scale{i}"](features)
            b, _, h, w = face.shape
            maps = face.view(b, 3, -1, h, w)
            if self.pose is not None:
                if self.boxes_to_pose:
                    pose_input = torch.cat([pose_input, face.detach()], 1)
                for name, module in self.pose.items():
                    if name.startswith(f"scale{i}_block"):
                        pose_input = module(pose_input)
                pose = self.pose[f"scale{i}"](self.pose[f"hidden{i}"](pose_input))
                maps = torch.cat([maps, pose.view(b, 3, -1, h, w)], 2)
            maps = maps.permute(0, 3, 4, 1, 2).contiguous()
            if self.tanh_box:
                maps[..., :4] = torch.tanh(maps[..., :4])
            if self.tanh_pose:
                maps[..., 5 + self.classes :] = torch.tanh(maps[..., 5 + self.classes :])
            outputs.append(maps)
        return outputs

    def copy_from_flax(self, variables) -> None:
        """Fills every parameter and running statistic, and finds a place for every Flax array."""
        used = 0
        with torch.no_grad():
            for name, module in self.named_modules():
                path = name.split(".")
                if isinstance(module, nn.Conv2d):
                    node = _at(variables["params"], [p for p in path if p != "conv"])
                    module.weight.copy_(_tensor(np.transpose(node["kernel"], (3, 2, 0, 1))))
                    used += 1
                    if module.bias is not None:
                        module.bias.copy_(_tensor(node["bias"]))
                        used += 1
                elif isinstance(module, nn.BatchNorm2d):
                    node, stats = (_at(variables[k], path) for k in ("params", "batch_stats"))
                    module.weight.copy_(_tensor(node["scale"]))
                    module.bias.copy_(_tensor(node["bias"]))
                    module.running_mean.copy_(_tensor(stats["mean"]))
                    module.running_var.copy_(_tensor(stats["var"]))
                    used += 4
        assert used == _count_leaves(variables)

    def read_darknet(self, path, *, with_neck: bool) -> int:
        """Reads a Darknet file in the manner of PyTorch ports of YOLOv3; returns floats read."""
        with open(path, "rb") as file:
            np.fromfile(file, np.int32, 5)
            rest = torch.from_numpy(np.fromfile(file, np.float32))
        self._rest, total = rest, rest.numel()
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Sequential) and hasattr(layer, "conv"):
                self._read_unit(layer)
        if with_neck:
            for scale in (1, 2, 3):
                if scale > 1:
                    self._read_unit(getattr(self.neck, f"lateral{scale}"))
                for number in range(1, 7):
                    self._read_unit(getattr(self.neck, f"scale{scale}_conv{number}"))
                linear = self.face[f"scale{scale}"]
                self._read_into(linear.bias)
                self._read_into(linear.weight)
        return total - self._rest.numel()

    def _read_unit(self, layer) -> None:
        bn = layer.bn
        for tensor in (bn.bias, bn.weight, bn.running_mean, bn.running_var, layer.conv.weight):
            self._read_into(tensor)

    def _read_into(self, tensor) -> None:
        with torch.no_grad():
            tensor.copy_(self._rest[: tensor.numel()].view_as(tensor))
        self._rest = self._rest[tensor.numel() :]


def run_twin(twin: TorchTwin, images_BxHxWx3: np.ndarray) -> list[np.ndarray]:
    """Forward pass in the modes the twin's modules are in, in float64.

    In float32 the two frameworks are equally far from the exact result, in training mode up to
    1e-4 each, and their difference would show rounding alone.
    """
    images_BCHW = torch.from_numpy(images_BxHxWx3.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.no_grad():
        outputs = twin.double()(images_BCHW)
    return [output.numpy() for output in outputs]


def batch_statistics(twin: TorchTwin, images_BxHxWx3: np.ndarray) -> dict[str, dict]:
    """Mean and biased variance of the input of every BatchNorm in a forward pass (float64)."""
    seen = {}

    def record(name):
        def hook(module, inputs):
            x = inputs[0]
            seen[name] = {"mean": x.mean((0, 2, 3)), "var": x.var((0, 2, 3), correction=0)}

        return hook

    handles = [
        module.register_forward_pre_hook(record(name))
        for name, module in twin.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    run_twin(twin, images_BxHxWx3)
    for handle in handles:
        handle.remove()
    return {name: {k: v.numpy() for k, v in stats.items()} for name, stats in seen.items()}


def convolution_flops(twin: TorchTwin, side: int) -> tuple[int, int]:
    """2 x multiply-adds of all convolutions for one image: with and without border padding.

    Runs on torch's meta device, which computes shapes alone.
    """
    full = inside = 0

    def taps(size, out, kernel, stride, pad):
        place = np.arange(out)[:, None] * stride - pad + np.arange(kernel)
        return int(((place >= 0) & (place < size)).sum())

    def hook(module, inputs, output):
        nonlocal full, inside
        k, s, p = module.kernel_size[0], module.stride[0], module.padding[0]
        pairs = 2 * module.in_channels * module.out_channels
        full += pairs * k * k * output.shape[2] * output.shape[3]
        rows, columns = (taps(inputs[0].shape[d], output.shape[d], k, s, p) for d in (2, 3))
        inside += pairs * rows * columns

    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook)
    twin(torch.empty(1, 3, side, side, device="meta"))
    return full, inside


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def _tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _count_leaves(tree) -> int:
    return sum(map(_count_leaves, tree.values())) if isinstance(tree, dict) else 1
