"""Which files are taken of what is named as weights: here, at an address, by the page."""

import json
import shutil
import uuid

import pytest
from upath import UPath

from mtnet_jax.cli import evaluate
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.page.build import model_of
from mtnet_jax.predict import runtimes
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.shipped import weights_folder
from mtnet_jax.weights import load_weights
from tests.tiny import DEMO_RECORDS

RELEASE = weights_folder()


@pytest.fixture
def alone(tmp_path):
    """A folder that holds heads.onnx and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(RELEASE / "heads.onnx", folder)
    return folder


def test_an_exported_file_may_be_alone_in_its_folder(alone):
    assert Predictor(alone).runtime == "onnxruntime"
    assert model_of(alone)[0] == (RELEASE / "heads.onnx").read_bytes()
    assert predict_split(alone, DEMO_RECORDS, "test", limit=1).class_names == ("head",)


def test_the_evaluation_of_a_file_is_not_that_of_its_folder(tmp_path):
    (tmp_path / "orbax" / "model").mkdir(parents=True)
    for name in ("config.json", "heads-int8.onnx", "heads.json"):
        (tmp_path / name).touch()
    names = ("", "orbax", "heads-int8.onnx", "heads.json")
    places = [evaluate._place_of(tmp_path / name) for name in names]
    assert places == [tmp_path / "eval" / name for name in names]


@pytest.mark.parametrize("name", ["", "heads.onnx"])
@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_another_device_is_not_ignored(alone, name, device):
    with pytest.raises(BadInput, match="onnxruntime runs on the CPU here: for another device"):
        Predictor(alone / name, device=device)


@pytest.mark.parametrize("name", ["weights.npz", "config.json"])
def test_a_file_that_is_no_weights_by_itself_is_said(name):
    with pytest.raises(BadInput, match=rf"{name} is not taken by itself: give its folder"):
        Predictor(RELEASE / name)


def test_a_graph_is_no_weights_to_go_on_with():
    with pytest.raises(BadInput, match=r"heads\.onnx holds a network .* give the folder"):
        load_weights(RELEASE / "heads.onnx")


def test_the_page_takes_no_file_of_other_weights(alone, monkeypatch):
    """As after training on, or a copy of new weights into an old folder."""
    (alone / "weights.npz").write_bytes(b"other weights")
    shutil.copy(RELEASE / "config.json", alone)
    monkeypatch.setattr("mtnet_jax.page.build._exported", lambda weights: (b"anew", {}))
    with pytest.warns(UserWarning, match=r"heads\.onnx was made of other weights"):
        assert model_of(alone)[0] == b"anew"


@pytest.mark.parametrize(
    ("step", "copied"), [(2, ["2", "4"]), ("best", ["2", "4"]), ("last", ["4"])]
)
def test_a_step_of_an_address_is_there_to_be_taken(monkeypatch, step, copied):
    address = UPath(f"memory://{uuid.uuid4().hex}")
    for number in (2, 4):
        folder = address / "checkpoints" / str(number)
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x")
    (address / "config.json").write_text(json.dumps({}))
    here = []
    monkeypatch.setattr(
        runtimes,
        "_open",
        lambda folder, _: here.extend(path.name for path in (folder / "checkpoints").iterdir()),
    )
    runtimes.open_weights(address, runtimes.Wanted(0.3, None, "jax", None, None, step))
    assert sorted(here) == copied
