"""Exported weights: what is damaged or of another network is named; exports in half precision."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mtnet_jax.errors import BadInput, FileInTheWay
from mtnet_jax.export.folder import export
from mtnet_jax.weights import export_weights, load_weights, write_weights


def copy_of(weights: Path, folder: Path) -> SimpleNamespace:
    """An exported folder to damage: its paths and its arrays."""
    folder.mkdir()
    for path in weights.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with np.load(folder / "weights.npz") as stored:
        arrays = dict(stored)
    return SimpleNamespace(
        folder=folder, config=folder / "config.json", npz=folder / "weights.npz", arrays=arrays
    )


def test_damaged_weights_are_named(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    data = copy.npz.read_bytes()
    for bad in (b"", b"text", data[: len(data) // 2], data[:-30]):
        copy.npz.write_bytes(bad)
        with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
            load_weights(copy.folder)


def test_weights_are_not_written_where_something_is_in_their_way(weights, tmp_path):
    config, variables = load_weights(weights)
    (tmp_path / "config.json").write_text("of a run")
    with pytest.raises(FileInTheWay, match=r"config\.json"):
        write_weights(tmp_path, config, variables)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_weights_of_another_network_are_refused_by_name(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    name = next(name for name in copy.arrays if name.startswith("params/"))
    np.savez(copy.npz, **{k: v for k, v in copy.arrays.items() if k != name})
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load_weights(copy.folder)
    np.savez(copy.npz, **copy.arrays, surplus=np.zeros(3))
    with pytest.raises(ValueError, match="unexpected surplus"):
        load_weights(copy.folder)
    np.savez(copy.npz, **{**copy.arrays, name: copy.arrays[name][..., None]})
    with pytest.raises(ValueError, match=rf"{name} has shape"):
        load_weights(copy.folder)


def test_configurations_of_something_else_are_refused(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    copy.config.write_text("{half")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        load_weights(copy.folder)
    copy.config.write_text('{"architectures": ["Other"]}')
    with pytest.raises(ValueError, match=r"config\.json has no 'class_names'"):
        load_weights(copy.folder)
    copy.config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        load_weights(copy.folder)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("input.size", None, r"has no 'input\.size'"),
        ("input", None, r"has no 'input\.size'"),
        ("decode", 3, r"has no 'decode\.iou_threshold'"),
        ("input.size", 100, r"input\.size is 100, not a multiple of 32 pixels"),
        ("input.anchors", [[1, 2]], r"input\.anchors is .* not nine pairs"),
        ("input.second_look", "yes", r"input\.second_look is 'yes', not true or false"),
        ("model.width", "wide", r"model\.width is 'wide', not a number above 0"),
        ("model.width", True, r"model\.width is True, not a number above 0"),
        ("frame", "foo", r"frame is 'foo', not 'camera' or 'ray'"),
        ("class_names", "head", r"class_names is 'head', not a list of names"),
        ("decode.iou_threshold", 7, r"decode\.iou_threshold is 7, not a number from 0 to 1"),
        ("decode.max_hedas", 7, r"there is no option decode\.max_hedas"),
    ],
)
def test_options_that_predicting_cannot_use_are_named(weights, tmp_path, option, value, said):
    copy = copy_of(weights, tmp_path / "copy")
    config = json.loads(copy.config.read_text())
    *sections, name = option.split(".")
    section = config[sections[0]] if sections else config
    section.pop(name, None)
    if value is not None:
        section[name] = value
    copy.config.write_text(json.dumps(config))
    with pytest.raises(BadInput, match=rf"config\.json:? {said}"):
        load_weights(copy.folder)


def test_configurations_of_before_an_option_are_read(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    config = json.loads(copy.config.read_text())
    del config["frame"], config["input"]["second_look"], config["decode"]["vote"]
    del config["model"]["pose_width"], config["model"]["pose_blocks"], config["model"]["remat"]
    copy.config.write_text(json.dumps({**config, "of_another_version": 1}))
    assert load_weights(copy.folder)[0].frame == "camera"


def test_export_in_half_precision(weights, tmp_path):
    """Parameters halved, statistics not: a variance beyond float16 must not become infinite."""
    copy = copy_of(weights, tmp_path / "copy")
    variance = next(name for name in copy.arrays if name.endswith("/var"))
    copy.arrays[variance][:] = 1e6
    np.savez(copy.npz, **copy.arrays)
    path, _ = export_weights(copy.folder, tmp_path / "half", half=True)
    with np.load(path) as stored:
        exported = dict(stored)
    assert exported.keys() == copy.arrays.keys()
    for name, value in exported.items():
        halved = name.startswith("params/")
        assert value.dtype == (np.float16 if halved else np.float32)
        np.testing.assert_allclose(value, copy.arrays[name], rtol=1e-3 if halved else 0, atol=1e-6)
    loaded = flatten_dict(load_weights(tmp_path / "half")[1], sep="/")
    assert {value.dtype.name for value in loaded.values()} == {"float32"}

    name = next(name for name in copy.arrays if name.startswith("params/"))
    copy.arrays[name].flat[0] = 1e5
    np.savez(copy.npz, **copy.arrays)
    with pytest.raises(ValueError, match=f"{name} is too large for float16"):
        export_weights(copy.folder, tmp_path / "half", half=True)


def test_what_was_trained_in_bfloat16_predicts_in_float32(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    copy.config.write_text(copy.config.read_text().replace('"float32"', '"bfloat16"'))
    assert '"bfloat16"' in copy.config.read_text()
    config, _ = load_weights(copy.folder)
    assert config.model.dtype == "float32"
    export_weights(copy.folder, tmp_path / "exported", half=False)
    assert '"dtype": "float32"' in (tmp_path / "exported" / "config.json").read_text()


def test_export_over_its_own_source_is_refused(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    with pytest.raises(ValueError, match="export to another folder"):
        export_weights(copy.folder, copy.folder / ".." / "copy", half=False)
    export_weights(copy.folder, tmp_path, half=False)  # beside it nothing is lost


@pytest.mark.parametrize("name", ["weights.safetensors", "orbax"])
def test_export_to_the_folder_of_its_own_source_is_refused(weights, tmp_path, name):
    """In half precision it would leave no copy of the numbers that it rounds."""
    out = tmp_path / "out"
    export(weights, out, formats=["safetensors", "orbax"])
    before = (out / "weights.npz").read_bytes()
    with pytest.raises(BadInput, match=rf"{name} lies in .*out, .* export to another folder"):
        export(out / name, out, half=True)
    assert (out / "weights.npz").read_bytes() == before
    assert (out / name).exists()
    with pytest.raises(FileNotFoundError, match="typo"):  # nothing that could be replaced
        export(out / "typo", out)
