"""A conversion on Beam's DaskRunner, of whose workers one is killed half-way.

    python -m tests.dask_conversion OUT

Runs in an environment of its own (requirements-beam-test.txt), for tests/test_dask.py.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from distributed import LocalCluster

from data_prep.engine.builder import write_record_set
from data_prep.engine.conversion import Conversion
from data_prep.engine.report import Report
from tests.conversions import read_tiny, tiny

WORKERS, ITEMS = 3, 48


def read_slowly(number: int, report: Report):
    """A tenth of a second an image, so that there is a half-way."""
    time.sleep(0.1)
    yield from read_tiny(number, report)


def conversion() -> Conversion:
    return tiny({"train": range(ITEMS - 12), "test": range(ITEMS - 12, ITEMS)}, read_slowly)


def kill_a_worker(cluster: LocalCluster, parts: Path) -> None:
    """Kills one worker with SIGKILL when a third of the parts is there, and says so."""
    while len(list(parts.glob("*.pickle"))) < ITEMS // 3:
        time.sleep(0.02)
    worker = next(iter(cluster.workers.values()))
    pid = worker.process.pid
    os.kill(pid, signal.SIGKILL)
    print(
        f"killed one of {len(cluster.workers)} workers, {len(list(parts.glob('*.pickle')))} parts"
    )


def main(out: Path) -> None:
    with LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster:
        parts = out.with_name(f".{out.name}.parts")
        threading.Thread(target=kill_a_worker, args=(cluster, parts), daemon=True).start()
        address = f"--dask_client_address={cluster.scheduler_address}"
        report = write_record_set(
            conversion(), out, beam_runner="DaskRunner", beam_options=[address]
        )
    print(report.text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
