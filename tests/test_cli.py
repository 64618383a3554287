"""The command `mtnet`: what it writes, its exit codes, and errors that are one clear line."""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mtnet_jax.predict.files
import mtnet_jax.predict.head
import mtnet_jax.training.loop
import mtnet_jax.training.meter
from data_prep import convert
from data_prep.sets import pointing04
from mtnet_jax.cli import PREEMPTED, export, main
from mtnet_jax.config import load_config
from mtnet_jax.errors import Preempted
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.shipped import shipped_names
from tests.conftest import REPOSITORY
from tests.image_files import write_image, written
from tests.tiny import SCORE

DEMO = REPOSITORY / "demo" / "studio_demo"
QUICKSTART = str(REPOSITORY / "configs" / "quickstart.py")
# How ml_collections 1.1 loads configuration files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

COMMANDS = ("quickstart", "train", "eval", "predict", "export", "data")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "my images"
    rng = np.random.default_rng(0)
    for name in ("a.png", "ü b.png"):
        write_image(folder / name, rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command, gives its exit code, output and lines of errors."""

    def call(*words) -> tuple[int, str, list[str]]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        errors = [
            line for line in lines if line.strip() and not line.endswith(("/image]", "image/s]"))
        ]
        return code, captured.out, errors

    return call


@pytest.fixture
def fails(run):
    """Runs a command that must end with exit code 1 and one line on stderr, which it gives."""

    def call(*words) -> str:
        code, _, errors = run(*words)
        assert code == 1
        assert len(errors) == 1
        assert errors[0].startswith(f"mtnet {words[0]}")
        return errors[0]

    return call


# --- help and options ----------------------------------------------------------------------------


def test_help_lists_the_commands_without_jax():
    code = (
        "import sys, mtnet_jax.cli\n"
        "try: mtnet_jax.cli.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        *((c,) for c in COMMANDS),
        ("data", "convert"),
        ("data", "convert", "yolo"),
        ("data", "anchors"),
    ],
    ids=" ".join,
)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    assert "usage: mtnet " + words[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "COMMAND"),
        (("fly",), "fly"),
        (("predict", "a.png", "--weights", "w", "--ouut", "o"), "--ouut o"),
        (("predict",), "INPUT"),
        (("predict", "a.png", "--weights", "w", "--score", "7"), "7 is not a number from 0 to 1"),
        (("predict", "a.png", "--weights", "w", "--score", "x"), "--score"),
        (("predict", "a.png", "--weights", "w", "--runtime", "cuda"), "'cuda'"),
        (("eval", "--workdir", "w", "--data", "d", "--batch-size", "0"), "--batch-size"),
        (("eval", "--workdir", "w", "--data", "d", "--protocol", "best"), "best"),
        (("data",), "TASK"),
        (("data", "convert", "biwy"), "biwy"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_word(words, named, capsys):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_converter_options_agree_with_the_converter():
    """They stand twice, so that help need not import the converters."""
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    required = ["pointing04", "--raw", "a", "--out", "b"]
    assert parser.parse_args(required).test_persons == pointing04.DEFAULT_TEST_PERSONS
    for rule in pointing04.BOX_RULES:
        assert parser.parse_args([*required, "--box-rule", rule]).box_rule == rule


# --- predict -------------------------------------------------------------------------------------


def test_predict_writes_overlays_and_json(run, weights, images, tmp_path):
    """The whole command, nothing replaced."""
    out, file = tmp_path / "out", tmp_path / "heads.json"
    code, said, errors = run(
        "predict", images, "--weights", weights, "--out", out, "--json", file, "--score", SCORE
    )
    assert code == 0
    assert not errors
    assert said.splitlines() == [
        "2 images predicted, 0 could not be read",
        f"overlays: {out}",
        f"JSON: {file}",
    ]
    entries = json.loads(file.read_text())
    assert [entry["image"] for entry in entries] == [str(p) for p in sorted(images.iterdir())]
    assert all(entry["heads"] for entry in entries)
    assert written(out) == ["a.png", "ü b.png"]


def test_images_that_cannot_be_read_do_not_stop_the_others(
    run, monkeypatch, weights, predictor, images, tmp_path
):
    monkeypatch.setattr(Predictor, "load", lambda folder, **_: predictor)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    file, missing = tmp_path / "heads.json", tmp_path / "missing.png"
    code, said, errors = run("predict", missing, images, "--weights", weights, "--json", file)
    assert code == 1
    assert "2 images predicted, 2 could not be read" in said
    assert len(errors) == 2
    assert str(missing) in errors[0]
    assert str(images / "broken.jpg") in errors[1]
    assert len(json.loads(file.read_text())) == 2


def test_a_second_run_leaves_its_overlays_out(
    run, monkeypatch, weights, predictor, images, tmp_path
):
    monkeypatch.setattr(Predictor, "load", lambda folder, **_: predictor)
    for _ in range(2):
        _, said, _ = run("predict", images, "--weights", weights, "--out", images / "drawn")
        assert "2 images predicted" in said
    assert len(written(images / "drawn")) == 2


def test_predict_refuses_to_draw_over_its_input(fails, weights, images):
    before = read_image(images / "a.png")
    line = fails("predict", images, "--weights", weights, "--out", images)
    assert "choose another folder" in line
    line = fails("predict", images / "a.png", "--weights", weights, "--out", images)
    assert "choose another folder" in line
    np.testing.assert_array_equal(read_image(images / "a.png"), before)


def test_predict_errors_are_one_line(fails, monkeypatch, weights, predictor, images, tmp_path):
    crops = ("predict", images, "--weights", weights, "--json", tmp_path / "j", "--save-crops")
    assert "--out" in fails(*crops)
    line = fails("predict", images, "--weights", tmp_path / "no", "--out", tmp_path / "o")
    assert str(tmp_path / "no") in line
    assert "mtnet train" in line
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in fails("predict", empty, "--weights", weights, "--out", tmp_path / "o")

    monkeypatch.setattr(Predictor, "load", lambda folder, **_: predictor)
    taken = tmp_path / "file"
    taken.write_text("")
    command = ("predict", images, "--weights", weights)
    assert str(taken) in fails(*command, "--out", taken)
    assert str(taken) in fails(*command, "--json", taken / "heads.json")
    assert str(empty) in fails(*command, "--json", empty)


def test_mistakes_of_the_program_keep_their_traceback(monkeypatch, weights, images, tmp_path):
    """A user error is one line; what NumPy or a slip of ours raises must stay findable."""
    words = ["predict", str(images), "--weights", str(weights), "--out", str(tmp_path / "o")]
    for error in (TypeError, KeyError, ValueError, RuntimeError):

        def slip(*_, error=error, **__):
            raise error("a slip")

        monkeypatch.setattr(mtnet_jax.predict.files, "find_images", slip)
        with pytest.raises(error, match="a slip"):
            main(words)

    # Inside our own files, but raised by NumPy.
    bad_head = argparse.Namespace(box=(1, 2, 3), score=0.5, rotation=np.eye(2))
    with pytest.raises(ValueError, match="reshape"):
        main_that_runs(monkeypatch, lambda args: mtnet_jax.predict.head.as_arrays([bad_head]))


def main_that_runs(monkeypatch, command) -> int:
    """The exit code of a command that does something else."""
    monkeypatch.setattr(export, "run", command)
    return main(["export", "--workdir", "w", "--out", "o"])


def test_an_interruption_ends_with_130(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    assert main_that_runs(monkeypatch, interrupt) == 130
    assert capsys.readouterr().err == "\nmtnet export: interrupted\n"


# --- train ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.model.widht=1", ("'widht'", '"width"', QUICKSTART)),
        ("--config.model.width.x=1", ("model.width.x",)),
        ("--config.model.width=abc", ("config.model.width", "abc")),
        ("--config.seed=1.5", ("config.seed", "1.5")),
        ("--config.seed", ("config.seed",)),
        ("--confg.seed=1", ("confg.seed",)),
        ("stray", ("stray",)),
        ("--config.data.demo.path=/nowhere", ("/nowhere", "mtnet data convert")),
    ],
)
def test_train_errors_name_the_option(fails, tmp_path, override, named):
    line = fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run", override)
    for word in named:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_train_without_its_configuration_file(fails, tmp_path):
    line = fails("train", "--config", tmp_path / "no.py", "--workdir", tmp_path / "run")
    assert str(tmp_path / "no.py") in line


def test_overrides_reach_training_with_their_types(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *call, **_: calls.append(call))
    overrides = [
        "--config.model.width=0.5",
        "--config.seed",
        "7",
        "--config.class_names=('head', 'hard hat')",
        "--config.phases.phase3.epochs=0.5",
    ]
    code, _, _ = run(
        "train", overrides[0], "--workdir", tmp_path, "--config", QUICKSTART, *overrides
    )
    assert code == 0
    ((config, workdir),) = calls
    assert workdir == tmp_path
    assert config.model.width == 0.5
    assert config.seed == 7
    assert config.class_names == ("head", "hard hat")
    assert config.phases.phase3.epochs == 0.5


def test_a_shipped_configuration_is_trained_by_name(run, fails, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *call, **_: calls.append(call))
    monkeypatch.chdir(tmp_path)
    code, _, _ = run("train", "--config", "small", "--workdir", tmp_path / "run")
    assert code == 0
    ((config, _),) = calls
    assert config.model.width == 0.25
    line = fails("train", "--config", "smal", "--workdir", tmp_path / "run")
    assert "smal" in line
    assert "small" in line


def test_diverged_training_is_one_line(fails, monkeypatch, tmp_path):
    """The error of the loop is for the user, though no ValueError."""
    meter = mtnet_jax.training.meter.Meter(8)
    phase = argparse.Namespace(name="phase1")
    position = mtnet_jax.training.loop.START
    log = argparse.Namespace(metrics=lambda *_: None)

    def diverge(*_, **__):
        meter.report(log, position, phase, {"loss": np.float32(np.nan)})
        meter.flush(log, phase)

    monkeypatch.setattr(mtnet_jax.training.loop, "train", diverge)
    line = fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    assert "loss is nan" in line


def test_no_cluster_is_one_line(fails, monkeypatch, tmp_path):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    words = ("--config", QUICKSTART, "--workdir", tmp_path / "run", "--distributed")
    line = fails("train", *words)
    assert "coordinator_address" in line
    assert "--coordinator HOST:PORT --processes N --process I" in line


def test_processes_are_told_of_each_other_without_a_cluster_manager(run, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *call, **_: told.append(call))
    monkeypatch.setattr(mtnet_jax.training.loop, "train", lambda *_, **__: None)
    words = ("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    together = ("--coordinator", "host:1234", "--processes", "2", "--process", "1")
    assert run(*words, *together)[0] == 0
    assert told == [("host:1234", 2, 1)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--coordinator", "host:1234"), "give all three"),
        (("--process", "0"), "give all three"),
        (("--coordinator", "h:1", "--processes", "2", "--process", "2"), "from 0 to 1"),
    ],
)
def test_processes_that_cannot_be_are_named(fails, tmp_path, given, said):
    assert said in fails("train", "--config", QUICKSTART, "--workdir", tmp_path / "run", *given)


def test_a_preempted_run_ends_with_a_code_of_its_own(run, monkeypatch, tmp_path):
    def preempt(*_, **__):
        raise Preempted

    monkeypatch.setattr(mtnet_jax.training.loop, "train", preempt)
    code, _, err = run("train", "--config", QUICKSTART, "--workdir", tmp_path / "run")
    assert code == PREEMPTED == 75
    assert err == ["mtnet train: saved and ended; the same command goes on"]


@pytest.mark.parametrize("name", shipped_names("configs"))
def test_the_configurations_load(name):
    config = load_config(name)
    assert config.phases


# --- eval, export, data --------------------------------------------------------------------------


def test_eval_errors_come_before_the_work(fails, weights, tmp_path):
    """Also those of the second record set."""
    command = ("eval", "--workdir", weights, "--out", tmp_path / "eval", "--data")
    assert str(tmp_path / "no") in fails(*command, DEMO, tmp_path / "no")
    line = fails(*command, f"{DEMO}:night")
    assert "'night'" in line
    assert "'test' (150)" in line
    assert not (tmp_path / "eval").exists()
    no_weights = ("eval", "--workdir", tmp_path / "no", "--data", DEMO)
    assert "config.json does not exist" in fails(*no_weights)


def test_a_damaged_record_set_is_one_line(fails, weights, tmp_path):
    damaged = tmp_path / "records"
    shutil.copytree(DEMO, damaged)
    shard = next(damaged.glob("*-test.tfrecord-*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    line = fails("eval", "--workdir", weights, "--data", damaged)
    assert shard.name in line
    assert "cut short" in line
    assert "Errno" in fails("data", "anchors", "x" * 300)  # a name no file system takes


def test_export_writes_and_refuses(run, fails, weights, tmp_path):
    code, said, _ = run("export", "--workdir", weights, "--out", tmp_path / "out", "--half")
    assert code == 0
    assert f"{tmp_path / 'out' / 'weights.npz'}: 0." in said
    assert (tmp_path / "out" / "config.json").is_file()
    assert "another folder" in fails("export", "--workdir", weights, "--out", weights)
    assert str(tmp_path / "no") in fails("export", "--workdir", tmp_path / "no", "--out", tmp_path)


def test_data_commands_report_what_is_missing(fails, tmp_path):
    out = tmp_path / "out"
    line = fails("data", "convert", "pointing04", "--raw", tmp_path / "no", "--out", out)
    assert str(tmp_path / "no") in line
    assert str(tmp_path / "no") in fails("data", "anchors", tmp_path / "no")
    assert not out.exists()


@pytest.mark.parametrize("name", convert.CONVERTERS)
def test_each_converter_has_what_the_command_asks_for(name):
    module = importlib.import_module(convert.CONVERTERS[name][0])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert callable(module.from_arguments)
