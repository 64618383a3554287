"""ONNX files of weights in half precision: half as large, the same numbers."""

import jax
import numpy as np
import pytest

from mtnet_jax.export import onnx_int8
from mtnet_jax.export.onnx_heads import make_heads
from mtnet_jax.export.onnx_network import make_network
from mtnet_jax.system import build_system
from tests.onnx_nets import HOW, config_of, expected_of, random_images, run
from tests.tiny import trained_variables

onnx = pytest.importorskip("onnx", reason=HOW)


def halved(variables):
    round_off = lambda x: np.float32(np.float16(x))  # noqa: E731
    return {**variables, "params": jax.tree.map(round_off, variables["params"])}


def kernels_of(model):
    found = {array.name: array for array in model.graph.initializer}
    return {name: array for name, array in found.items() if name.endswith("/kernel")}


@pytest.mark.parametrize("width", [0.01, 0.375])  # the first two layers at half the size, and not
def test_kernels_in_half_precision_take_half_of_the_file_and_say_the_same(width):
    config = config_of(width=width)
    system = build_system(config)
    variables = halved(trained_variables(system.model, 96))
    kernels = kernels_of(make_network(config, variables))
    assert kernels["backbone/stem/kernel"].dims[2] == (4 if width < 0.25 else 3)
    rest = [array for name, array in kernels.items() if name != "backbone/stem/kernel"]
    types = [array.data_type for array in rest[1 if width < 0.25 else 0 :]]
    assert set(types) == {onnx.TensorProto.FLOAT16}
    images = random_images(2, 96)
    expected = expected_of(system.model, variables, images)
    found = run(make_network(config, variables), images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

    heads, plain = (make_heads(config, variables, halves=halves) for halves in (True, False))
    onnx.checker.check_model(heads, full_check=True)
    assert {a.data_type for a in kernels_of(plain).values()} == {onnx.TensorProto.FLOAT}
    size, half = (sum(a.ByteSize() for a in kernels_of(m).values()) for m in (plain, heads))
    assert half < 0.65 * size  # names, and the stem, which stays as it is


def test_eight_bits_are_made_of_weights_in_half_precision(tmp_path):
    config = config_of()
    variables = halved(trained_variables(build_system(config).model, 96))
    images = random_images(2, 96)
    onnx_int8.write(tmp_path / "it.onnx", config, variables, calibration=list(images))
    types = [array.data_type for array in onnx.load(tmp_path / "it.onnx").graph.initializer]
    convolutions = len(kernels_of(make_network(config, variables)))
    # All but the first and the six last ones: boxes and poses of three scales.
    assert types.count(onnx.TensorProto.INT8) >= convolutions - 7
