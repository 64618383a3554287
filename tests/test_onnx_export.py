"""The exported network and the predictor that runs it, against JAX."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from ml_collections import ConfigDict
from scipy.spatial.transform import Rotation

from mtnet_jax import Predictor
from mtnet_jax.cli import main
from mtnet_jax.decode import DecodeOptions, decode_flat
from mtnet_jax.export import onnx_heads, onnx_network
from mtnet_jax.export.formats import HEADS, NETWORK
from mtnet_jax.export.graph import Graph
from mtnet_jax.export.metadata import (
    INPUT,
    IOU_THRESHOLD,
    SCORE_THRESHOLD,
)
from mtnet_jax.export.onnx_heads import make_heads
from mtnet_jax.export.onnx_network import make_network
from mtnet_jax.export.onnx_rotations import add_rotations
from mtnet_jax.predict.onnx_runtime import make_session
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.rotations import geodesic_degrees
from mtnet_jax.saved_config import CONFIG_KEY
from mtnet_jax.system import build_system
from mtnet_jax.weights import load_weights
from tests.conftest import REPOSITORY
from tests.onnx_nets import HOW, config_of, expected_of, random_images, run
from tests.tiny import SCORE, trained_variables

onnx = pytest.importorskip("onnx", reason=HOW)

SMALL = REPOSITORY / "weights" / "release"
IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))
NETS = {
    "v1": {"version": "v1"},
    "v1 tanh": {"version": "v1", "pose_activation": "tanh"},
    "v2": {"width": 0.125, "depth": 0.2},
    "v2, two box options": {"aggregate": "boxes", "box_activation": "tanh"},
    "v2, sixd": {"representation": "sixd"},
}


@pytest.mark.parametrize("name", NETS)
def test_exported_network_is_the_network(name):
    config = config_of(**NETS[name])
    config.class_names = ("head", "helmet")
    system = build_system(config)
    variables = trained_variables(system.model, 96)
    model = make_network(config, variables)
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
    plain = make_network(config_of(), variables)
    other = make_network(config_of(remat="blocks", dtype="bfloat16"), variables)
    assert plain.graph == other.graph


def test_the_file_says_what_it_is(tmp_path):
    """Grid, representation and class names can be built from the file alone."""
    config = config_of(representation="quaternion")
    config.class_names = ("head", "helmet")
    config.input.anchors = tuple((10.0 * i + 20, 10.0 * i + 30) for i in range(9))
    system = build_system(config)
    path = tmp_path / "it.onnx"
    onnx_network.write(path, config, trained_variables(system.model, 96))
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
    monkeypatch.setattr(onnx_network, "_trace", lambda *_: jax.make_jaxpr(change)(images))
    config = config_of()
    variables = trained_variables(build_system(config).model, 96)
    with pytest.raises(NotImplementedError, match=f"ONNX export lacks: .*{named}"):
        make_network(config, variables)


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
        onnx_network._translate(onnx_network._NetworkGraph(onnx, {}), trace.jaxpr, ["maps"])


# --- heads ---------------------------------------------------------------------------------------


def run_heads(model, images: np.ndarray, score: float, iou: float = 0.5) -> list[np.ndarray]:
    session = make_session(model.SerializeToString())
    thresholds = {SCORE_THRESHOLD: score, IOU_THRESHOLD: iou}
    return session.run(
        None, {INPUT: images, **{k: np.array(v, np.float32) for k, v in thresholds.items()}}
    )


@pytest.mark.parametrize(
    ("representation", "vote"),
    [
        *((name, False) for name in ("vectors", "sixd", "quaternion", "euler")),
        *((name, True) for name in ("vectors", "sixd")),
    ],
)
def test_heads_in_the_file_are_those_of_jax(representation, vote):
    """Random weights see heads everywhere: order, classes, suppression and votes all matter."""
    config = config_of(representation=representation)
    config.decode.vote = vote
    config.class_names = ("head", "helmet")
    config.decode.max_heads = 20
    system = build_system(config)
    variables = trained_variables(system.model, 96)
    model = make_heads(config, variables)
    onnx.checker.check_model(model, full_check=True)
    images = random_images(3, 96)
    raw = run(make_network(config, variables), images)
    for score, iou in ((0.3, 0.5), (0.0, 0.2), (0.9999, 0.5)):
        options = DecodeOptions(score, **{**config.decode, "iou_threshold": iou})
        expected = decode_flat(
            raw, grid=system.grid, representation=system.representation, options=options
        )
        boxes, scores, labels, rotations = run_heads(model, images, score, iou)
        valid = np.asarray(expected.valid)
        assert valid.any() == (score < 0.99)
        np.testing.assert_array_equal(scores > 0, valid)
        np.testing.assert_allclose(scores[valid], expected.scores[valid], rtol=1e-5)
        np.testing.assert_allclose(boxes[valid], expected.boxes[valid], rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(labels[valid], expected.labels[valid])
        np.testing.assert_allclose(rotations[valid], expected.rotations[valid], atol=1e-4)


def test_a_prediction_that_is_not_finite_is_no_head():
    config = config_of()
    variables = trained_variables(build_system(config).model, 96)
    broken = jax.tree.map(np.array, variables)
    broken["params"]["face"] = jax.tree.map(
        lambda x: np.full_like(x, np.nan), broken["params"]["face"]
    )
    images = random_images(1, 96)
    assert (run_heads(make_heads(config, variables), images, 0.0)[1] > 0).any()
    assert not (run_heads(make_heads(config, broken), images, 0.0)[1] > 0).any()


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """What the operators give for (n, 3, 3)."""
    graph = Graph(onnx)
    rotations = add_rotations(graph, "vectors", "columns")
    graph.add("Identity", [rotations], outputs=["rotations"])
    kinds = {name: (graph.types.FLOAT, ["n", 9]) for name in ("columns", "rotations")}
    model = graph.model("it", {"columns": kinds["columns"]}, {"rotations": kinds["rotations"]}, {})
    columns = np.swapaxes(matrices, 1, 2).reshape(-1, 9).astype(np.float32)
    (found,) = make_session(model.SerializeToString()).run(None, {"columns": columns})
    return found.reshape(-1, 3, 3)


def test_the_nearest_rotation_without_svd():
    """Against SVD in float64, also for noise, reflections and any scale."""
    rng = np.random.default_rng(0)
    rotations = Rotation.random(4000, random_state=0).as_matrix()
    noisy = rotations + rng.normal(0, 1, (4000, 1, 1)) * rng.normal(0, 0.5, rotations.shape)
    noisy[::3, :, 2] *= -1  # improper ones
    noisy *= 10.0 ** rng.uniform(-6, 6, (4000, 1, 1))
    u, s, vt = np.linalg.svd(noisy)
    sign = np.linalg.det(u @ vt)
    u[:, :, 2] *= sign[:, None]
    # Where the two smallest singular values meet, a reflection has many nearest rotations.
    known = (s[:, 1] + sign * s[:, 2]) / s[:, 0] > 0.02
    assert known.mean() > 0.9
    error = geodesic_degrees(nearest_rotations(noisy).astype(np.float64), u @ vt)[known]
    assert error.max() < 2e-3
    assert np.median(error) < 2e-5


def test_no_rotation_at_all_is_the_identity():
    np.testing.assert_array_equal(nearest_rotations(np.zeros((1, 3, 3))), np.eye(3)[None])


def test_the_heads_file_says_what_it_is(tmp_path):
    config = config_of(version="v1")
    config.frame = "ray"
    path = tmp_path / HEADS
    variables = trained_variables(build_system(config).model, 96)
    onnx_heads.write(path, config, variables, license="MIT", weights_sha256="abc")
    session = make_session(path)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said[CONFIG_KEY])["frame"] == said["frame"] == "ray"
    assert (said["license"], said["weights_sha256"], said["input_size"]) == ("MIT", "abc", "96")
    assert "middle of the head's box" in said["convention"]
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 96, 96, 3]),
        ("score_threshold", "tensor(float)", []),
        ("iou_threshold", "tensor(float)", []),
    ]
    assert [(x.name, x.shape[1:]) for x in session.get_outputs()] == [
        ("boxes", [100, 4]),
        ("scores", [100]),
        ("labels", [100]),
        ("rotations", [100, 3, 3]),
    ]


# --- predicting ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    return [Predictor.load(SMALL, runtime=runtime) for runtime in ("jax", "onnxruntime")]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_both_runtimes_find_the_same_heads(both, path):
    expected, found = (predictor(path) for predictor in both)
    assert len(expected) == len(found) == 1
    for a, b in zip(expected, found, strict=True):
        # Two predictions of one of these heads have scores that differ by less than rounding does
        # (6e-8), and each runtime keeps another one's box. Their votes on the pose are the same.
        np.testing.assert_allclose(b.box, a.box, atol=1.5)
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
        # Two predictions of one of these heads have scores that differ by less than rounding does
        # (6e-8), and each runtime keeps another one's box. Their votes on the pose are the same.
        np.testing.assert_allclose(b.box, a.box, atol=1.5)
        np.testing.assert_allclose(b.rotation, a.rotation, atol=1e-3)


def test_a_runtime_that_does_not_exist_is_named(weights):
    with pytest.raises(ValueError, match=r"'tensorrt'.* jax or onnxruntime"):
        Predictor.load(weights, runtime="tensorrt")


def test_a_missing_package_is_named_with_its_cure(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeError, match="package onnx: pip install 'mtnet-jax"):
        Predictor.load(weights, runtime="onnxruntime")


# --- the command ---------------------------------------------------------------------------------


def test_export_writes_the_network_that_it_exports(weights, tmp_path, capsys):
    words = ["export", "--workdir", str(weights), "--out", str(tmp_path / "out"), "--half"]
    assert main([*words, "--format", "onnx-network"]) == 0
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
    assert main(["export", "--workdir", str(weights), "--out", str(out), "--format", "onnx"]) == 1
    assert "pip install -e '.[export]'" in capsys.readouterr().err
    assert not out.exists()
    # The rest of the command does not need it.
    assert main(["export", "--workdir", str(weights), "--out", str(out)]) == 0


def test_predict_with_onnxruntime(tmp_path):
    file = tmp_path / "heads.json"
    words = ["predict", str(IMAGES[0]), "--weights", str(SMALL), "--json", str(file)]
    assert main([*words, "--runtime", "onnxruntime"]) == 0
    (entry,) = json.loads(file.read_text())
    assert len(entry["heads"]) == 1


def example_of(name: str) -> str:
    """The code of the documentation that opens a file."""
    text = (REPOSITORY / "docs" / "export.md").read_text()
    (code,) = (
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f'"{name}"' in code
    )
    return code


def test_the_example_of_the_bare_network_is_of_any_classes(monkeypatch, tmp_path):
    """Of two, and of a configuration of before `decode.vote`."""
    config = config_of()
    config.class_names = ("head", "helmet")
    del config.decode.vote
    variables = trained_variables(build_system(config).model, 96)
    onnx_network.write(tmp_path / NETWORK, config, variables)
    (tmp_path / "image.jpg").write_bytes(IMAGES[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(example_of(NETWORK), found)
    boxes, scores, _, rotations = run_heads(
        make_heads(config, variables), found["image"][None], 0.0
    )
    offset = [found["left"], found["top"]] * 2
    np.testing.assert_allclose(found["box"] * found["scale"] + offset, boxes[0, 0], rtol=1e-3)
    np.testing.assert_allclose(found["scores"].max(), scores[0, 0], rtol=1e-5)
    np.testing.assert_allclose(found["rotation"], rotations[0, 0], atol=1e-3)


@pytest.mark.parametrize("name", ["heads.onnx", "network.onnx"])
def test_the_examples_of_the_documentation(both, monkeypatch, tmp_path, capsys, name):
    """They run as printed, on the files they name, and find the head that the predictor finds."""
    writer = {"heads.onnx": onnx_heads, "network.onnx": onnx_network}[name]
    writer.write(tmp_path / name, *load_weights(SMALL))
    # The examples scale by `cv2.resize`, which does not blend the image's edge with the grey beside
    # it, as the package does: of the head in the first image, which is close, that is a pixel.
    image = IMAGES[2]
    (tmp_path / "image.jpg").write_bytes(image.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(example_of(name), found)
    monkeypatch.setattr(both[0], "_second_looks", False)  # a file takes one look
    (head,) = both[0](read_image(image))
    assert len(capsys.readouterr().out.splitlines()) == 1
    rotation, score = found["rotation"], float(found["scores"].max())
    box = found["box"]
    if name == "heads.onnx":  # its loop went on over empty slots
        scale, left, top = found["scale"], found["left"], found["top"]
        box = (found["boxes"][0, 0] - [left, top, left, top]) / scale
        rotation = found["rotations"][0, 0]
    np.testing.assert_allclose(box, head.box, atol=0.5)
    np.testing.assert_allclose(rotation, head.rotation, atol=1e-2)
    assert score == pytest.approx(head.score, abs=1e-3)
