"""The exported network and the predictor that runs it, against JAX."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtnet_jax import Predictor
from mtnet_jax.anchors import flatten_outputs
from mtnet_jax.cli import main
from mtnet_jax.export import onnx as onnx_export
from mtnet_jax.export.onnx import CONFIG_KEY, INPUT, NETWORK, OUTPUT, make_model, write_onnx
from mtnet_jax.predict.onnx_runtime import make_session
from mtnet_jax.predict.predictor import read_picture
from mtnet_jax.system import build_system
from mtnet_jax.weights import load_weights
from tests.conftest import REPOSITORY
from tests.tiny import SCORE, tiny_config, trained_variables

HOW = "needs onnx and onnxruntime: pip install -e '.[onnx]'"
onnx = pytest.importorskip("onnx", reason=HOW)
onnxruntime = pytest.importorskip("onnxruntime", reason=HOW)

SMALL = REPOSITORY / "weights" / "small"
PICTURES = sorted((REPOSITORY / "demo" / "pictures").glob("*.jpg"))
NETS = {
    "v1": {"version": "v1"},
    "v1 tanh": {"version": "v1", "pose_activation": "tanh"},
    "v2": {"width": 0.125, "depth": 0.2},
    "v2, two box options": {"aggregate": "boxes", "box_activation": "tanh"},
    "v2, sixd": {"representation": "sixd"},
}


def config_of(**model) -> ConfigDict:
    config = tiny_config()
    config.input.size = 96
    config.model.update(model)
    return config


def run(model, images: np.ndarray) -> np.ndarray:
    (predictions,) = make_session(model.SerializeToString()).run([OUTPUT], {INPUT: images})
    return predictions


def random_images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def expected_of(model, variables, images: np.ndarray) -> np.ndarray:
    """What the network itself gives, in float32."""
    outputs = jax.jit(model.clone(dtype=jnp.float32).apply)(variables, images / np.float32(255))
    return np.asarray(flatten_outputs(outputs))


@pytest.mark.parametrize("name", NETS)
def test_exported_network_is_the_network(name):
    config = config_of(**NETS[name])
    config.class_names = ("head", "helmet")
    system = build_system(config)
    variables = trained_variables(system.model, 96)
    model = make_model(config, variables)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 2):
        images = random_images(batch, 96)
        expected = expected_of(system.model, variables, images)
        found = run(model, images)
        assert found.dtype == np.float32
        assert found.shape == (batch, 3 * (9 + 36 + 144), 7 + system.representation.size)
        assert expected.std() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_what_only_training_needs_and_low_precision_stay_behind():
    variables = trained_variables(build_system(config_of()).model, 96)
    plain = make_model(config_of(), variables)
    other = make_model(config_of(remat="blocks", dtype="bfloat16"), variables)
    assert plain.graph == other.graph


def test_the_file_says_what_it_is(tmp_path):
    """Grid, representation and class names can be built from the file alone."""
    config = config_of(representation="quaternion")
    config.class_names = ("head", "helmet")
    config.input.anchors = tuple((10.0 * i + 20, 10.0 * i + 30) for i in range(9))
    system = build_system(config)
    path = tmp_path / "it.onnx"
    write_onnx(path, config, trained_variables(system.model, 96))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    read = ConfigDict(json.loads(session.get_modelmeta().custom_metadata_map[CONFIG_KEY]))
    again = build_system(read)
    assert again.class_names == ("head", "helmet")
    assert again.representation.size == 4
    assert again.model == system.model
    for a, b in zip(again.grid.places, system.grid.places, strict=True):
        np.testing.assert_array_equal(a, b)
    assert read.decode == config.decode
    assert "phases" not in read
    (images,), (predictions,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == ["batch", 96, 96, 3]
    assert (predictions.name, predictions.type) == ("predictions", "tensor(float)")
    assert predictions.shape == ["batch", 567, 11]
    assert [path.name for path in tmp_path.iterdir()] == ["it.onnx"]  # nothing half-written


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda x: jnp.sin(x), "sin"),
        (lambda x: jnp.concatenate([x, x], axis=-1), "concatenate"),  # pixels, not layers
        (lambda x: x + 1.0, "add"),
        (lambda x: x.transpose(0, 2, 1, 3), "transpose"),
    ],
)
def test_operations_that_are_not_known_are_refused_by_name(monkeypatch, change, named):
    images = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    monkeypatch.setattr(onnx_export, "_trace", lambda *_: jax.make_jaxpr(change)(images))
    config = config_of()
    variables = trained_variables(build_system(config).model, 96)
    with pytest.raises(NotImplementedError, match=f"ONNX export lacks: .*{named}"):
        make_model(config, variables)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.reshape(1, 48, 48, 12),
        lambda x: x.reshape(2, 48, 96, 3),
        lambda x: jnp.broadcast_to(x[:, :, None], (1, 96, 2, 96, 3)),
        lambda x: jnp.broadcast_to(x[:, :, None, :, None], (1, 96, 2, 96, 2, 3)).reshape(1, -1, 6),
    ],
)
def test_other_shapes_are_refused(change):
    trace = jax.make_jaxpr(change)(jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32))
    with pytest.raises(NotImplementedError, match="ONNX export lacks: "):
        onnx_export._translate(onnx_export._Graph(onnx, {}), trace.jaxpr, ["maps"])


# --- predicting ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    return [Predictor.load(SMALL, runtime=runtime) for runtime in ("jax", "onnxruntime")]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_both_runtimes_find_the_same_heads(both, path):
    expected, found = (predictor(path) for predictor in both)
    assert len(expected) == len(found) == 1
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b.box, a.box, atol=0.1)
        np.testing.assert_allclose(b.rotation, a.rotation, atol=1e-3)
        np.testing.assert_allclose(b.score, a.score, atol=1e-4)
        assert a.label == b.label


def test_many_heads_are_the_same_too(weights, predictor):
    """Random weights see heads everywhere: the order of the scores must be the same as well."""
    other = Predictor.load(weights, score_threshold=SCORE, runtime="onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (217, 333, 3), dtype=np.uint8)
    expected, found = predictor(image), other(image)
    assert len(expected) == len(found) > 1
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b.box, a.box, atol=0.1)
        np.testing.assert_allclose(b.rotation, a.rotation, atol=1e-3)


def test_a_runtime_that_does_not_exist_is_named(weights):
    with pytest.raises(ValueError, match=r"'tensorrt'.* jax or onnxruntime"):
        Predictor.load(weights, runtime="tensorrt")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_cure(monkeypatch, weights, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError, match=rf"package {package}: pip install -e '\.\[onnx\]'"):
        Predictor.load(weights, runtime="onnxruntime")


# --- the command ---------------------------------------------------------------------------------


def test_export_writes_the_network_that_it_exports(weights, tmp_path, capsys):
    words = ["export", "--workdir", str(weights), "--out", str(tmp_path / "out"), "--half"]
    assert main([*words, "--onnx"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == [
        str(tmp_path / "out" / name) for name in ("weights.npz", NETWORK)
    ]
    config, variables = load_weights(tmp_path / "out")  # as float16 rounded them
    images = random_images(2, 64)
    expected = expected_of(build_system(config).model, variables, images)
    found = run(onnx.load(tmp_path / "out" / NETWORK), images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_export_without_the_package_writes_nothing(monkeypatch, weights, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    out = tmp_path / "out"
    assert main(["export", "--workdir", str(weights), "--out", str(out), "--onnx"]) == 1
    assert "pip install -e '.[onnx]'" in capsys.readouterr().err
    assert not out.exists()
    # The rest of the command does not need it.
    assert main(["export", "--workdir", str(weights), "--out", str(out)]) == 0


def test_predict_with_onnxruntime(tmp_path):
    file = tmp_path / "heads.json"
    words = ["predict", str(PICTURES[0]), "--weights", str(SMALL), "--json", str(file)]
    assert main([*words, "--runtime", "onnxruntime"]) == 0
    (entry,) = json.loads(file.read_text())
    assert len(entry["heads"]) == 1


def test_the_example_of_the_documentation(both, monkeypatch, tmp_path):
    """It runs as printed, on the files it names, and finds the head that the predictor finds."""
    text = (REPOSITORY / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(import json\n.*?)```", text, re.DOTALL)
    write_onnx(tmp_path / "network.onnx", *load_weights(SMALL))
    (tmp_path / "picture.jpg").write_bytes(PICTURES[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    (head,) = both[0](read_picture(PICTURES[0]))
    np.testing.assert_allclose(found["box"], head.box, atol=0.5)
    np.testing.assert_allclose(found["rotation"], head.rotation, atol=1e-2)
    assert found["scores"].max() == pytest.approx(head.score, abs=1e-3)
