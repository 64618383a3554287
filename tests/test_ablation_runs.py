"""Single runs of an ablation: what they see, and when their measurements are old."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from mtnet_jax.ablation import measure as module
from mtnet_jax.ablation import running
from mtnet_jax.ablation.measure import measure
from mtnet_jax.ablation.spec import HeldOut, Run
from mtnet_jax.config import load_config
from mtnet_jax.errors import BadInput
from mtnet_jax.saved_config import read_config
from tests.record_sets import a_record, write_record_set

MANY = 12  # records: the last one lies beyond what a run looks at of its own records


def test_measurements_count_for_the_same_labels_and_decoding(monkeypatch, tmp_path):
    thresholds = []

    def predict(folder, path, split, **_):
        thresholds.append(read_config(folder).decode.iou_threshold)
        box = {"boxes": np.array([[1.0, 2, 30, 40]]), "rotations": np.eye(3)[None]}
        truth = {**box, "has_pose": np.ones(1, bool), "ignore": np.zeros(1, bool)}
        pair = ({**box, "scores": np.ones(1)}, {**truth, "image_id": "a"})
        return SimpleNamespace(pairs=[pair])

    def label(folder, last):
        shutil.rmtree(folder, ignore_errors=True)
        boxes = [[5.0, 6, 30, 40]] * (MANY - 1) + [[last, 6, 30, 40]]
        records = [a_record(f"image {i}", boxes=[box]) for i, box in enumerate(boxes)]
        return HeldOut(str(write_record_set(folder, {"test": records})))

    def measured(test_set, *overrides):
        """How often it was measured by now."""
        measure(tmp_path / "run", "set", test_set, load_config("quickstart", overrides))
        return len(thresholds)

    monkeypatch.setattr(module, "predict_split", predict)
    test_set = label(tmp_path / "set", 6)
    assert [measured(test_set), measured(test_set)] == [1, 1]
    assert measured(label(tmp_path / "moved", 6)) == 1
    test_set = label(tmp_path / "set", 7)  # of the same size
    assert [measured(test_set), measured(test_set)] == [2, 2]
    otherwise = ["--config.decode.iou_threshold=0.25"]
    assert measured(test_set, *otherwise) == 3
    assert measured(test_set, *otherwise, "--config.log_every_steps=3") == 3
    assert measured(test_set, *otherwise, "--config.input.second_look=True") == 4
    assert thresholds == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("value", "seen"), [(None, ["0", "1"]), ("", ["0", "1"]), ("4, GPU-8a", ["4", "GPU-8a"])]
)
def test_each_run_sees_one_of_the_accelerators_that_are_given(monkeypatch, tmp_path, value, seen):
    found = []
    monkeypatch.setattr(
        running.subprocess, "Popen", lambda *_, env, **__: found.append(env["CUDA_VISIBLE_DEVICES"])
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    for place in (0, 1):
        running._start([], 1, Run("euler", 0), tmp_path, place, at_once=2)
    assert found == seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(BadInput, match="CUDA_VISIBLE_DEVICES=4 names 1"):
        running._start([], 1, Run("euler", 0), tmp_path, 1, at_once=2)
