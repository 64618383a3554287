"""The life of a run: what is never kept, what is gone on with, and how it ends."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from mtnet_jax.checkpoints import Checkpoints, DamagedCheckpoint, all_finite
from mtnet_jax.errors import BadInput, Terminated, Unavailable
from mtnet_jax.evaluation.predicted import predict_split
from mtnet_jax.export.folder import export
from mtnet_jax.run_metrics import METRICS, read_metrics
from mtnet_jax.training import loop
from mtnet_jax.training.log import TrainingLog
from mtnet_jax.training.loop import TrainingDiverged, train
from mtnet_jax.training.stopping import Stopping
from mtnet_jax.training.workdir import LOCK, is_locked, locked
from mtnet_jax.weights import export_weights, load_weights
from tests.conftest import REPOSITORY
from tests.tiny import DEMO_RECORDS, tiny_config, write_random_weights

# --- one process at a time -----------------------------------------------------------------------


def test_a_second_process_is_refused_while_the_first_lives(tmp_path):
    program = (
        "import time; from mtnet_jax.training.workdir import locked\n"
        f"with locked({str(tmp_path)!r}): print('locked', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(Unavailable, match=f"process {process.pid} trains in"), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path):  # the lock of a dead process does not hold
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_who_looks_keeps_no_run_from_starting(tmp_path):
    """A lock of a look, held by another process for a moment, as a stall of the machine does."""
    (tmp_path / LOCK).touch()
    program = (
        "import fcntl, sys, time\n"
        f"lock = open({str(tmp_path / LOCK)!r}); fcntl.flock(lock, fcntl.LOCK_SH)\n"
        "print('looking', flush=True); sys.stdin.readline()"
    )
    looking = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert looking.stdout.readline() == "looking\n"
    assert not is_locked(tmp_path)  # others who look are no training
    leaving = threading.Timer(0.2, lambda: looking.communicate("\n"))
    leaving.start()
    with locked(tmp_path):
        assert is_locked(tmp_path)
    leaving.join()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_with_the_cure(monkeypatch, tmp_path, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / LOCK).touch()
    message = rf"{re.escape(str(tmp_path / LOCK))} cannot be locked \(.*mount option flock"
    with pytest.raises(Unavailable, match=message), locked(tmp_path):
        pass
    with pytest.raises(Unavailable, match=message):
        is_locked(tmp_path)


# --- nothing that is no number -------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found_anywhere(value):
    tree = {"a": jnp.zeros(3), "b": {"c": jnp.ones((2, 2)), "n": jnp.zeros(2, jnp.int32)}}
    assert all_finite(tree)
    tree["b"]["c"] = tree["b"]["c"].at[1, 0].set(value)
    assert not all_finite(tree)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A work directory of a finished run of six steps, with checkpoints after 4 and 6."""
    workdir = tmp_path_factory.mktemp("finished")
    train(tiny_config(), workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    return copy


def test_weights_that_are_no_numbers_are_not_loaded_nor_exported(tmp_path):
    folder = tmp_path / "weights"
    write_random_weights(folder)
    with np.load(folder / "weights.npz") as stored:
        arrays = dict(stored)
    name = sorted(arrays)[3]
    arrays[name] = arrays[name].copy()
    arrays[name].flat[0] = np.nan
    np.savez(folder / "weights.npz", **arrays)
    with pytest.raises(BadInput, match=f"{name} holds values that are no numbers"):
        load_weights(folder)
    with pytest.raises(BadInput, match="no numbers"):
        export_weights(folder, tmp_path / "out", half=False)
    assert not (tmp_path / "out").exists()


def overflown(tree):
    """A tree whose floating-point numbers are infinite, or none (0 times infinity)."""
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: x * jnp.inf if floating(x) else x, tree)


@pytest.mark.parametrize("where", ["params", "moments"])
def test_an_overflow_at_a_save_step_is_not_kept(monkeypatch, tmp_path, where):
    """The loss of the step is still finite; what it left behind is not."""
    make = loop.make_train_step

    def overflowing(*args, **options):
        step = make(*args, **options)

        def train_step(state, batch):
            state, metrics = step(state, batch)
            part = "params" if where == "params" else "opt_state"
            return state._replace(**{part: overflown(getattr(state, part))}), metrics

        return train_step

    monkeypatch.setattr(loop, "make_train_step", overflowing)
    config = tiny_config()
    config.log_every_steps = 100  # so that the loss is not looked at
    with pytest.raises(TrainingDiverged, match=r"no longer finite.*same --workdir begins anew"):
        train(config, tmp_path)
    with Checkpoints(tmp_path, keep=None) as checkpoints:
        assert checkpoints.steps() == []


@pytest.mark.slow
def test_every_cure_of_a_diverged_run_works(tmp_path):
    # Nothing was saved: the same work directory begins anew.
    config = tiny_config()
    config.phases.a.learning_rate = 1e30
    with pytest.raises(TrainingDiverged, match="same --workdir begins anew"):
        train(config, tmp_path / "first")
    train(tiny_config(), tmp_path / "first")

    # Phase a was saved: a new one starts from it, without it.
    config = tiny_config()
    config.save_every_steps = 1000
    config.phases.b.learning_rate = 1e30
    with pytest.raises(TrainingDiverged) as caught:
        train(config, tmp_path / "second")
    words = str(caught.value)
    assert f"--config.init.weights={tmp_path / 'second'} --config.phases.a.epochs=0" in words
    config = tiny_config()
    config.init.weights = str(tmp_path / "second")
    config.phases.a.epochs = 0.0
    train(config, tmp_path / "third")
    phases = {line["phase"] for line in read_metrics(tmp_path / "third")}
    assert phases == {"b"}


# --- damaged checkpoints -------------------------------------------------------------------------


def cut(folder: Path) -> None:
    """Cuts the largest file of a part of a checkpoint in half."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["model", "opt"])
def test_a_checkpoint_cut_short_is_named_and_the_older_one_taken(workdir, finished, capsys, part):
    expected = load_weights(finished)[1]
    cut(workdir / "checkpoints" / "6" / part)
    load_weights(workdir)
    assert ("checkpoints/6 cannot be read" in capsys.readouterr().err) == (part == "model")
    variables = train(tiny_config(), workdir)
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be read" in line]
    assert len(said) == 1
    assert "checkpoints/6" in said[0]
    assert "goes on from the one before" in said[0]
    jax.tree.map(np.testing.assert_array_equal, dict(variables), expected)
    steps = [line["step"] for line in read_metrics(workdir) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(list((workdir / "checkpoints-damaged").iterdir())) == 1


def test_what_is_exported_and_evaluated_says_which_checkpoint_was_whole(workdir, tmp_path):
    cut(workdir / "checkpoints" / "6" / "model")
    for step in (4, 6):
        folder = workdir / "eval" / str(step)
        folder.mkdir(parents=True)
        settings = {"weights": "here", "step": step, "size": tiny_config().input.size}
        (folder / "evaluation.json").write_text(json.dumps({"network": {"settings": settings}}))
        (folder / "evaluation.txt").write_text(f"of step {step}\n\nAP50 1 %\n")
    export(workdir, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.findall(r"of step \d", card) == ["of step 4"]
    assert predict_split(workdir, DEMO_RECORDS, "test", limit=1).measured["step"] == 4


@pytest.mark.parametrize(
    ("method", "failure"),
    [
        ("checkpointables_metadata", OSError(errno.ESTALE, "Stale file handle")),
        ("load_checkpointables", MemoryError("no more")),
        ("load_checkpointables", jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")),
        ("load_checkpointables", ValueError("UNKNOWN: Error reading local file: EIO")),
    ],
    ids=["file system", "memory", "device", "file system, by tensorstore"],
)
def test_a_checkpoint_that_was_not_read_is_not_set_aside(workdir, monkeypatch, method, failure):
    """As it shows from within orbax, which speaks of something else."""

    def failing(*_):
        try:
            raise failure
        except Exception as error:
            raise KeyError("incompatible handler") from error

    monkeypatch.setattr(ocp.training.Checkpointer, method, failing)
    with pytest.raises(Unavailable, match=r"6 was not read \(.*run the same command again"):
        train(tiny_config(), workdir)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    assert not (workdir / "checkpoints-damaged").exists()


def test_another_configuration_sets_no_checkpoint_aside(workdir):
    config = tiny_config()
    config.model.width = 0.02
    with pytest.raises(BadInput, match=r"model\.width \(0\.01 there, 0\.02 here\)"):
        train(config, workdir)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "6"]


def test_without_an_older_checkpoint_nothing_is_begun_anew_in_silence(workdir):
    for step in (4, 6):
        cut(workdir / "checkpoints" / str(step) / "model")
    with pytest.raises(DamagedCheckpoint, match=r"/6 .* aside.*/4 cannot.*another --workdir"):
        train(tiny_config(), workdir)


# --- logs and owed evaluations -------------------------------------------------------------------


def test_the_log_only_grows_and_is_read_without_what_was_done_again(tmp_path):
    path = tmp_path / METRICS
    values = {"loss": 1.0, "images_per_second": 1.0}
    with TrainingLog(tmp_path, 0, 9, main=True) as log:
        for step in (1, 2, 3):
            log.metrics("train", step, "a", values)
    before = path.read_bytes()
    path.write_bytes(before + b'{"kind": "train", "st')  # a kill
    with TrainingLog(tmp_path, 2, 9, main=True) as log:
        assert log.has("train", 2)
        assert not log.has("train", 3)
        log.metrics("train", 3, "again", values)
    assert path.read_bytes().startswith(before)
    lines = read_metrics(tmp_path)
    assert [(line["step"], line["phase"]) for line in lines] == [(1, "a"), (2, "a"), (3, "again")]


def test_an_evaluation_that_is_owed_is_made_after_a_resume(workdir):
    path = workdir / METRICS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "eval/demo"] == [3, 6]
    kept = [line for line in lines if (line["kind"], line["step"]) != ("eval/demo", 6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    for _ in range(2):  # and only once
        train(tiny_config(), workdir)
        found = [line["step"] for line in read_metrics(workdir) if line["kind"] == "eval/demo"]
        assert found == [3, 6]
    config = tiny_config()
    config.data.demo.eval_split = "train"
    train(config, workdir)
    last = [line for line in read_metrics(workdir) if line["kind"] == "eval/demo"][2:]
    assert [(line["step"], line["on"]["split"]) for line in last] == [(6, "train")]


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_ends(monkeypatch, tmp_path, number):
    advance = TrainingLog.advance
    steps = []

    def advance_then_signal(self, phase):
        advance(self, phase)
        steps.append(phase)
        if len(steps) == 5:
            os.kill(os.getpid(), number)

    config = tiny_config()
    config.save_every_steps = 1000
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "advance", advance_then_signal)
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        with pytest.raises(kind):
            train(config, tmp_path)
    with Checkpoints(tmp_path, keep=None) as checkpoints:
        assert checkpoints.steps()[0] == 5
    train(config, tmp_path)
    steps = [line["step"] for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_second_signal_does_not_wait(capfd):
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.asked(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "stopping after this step" in capfd.readouterr().err
    with Stopping() as stopping:
        assert list(stopping.watch([1, 2])) == [1, 2]
        assert not stopping.asked(1)


# --- a full disk ---------------------------------------------------------------------------------


def test_a_full_disk_is_one_line(tmp_path):
    """The system refuses files above a size, as a full disk refuses any."""
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
import sys
from mtnet_jax.cli import main
import mtnet_jax.config
from tests.tiny import tiny_config
mtnet_jax.config.load_config = lambda *_: tiny_config()
sys.exit(main(["train", "--config", "c.py", "--workdir", {str(tmp_path / "run")!r}]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": ""},
    )
    assert run.returncode == 1
    progress = ("step/s", "it/s")
    lines = [
        line
        for line in run.stderr.splitlines()
        if line.strip() and not any(word in line for word in progress)
    ]
    assert len([line for line in lines if line.startswith("mtnet train: ")]) == 1
    assert "Traceback" not in run.stderr
    assert len(lines) < 8
