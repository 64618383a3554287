"""Processes that read for the training: the same bytes, no leftovers, an end that is said."""

import functools
import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

import mtnet_jax.data.batches
from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.batches import ROWS_AT_ONCE, threads_for
from mtnet_jax.data.packing import PackOptions
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.tfrecord import DamagedRecord
from mtnet_jax.errors import WorkerDied
from mtnet_jax.workers import Elsewhere, pool_of, prepare, work
from tests.batched import assert_same, stream
from tests.conftest import REPOSITORY
from tests.record_sets import flip_a_bit

DEMO = REPOSITORY / "demo" / "studio_demo"
PATIENCE = 60.0  # seconds, for what takes one


def batches_of(records: Path = DEMO, split: str = "train", **options):
    arguments = {"size": 64, "options": AugmentOptions(), "pack": PackOptions(share=0.5), **options}
    return stream([RecordSource(records, split, decode=False)], **arguments)


def take(batches, count: int) -> list[dict]:
    return [next(batches) for _ in range(count)]


def test_processes_read_what_threads_read():
    """Batch by batch, bit for bit, and on from a position that the other kind has reached."""
    threads, processes = batches_of(threads=2), batches_of(processes=2)
    expected = take(threads, 9)
    assert_same(take(processes, 5), expected[:5])
    position = json.loads(json.dumps(processes.get_state()))
    again = batches_of(threads=1)
    again.set_state(position)
    assert_same(take(again, 4), expected[5:])
    back = batches_of(processes=1)
    back.set_state(position)
    assert_same(take(back, 4), expected[5:])


def test_processes_share_a_batch(monkeypatch):
    expected = take(batches_of(threads=1, batch_size=7), 3)
    monkeypatch.setattr(mtnet_jax.data.batches, "ROWS_AT_ONCE", 3)
    assert_same(take(batches_of(processes=2, batch_size=7), 3), expected)


def test_what_is_read_ahead_stays_small_and_keeps_all_processes_busy():
    for rows, processes in ((1024, 32), (512, 7), (64, 15), (16, 1)):
        threads = threads_for(processes, rows=rows)
        assert threads * math.ceil(rows / ROWS_AT_ONCE) > processes
        # grain keeps 2 * threads batches; an image of 416 pixels is half a megabyte.
        assert 2 * threads * rows * 416**2 * 3 < 4e9


def test_a_damaged_record_is_named_from_there_too(tmp_path):
    damaged = tmp_path / "records"
    shutil.copytree(DEMO, damaged)
    shard = flip_a_bit(damaged, "test", record=7)
    batches = batches_of(damaged, "test", pack=None, processes=1)
    with pytest.raises(DamagedRecord, match=rf"{shard.name}: record 7 .*checksum"):
        take(batches, 100)


# --- the processes -------------------------------------------------------------------------------


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def elsewhere(function) -> Elsewhere:
    return Elsewhere(function, 1, ["mtnet_jax.workers"], when_one_dies="take fewer")


def with_argument(function, _):
    return function()


def test_a_dropped_function_leaves_no_process():
    function = elsewhere(functools.partial(with_argument, os.getpid))
    process = function(None)
    assert process != os.getpid()
    assert not gone(process)
    del function
    gc.collect()
    wait_until(lambda: gone(process))


def test_a_killed_process_is_said_with_its_cure():
    function = elsewhere(functools.partial(with_argument, os.getpid))
    os.kill(function(None), signal.SIGKILL)
    with pytest.raises(WorkerDied, match="take fewer"):
        [function(None) for _ in range(2)]  # the death may be seen a call later


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_leave_them_at_work(sent):
    """The training saves at them, and needs batches until its step is done."""
    function = elsewhere(functools.partial(with_argument, os.getpid))
    process = function(None)
    os.kill(process, sent)
    assert function(None) == process


def test_sigterm_to_what_they_are_forked_from_leaves_them_at_work():
    """As one to all processes of a job: new ones can start too."""
    function = elsewhere(functools.partial(with_argument, os.getpid))
    process = function(None)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGTERM)
    time.sleep(0.5)
    assert function(None) == process
    another = elsewhere(functools.partial(with_argument, os.getpid))
    assert another(None) != process


def test_a_pool_that_lets_signals_through_ends_at_sigterm():
    """No worker keeps the mask of the process that it was forked from."""
    prepare(["mtnet_jax.workers"])
    with pool_of(functools.partial(with_argument, os.getpid), 1, at_signals=signal.SIG_DFL) as pool:
        process = pool.submit(work, None).result()
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: gone(process))


def test_they_end_with_the_process_they_work_for():
    code = (
        "import functools, os, time; from mtnet_jax.workers import Elsewhere;"
        "from tests.test_workers import with_argument;"
        "work = functools.partial(with_argument, os.getpid);"
        "function = Elsewhere(work, 1, [], when_one_dies='');"
        "print(function(None), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        worker = int(parent.stdout.readline())
        assert not gone(worker)
        parent.kill()
    wait_until(lambda: gone(worker))
