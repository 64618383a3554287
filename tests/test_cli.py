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
from data_prep import convert
from data_prep.engine.builder import write_record_set
from data_prep.sets import pointing04
from mtnet_jax.cli import export, main
from mtnet_jax.predict.predictor import Predictor, read_image
from tests.conftest import REPOSITORY
from tests.conversions import tiny
from tests.image_files import write_image, written
from tests.tiny import SCORE

DEMO = REPOSITORY / "demo" / "studio_demo"
COMMANDS = ("quickstart", "train", "eval", "predict", "export", "data")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "my images"
    rng = np.random.default_rng(0)
    for name in ("a.png", "ü b.png"):
        write_image(folder / name, rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return folder


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
        (("data", "show", "d", "--out", "s.png", "--seed", "-1"), "not a whole number from 0"),
        (("page", "--out", "o", "--serve", "70000"), "70000 is not a port, from 1 to 65535"),
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


# --- eval, export, data --------------------------------------------------------------------------


def test_options_that_would_do_nothing_are_refused(fails, weights, tmp_path):
    peer = tmp_path / "peer.json"
    peer.write_text("[]")
    out = ("--out", tmp_path / "out")
    of_peer = ("eval", "--weights", peer, "--data", DEMO, *out)
    for option in (("--size", 64), ("--one-look",), ("--step", 3)):
        assert f"{option[0]}: for networks" in fails(*of_peer, *option)
    one = ("eval", "--weights", weights, "--data", DEMO, *out, "--group", "head")
    assert "--group is of a comparison" in fails(*one)
    exported = ("export", "--workdir", weights, *out, "--images", tmp_path)
    assert "--images are for the format onnx-int8" in fails(*exported)
    assert "--batch is for images" in fails("predict", "0", "--batch", 2)


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


def test_weights_that_ship_are_evaluated_in_a_folder_that_is_named(fails, tmp_path, monkeypatch):
    """A folder of the same name here would stand for them from then on."""
    monkeypatch.chdir(tmp_path)
    assert "name a folder with --out" in fails("eval", "--weights", "release", "--data", DEMO)
    assert list(tmp_path.iterdir()) == []


def test_eval_goes_on_where_there_is_no_head_to_draw(run, weights, tmp_path):
    without_heads = {"train": range(1), "test": range(6, 7)}
    write_record_set(tiny(splits=without_heads), tmp_path / "records")
    sets = [f"{tmp_path / 'records'}:test", f"{DEMO}:test"]
    words = ("eval", "--weights", weights, "--out", tmp_path / "eval", "--worst", 3, "--limit", 1)
    words += ("--score", 1)  # nor one that is found
    _, said, _ = run(*words, "--data", *sets)
    assert "no heads to compare" in said
    assert len(list((tmp_path / "eval").rglob("worst.png"))) == 1
    (report, _) = sorted((tmp_path / "eval").rglob("evaluation.json"))
    settings = json.loads(report.read_text())["network"]["settings"]
    measured = {"weights": str(weights), "step": None, "size": 64, "second_look": False}
    assert settings.items() >= measured.items()
    said = report.with_suffix(".txt").read_text()
    assert f"weights {weights}, input 64 pixels, one look" in said


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
