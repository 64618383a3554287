"""Darknet weight files, written here layer by layer in file order, read here and by the twin."""

import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.network import MultitaskNet
from mtnet_jax.network.darknet53 import Darknet53
from mtnet_jax.network.darknet_weights import load_darknet_weights

# Sizes of the published files: a header of 20 bytes and float32 numbers.
CONV74_BYTES = 162_482_580
YOLOV3_BYTES = 248_007_048
CONV74_FLOATS = 40_620_640
YOLOV3_FLOATS = 62_001_757


def layers_of(kind: str, detection_channels: int = 255):
    """(inputs, filters, size, batch_normalize) in the order of darknet53.cfg or yolov3.cfg."""
    yield 3, 32, 3, True
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        yield filters // 2, filters, 3, True
        for _ in range(blocks):
            yield filters, filters // 2, 1, True
            yield filters // 2, filters, 3, True
    if kind == "conv74":
        return
    inputs = 1024
    for filters in (512, 256, 128):
        if filters < 512:
            yield 2 * filters, filters, 1, True  # after route -4
            inputs = filters + 2 * filters  # route -1, 61 (and 36): upsampled, then backbone
        for _ in range(3):
            yield inputs, filters, 1, True
            yield filters, 2 * filters, 3, True
            inputs = 2 * filters
        yield inputs, detection_channels, 1, False


def write_darknet(path: Path, kind: str, detection_channels: int = 255) -> None:
    rng = np.random.default_rng(7)
    with path.open("wb") as file:
        file.write(struct.pack("<iiiq", 0, 2, 5, 32_013_312))
        for inputs, filters, size, batch_normalize in layers_of(kind, detection_channels):
            kernel = rng.standard_normal((filters, inputs, size, size), np.float32)
            kernel *= np.float32(np.sqrt(1 / (inputs * size * size)))
            numbers = [0.1 * rng.standard_normal(filters)]  # biases
            if batch_normalize:
                numbers += [rng.uniform(0.5, 1.0, filters)]  # scales
                numbers += [0.1 * rng.standard_normal(filters)]  # means
                numbers += [rng.uniform(0.5, 1.5, filters)]  # variances
            for array in (*numbers, kernel):
                file.write(array.astype("<f4").tobytes())


def sparse_file(path: Path, floats: int, *, version=(0, 2, 0), extra_bytes: int = 0) -> Path:
    """A file of zeros with a header, of any length, that takes no space."""
    seen = struct.pack("<q" if version[0] * 10 + version[1] >= 2 else "<i", 64)
    header = struct.pack("<iii", *version) + seen
    path.write_bytes(header)
    os.truncate(path, len(header) + 4 * floats + extra_bytes)
    return path


def abstract_variables(**options):
    """Shapes alone, as good as arrays where a file is refused or only its report is looked at."""
    net = MultitaskNet(**{"num_classes": 1, "pose_size": 9, **options})
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)


def filled(abstract):
    """Zeros, and random values in the pose branch, which no file fills."""
    rng = np.random.default_rng(8)

    def draw(path, leaf):
        if path[1].key != "pose" or path[-1].key == "mean":
            return np.zeros(leaf.shape, np.float32)
        if path[-1].key == "var":
            return np.ones(leaf.shape, np.float32)
        return 0.05 * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract)


def test_sizes_of_the_published_files():
    """20 + 4 floats bytes for both: the layouts below have exactly the published sizes."""
    for kind, floats, size in (
        ("conv74", CONV74_FLOATS, CONV74_BYTES),
        ("yolov3", YOLOV3_FLOATS, YOLOV3_BYTES),
    ):
        layers = list(layers_of(kind))
        counted = sum(i * f * s * s + f * (4 if bn else 1) for i, f, s, bn in layers)
        assert counted == floats
        assert 20 + 4 * counted == size
    assert sum(1 for _ in layers_of("conv74")) == 52
    assert sum(1 for _ in layers_of("yolov3")) == 75


def test_yolov3_file_gives_the_outputs_of_the_twin(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: no twin to compare with")
    from tests import torch_twin

    path = tmp_path / "yolov3.weights"
    write_darknet(path, "yolov3")
    assert path.stat().st_size == YOLOV3_BYTES
    net = MultitaskNet(num_classes=80, pose_size=3)
    before = filled(abstract_variables(num_classes=80, pose_size=3))
    variables, report = load_darknet_weights(path, before)
    for group in ("backbone", "neck", "face"):  # the caller's own arrays are as they were
        assert not any(map(np.any, jax.tree.leaves(before["params"][group])))
    jax.tree.map(
        np.testing.assert_array_equal, variables["params"]["pose"], before["params"]["pose"]
    )
    assert (report.version, report.images_seen) == ((0, 2, 5), 32_013_312)

    twin = torch_twin.TorchTwin("v2", 80, 3).eval()
    twin.copy_from_flax(before)  # for the pose branch; the rest comes from the file
    assert twin.read_darknet(path, with_neck=True) == YOLOV3_FLOATS
    images = np.random.default_rng(9).random((1, 64, 64, 3), dtype=np.float32)
    outputs = jax.jit(net.apply)(variables, images)
    for output, other in zip(outputs, torch_twin.run_twin(twin, images), strict=True):
        assert 0.1 < np.abs(other).max() < 50
        np.testing.assert_allclose(output, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "loaded", "untouched"),
    [
        # Boxes, objectness and classes mean the same as in the file.
        ({"num_classes": 80}, {"backbone", "neck", "face"}, {"pose"}),
        ({"num_classes": 1}, {"backbone", "neck"}, {"face", "pose"}),
        ({"version": "v1"}, {"backbone", "neck"}, {"face"}),
        # As many channels, but nine of them poses.
        ({"version": "v1", "num_classes": 71}, {"backbone", "neck"}, {"face"}),
    ],
)
def test_report_of_a_yolov3_file(tmp_path, options, loaded, untouched):
    path = sparse_file(tmp_path / "yolov3.weights", YOLOV3_FLOATS)
    before = abstract_variables(**options)
    variables, report = load_darknet_weights(path, before)
    detection = 255 * (1024 + 512 + 256 + 3)
    counts = {
        "backbone": CONV74_FLOATS,
        "neck": YOLOV3_FLOATS - CONV74_FLOATS - detection,
        "face": detection,
    }
    assert report.loaded == {group: counts[group] for group in counts if group in loaded}
    assert report.unused == (0 if "face" in loaded else detection)
    assert set(report.untouched) == untouched
    for group in untouched:
        assert variables["params"][group] == before["params"][group]
        assert group in str(report)
    assert "457,725" in str(report)  # as loaded or as left out


def test_conv74_file_gives_the_backbone_of_the_twin(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: no twin to compare with")
    import torch

    from tests import torch_twin

    path = tmp_path / "darknet53.conv.74"
    write_darknet(path, "conv74")
    assert path.stat().st_size == CONV74_BYTES
    before = abstract_variables(version="v1")
    variables, report = load_darknet_weights(path, before)
    assert report.loaded == {"backbone": CONV74_FLOATS}
    assert (report.unused, set(report.untouched)) == (0, {"neck", "face"})
    assert variables["params"]["neck"] == before["params"]["neck"]

    twin = torch_twin.TorchTwin("v1", 1, 9).eval()
    assert twin.read_darknet(path, with_neck=False) == CONV74_FLOATS
    images = np.random.default_rng(9).random((1, 64, 96, 3), dtype=np.float32)
    backbone = {name: variables[name]["backbone"] for name in variables}
    features = jax.jit(lambda v, x: Darknet53().apply(v, x, train=False))(backbone, images)
    with torch.no_grad():
        expected = twin.backbone.double()(torch.from_numpy(images).double().permute(0, 3, 1, 2))
    for output, other in zip(features, expected, strict=True):
        other = other.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(output, other, rtol=0, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    ("floats", "extra_bytes", "numbers"),
    [
        (CONV74_FLOATS - 1, 0, ("40,620,639", "40,620,640", "62,001,757")),
        (CONV74_FLOATS + 1, 0, ("40,620,641", "40,620,640", "62,001,757")),
        (YOLOV3_FLOATS - 1, 0, ("62,001,756", "62,001,757")),
        (YOLOV3_FLOATS + 1, 0, ("62,001,758", "62,001,757")),
        (CONV74_FLOATS, 3, ("40,620,640 floats and 3 bytes",)),
        (0, 0, ("0 floats", "40,620,640")),
    ],
)
def test_short_and_long_files_are_refused(tmp_path, floats, extra_bytes, numbers):
    path = sparse_file(tmp_path / "weights", floats, extra_bytes=extra_bytes)
    with pytest.raises(ValueError, match="floats") as error:
        load_darknet_weights(path, abstract_variables())
    for number in (*numbers, str(path)):
        assert number in str(error.value)


def test_file_without_header_is_refused(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"Not Found")
    with pytest.raises(ValueError, match="9 bytes"):
        load_darknet_weights(path, abstract_variables())


@pytest.mark.parametrize(("version", "header"), [((0, 1, 0), 16), ((0, 2, 0), 20), ((1, 0, 0), 20)])
def test_header_of_old_and_new_versions(tmp_path, version, header):
    path = sparse_file(tmp_path / "weights", CONV74_FLOATS, version=version)
    assert path.stat().st_size == header + 4 * CONV74_FLOATS
    _, report = load_darknet_weights(path, abstract_variables())
    assert (report.version, report.images_seen) == (version, 64)


def test_files_of_other_class_counts(tmp_path):
    """A YOLOv3 trained on one class: 18 channels, told by the caller."""
    floats = YOLOV3_FLOATS - (255 - 18) * (1024 + 512 + 256 + 3)
    path = sparse_file(tmp_path / "face.weights", floats)
    with pytest.raises(ValueError, match="62,001,757"):
        load_darknet_weights(path, abstract_variables())
    _, report = load_darknet_weights(path, abstract_variables(), detection_channels=18)
    assert report.loaded["face"] == 18 * (1024 + 512 + 256 + 3)
    assert report.untouched == ("pose",)


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "finite"), (float("inf"), "finite"), (-1.0, "stem")]
)
def test_impossible_numbers_are_refused(tmp_path, value, message):
    path = sparse_file(tmp_path / "weights", CONV74_FLOATS)
    with path.open("r+b") as file:
        file.seek(20 + 4 * 3 * 32)  # the first variance of the first convolution
        file.write(struct.pack("<f", value))
    with pytest.raises(ValueError, match=message):
        load_darknet_weights(path, abstract_variables())


@pytest.mark.parametrize(
    "options", [{"width": 0.5}, {"depth": 0.5}, {"width": 2.0}, {"width": 1.05}, {"depth": 1.1}]
)
def test_other_widths_and_depths_are_refused(tmp_path, options):
    path = sparse_file(tmp_path / "weights", CONV74_FLOATS)
    with pytest.raises(ValueError, match=r"width 1 and depth 1.*40,620,640 floats"):
        load_darknet_weights(path, abstract_variables(**options))
