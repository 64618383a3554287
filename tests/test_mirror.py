"""Work directories behind addresses: what is copied there, who owns one, what is kept."""

import json
import shutil
import signal
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mtnet_jax import mirror
from mtnet_jax.errors import BadInput, Unavailable
from mtnet_jax.mirror import mirrored
from mtnet_jax.places import fetched
from mtnet_jax.run_metrics import read_metrics
from mtnet_jax.training.loop import train
from mtnet_jax.weights import load_weights
from tests.addresses import put
from tests.tiny import tiny_config


def test_a_run_at_an_address_goes_on_and_ends_like_one_here(tmp_path, address, monkeypatch):
    there = put(Path(tiny_config().data.demo.path), address / "records")
    config = tiny_config()
    config.data.demo.path = str(there)
    here = train(tiny_config(), tmp_path / "run")
    config.phases.b.epochs = 0.0  # the first start ends after phase a
    with mirrored(address / "run", every=0.05) as workdir:
        train(config, workdir)
    assert {p.name for p in (address / "run/checkpoints").iterdir()} == {"2", "3"}
    config.phases.b.epochs = tiny_config().phases.b.epochs
    with mirrored(address / "run", every=0.05) as workdir:
        gone_on = train(config, workdir)
    jax.tree.map(np.testing.assert_array_equal, here, gone_on)
    _, loaded = load_weights(address / "run")
    jax.tree.map(np.testing.assert_array_equal, here, loaded)
    manifest = json.loads((address / "run/mirror.json").read_text())
    kept = sorted((p.name for p in (address / "run/checkpoints").iterdir()), key=int)
    assert manifest["checkpoints"] == kept
    assert not (address / "run/owner.json").exists()
    with fetched(address / "run") as copy:
        lines = [(line["kind"], line["step"]) for line in read_metrics(copy)]
    assert [step for kind, step in lines if kind == "train"] == [1, 2, 3, 4, 5, 6]
    assert [step for kind, step in lines if kind == "eval/demo"] == [3, 6]


def test_an_upload_that_was_cut_short_is_not_taken(address):
    """Files of a checkpoint that mirror.json does not name: the machine was gone before."""
    with mirrored(address, every=60) as workdir:
        (workdir / "checkpoints/2").mkdir(parents=True)
        (workdir / "checkpoints/2/data").write_bytes(b"whole")
    half = address / "checkpoints" / "4"
    half.mkdir(parents=True)
    (half / "data").write_bytes(b"ha")
    with mirrored(address, every=60) as workdir:
        assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2"]


@pytest.mark.parametrize("damaged", ["{", "[]", "{}"])
def test_a_damaged_list_of_checkpoints_is_said_and_its_cure_works(address, damaged):
    with mirrored(address, every=60) as workdir:
        (workdir / "checkpoints/2").mkdir(parents=True)
        (workdir / "checkpoints/2/data").write_bytes(b"whole")
    (address / "mirror.json").write_text(damaged)
    with pytest.raises(BadInput, match=r"mirror.json does not say .* remove it"), mirrored(address):
        pass
    (address / "mirror.json").unlink()
    with mirrored(address, every=60) as workdir:
        assert (workdir / "checkpoints/2/data").read_bytes() == b"whole"


def test_two_runs_at_one_address(address):
    second = mirrored(address, every=0.2)
    with mirrored(address, every=0.1), pytest.raises(Unavailable, match="writes to memory://"):
        second.__enter__()
    # One that was killed is silent, and its address is taken.
    (address / "owner.json").write_text(json.dumps({"owner": "process 1 of gone", "time": 1.0}))
    with mirrored(address, every=0.1) as workdir:
        (workdir / "note").write_text("here")
    assert (address / "note").read_text() == "here"


def test_what_cannot_be_copied_at_the_end_stays_here(address, monkeypatch):
    run = mirrored(address, every=60)
    (run.__enter__() / "note").write_text("dear")

    def no_network(*_):
        raise OSError("no network")

    monkeypatch.setattr(mirror, "copy_there", no_network)
    with pytest.raises(
        Unavailable, match=r"no network.* it lies in .*copy that folder there"
    ) as it:
        run.__exit__(None, None, None)
    kept = Path(str(it.value).partition("it lies in ")[2].partition(";")[0])
    assert (kept / "note").read_text() == "dear"
    shutil.rmtree(kept.parent)


def test_ctrl_c_during_the_last_copy_keeps_the_only_one(address, monkeypatch):
    run = mirrored(address, every=60)
    (run.__enter__() / "note").write_text("dear")

    def ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mirror, "copy_there", ctrl_c)
    with pytest.raises(Unavailable, match=r"KeyboardInterrupt.* it lies in ") as it:
        run.__exit__(None, None, None)
    kept = Path(str(it.value).partition("it lies in ")[2].partition(";")[0])
    assert (kept / "note").read_text() == "dear"
    shutil.rmtree(kept.parent)


def test_a_run_that_copies_for_long_is_not_taken_for_dead(address, monkeypatch):
    copies = mirror.copy_there

    def slowly(*args):
        time.sleep(2)
        copies(*args)

    monkeypatch.setattr(mirror, "copy_there", slowly)
    second = mirrored(address, every=0.2)
    with mirrored(address, every=0.2) as workdir:
        (workdir / "note").write_text("long")
        time.sleep(0.5)  # a copy has begun
        with pytest.raises(Unavailable, match="writes to memory://"):
            second.__enter__()


def test_a_run_whose_address_another_takes_ends_at_once_and_leaves_it_alone(address):
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    run = mirrored(address, every=0.05)
    try:
        (run.__enter__() / "note").write_text("dear")
        (address / "owner.json").write_text(json.dumps({"owner": "another", "time": 1.0}))
        assert ended.wait(60)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(Unavailable, match=r"another run.*its last state lies in ") as caught:
        run.__exit__(None, None, None)
    assert "copy" not in str(caught.value)
    kept = Path(str(caught.value).partition("lies in ")[2])
    assert (kept / "note").read_text() == "dear"
    assert json.loads((address / "owner.json").read_text())["owner"] == "another"
    shutil.rmtree(kept.parent)


def test_errors_of_a_run_name_the_address(address):
    with pytest.raises(BadInput, match=r"memory://.*/file"), mirrored(address, every=60) as workdir:
        raise BadInput(f"{workdir}/file is bad")
