"""Single runs of an ablation: what they see, and when their measurements are old."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from mtnet_jax.ablation import measure as module
from mtnet_jax.ablation import report, running
from mtnet_jax.ablation.devices import environment
from mtnet_jax.ablation.measure import Measured, measure
from mtnet_jax.ablation.report import gather
from mtnet_jax.ablation.spec import HeldOut, Run, config_of
from mtnet_jax.config import load_config
from mtnet_jax.data.records import RecordSet
from mtnet_jax.errors import BadInput, Failed, MissingFile
from mtnet_jax.evaluation.metrics import merge_states
from mtnet_jax.saved_config import read_config, write_config
from mtnet_jax.training import loop
from tests.ablations import ablation
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
    # Copied without its records a grid is still reported, but not decoded in another way.
    shutil.rmtree(test_set.path)
    assert measured(test_set, *otherwise, "--config.input.second_look=True") == 4
    with pytest.raises(MissingFile, match="No record set"):
        measured(test_set)


def test_a_test_set_is_read_once_while_it_stays_as_it_is(monkeypatch, tmp_path):
    """Every run and every report asks whether a measurement is of it."""
    read, identity = [], RecordSet.identity
    monkeypatch.setattr(
        RecordSet, "identity", lambda *a, **k: (read.append(1), identity(*a, **k))[1]
    )

    def identity_with(last):
        boxes = [[[5.0, 6, 30, 40]], [[last, 6, 30, 40]]]
        records = [a_record(f"image {i}", boxes=each) for i, each in enumerate(boxes)]
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        return HeldOut(str(write_record_set(tmp_path / "set", {"test": records})))

    test_set = identity_with(6)
    first = [module.identity_of(test_set) for _ in range(3)]
    assert first == [identity(RecordSet.open(test_set.path), "test", whole=True)] * 3
    assert len(read) == 1
    assert module.identity_of(identity_with(7)) != first[0]
    assert len(read) == 2


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


def test_runs_side_by_side_have_a_chip_and_a_port_each(monkeypatch):
    """What libtpu must be told so that several processes each have a chip of one host."""
    monkeypatch.setenv("TPU_PROCESS_BOUNDS", "2,2,1")  # of the whole host
    monkeypatch.delenv("TPU_VISIBLE_CHIPS", raising=False)
    first, second = (environment(place, at_once=2) for place in (0, 1))
    for seen, chip in ((first, "0"), (second, "1")):
        assert seen["TPU_VISIBLE_CHIPS"] == chip
        assert seen["TPU_CHIPS_PER_PROCESS_BOUNDS"] == seen["TPU_PROCESS_BOUNDS"] == "1,1,1"
        assert seen["TPU_PROCESS_ADDRESSES"] == f"localhost:{seen['TPU_PROCESS_PORT']}"
        assert seen["CLOUD_TPU_TASK_ID"] == "0"
    assert first["TPU_PROCESS_PORT"] != second["TPU_PROCESS_PORT"]
    # Another grid, on other chips of the same host, has other ports.
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "2,3")
    ports = {environment(place, at_once=2)["TPU_PROCESS_PORT"] for place in (0, 1)}
    assert not ports & {first["TPU_PROCESS_PORT"], second["TPU_PROCESS_PORT"]}
    assert environment(0, at_once=1)["TPU_PROCESS_BOUNDS"] == "2,2,1"  # one run has all


SHARED = ablation(detector_phases=("phase1", "phase2"))
ARM = Run("euler", 0)


def begun(workdir, run=ARM):
    """The work directory of a run that has saved a state."""
    folder = workdir / run.name
    (folder / "checkpoints" / "4").mkdir(parents=True)
    write_config(folder, config_of(SHARED, run, workdir))
    return folder


def test_a_grid_may_be_moved(tmp_path):
    folder = begun(tmp_path / "old")
    (folder / running.FINISHED).write_text("{}")
    (tmp_path / "old").rename(tmp_path / "new")
    config = config_of(SHARED, ARM, tmp_path / "new")
    assert running.is_finished(tmp_path / "new" / ARM.name, config)
    shutil.rmtree(tmp_path / "new" / ARM.name / "checkpoints")  # copied to be reported elsewhere
    config = config_of(SHARED, ARM, tmp_path / "new")
    assert running.is_finished(tmp_path / "new" / ARM.name, config)
    (tmp_path / "new" / ARM.name / "config.json").rename(tmp_path / "config.json")
    assert not running.is_finished(tmp_path / "new" / ARM.name, config)  # of which one, who knows
    # One that has not begun takes the detector from where it lies now.
    other = config_of(SHARED, Run("vectors", 0), tmp_path / "new")
    assert other.init.weights == str(tmp_path / "new" / "detector-seed0")


def test_runs_that_are_finished_with_other_options_are_said_to_be(tmp_path):
    workdir = tmp_path / "runs"
    folder = begun(workdir)
    (folder / running.FINISHED).write_text("{}")
    said = r"clip_norm \(.* there, 7\.0 here\)"
    states = {r.name: s for _, r, s in running.status(SHARED, workdir, ["--config.clip_norm=7"])}
    assert re.search(f"finished with other options: {said}", states[ARM.name])
    with pytest.raises(Failed, match=rf"{ARM.name} is with others: {said}\. Give the --config"):
        gather(SHARED, "demo", workdir, ["--config.clip_norm=7"])


def test_runs_that_were_measured_on_other_records_are_not_compared():
    """As they can be where the records are gone, and what was kept is taken."""
    first, measured = {}, measured_on("new")
    report._check_records("demo", Run("vectors", 0), measured, first)
    report._check_records("demo", Run("euler", 1), measured, first)
    report._check_records("other", ARM, measured_on("old"), first)
    with pytest.raises(BadInput, match="euler-seed0 and vectors-seed0 were measured on other rec"):
        report._check_records("demo", ARM, measured_on("old"), first)


def measured_on(records: str) -> Measured:
    nothing = np.zeros(0, int)
    return Measured(merge_states([]), nothing, nothing, nothing, f"{records} test 0 {{}}")


def test_runs_of_a_grid_do_not_go_on_for_longer_than_they_were_begun_for(monkeypatch, tmp_path):
    detector = Run("", 0)
    folder = begun(tmp_path, detector)
    trained = []
    monkeypatch.setattr(loop, "train", lambda *_: trained.append(1) or {"params": {}})
    for finished in (False, True):
        if finished:
            (folder / running.FINISHED).write_text("{}")
        with pytest.raises(BadInput, match=r"phases\.phase2\.epochs \(4\.0 there, 9\.0 here\)"):
            running.train_run(SHARED, detector, tmp_path, ["--config.phases.phase2.epochs=9"])
    (folder / running.FINISHED).unlink()
    assert not trained
    running.train_run(SHARED, detector, tmp_path, ["--config.log_every_steps=3"])
    assert trained


def test_a_job_that_waits_for_a_detector_only_looks(monkeypatch, tmp_path):
    locked, tried = [True, True, False], []
    monkeypatch.setattr(running, "is_locked", lambda _: locked.pop(0))
    monkeypatch.setattr(running, "train_run", lambda *_: tried.append(len(locked)))
    monkeypatch.setattr(running, "_WAIT", 0.0)
    running._await_detector(SHARED, Run("", 0), tmp_path, [])
    assert tried == [0]
