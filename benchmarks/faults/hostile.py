"""Files made to do harm: bounded memory, nothing executed, nothing written outside.

Each is given to what reads such files, in a process that may use a limited address space and time.
It must be refused with an error for the user (or be read as what it is); a marker shows what was
executed, and a folder around the work shows what was written outside.
"""

import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults import children
from benchmarks.faults.attacks import images, labels, records, weights
from benchmarks.faults.attacks.attack import EXECUTED, Attack
from mtnet_jax.errors import MtnetError

MOST_MEMORY = 1 << 30  # bytes beyond what a process begins with


def hostile(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Reads every hostile file once (count and rng are of the other campaigns)."""
    del count, rng
    tried, faults = attacks(), 0
    for attack in tried:
        around = folder / "hostile"
        shutil.rmtree(around, ignore_errors=True)
        work = around / "a" / "work"
        work.mkdir(parents=True)
        attack.write(work)
        try:
            outcome, megabytes = children.in_child(_suffer, attack.read, work)
        except RuntimeError as error:
            outcome, megabytes = str(error), 0
        outside = [p for p in around.rglob("*") if p.is_file() and work not in p.parents]
        if (around / EXECUTED).exists() or outside or not outcome.startswith(("refused", "read")):
            faults += 1
            yield f"FAULT: {attack.name}: {outcome}; outside: {outside}"
        else:
            yield f"{attack.name}: {outcome} (+{megabytes} MB)"
    yield f"hostile files: {len(tried)}, of which {faults} did harm"


def _suffer(read: Callable[[Path], Any], work: Path) -> tuple[str, int]:
    """What reading comes to, and by how many MB the process grew."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.environ["HOME"] = str(work)
    try:
        outcome = f"read as {read(work)}"
    except MtnetError as error:
        outcome = f"refused: {str(error).replace(str(work), '')[:110]}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return outcome, grown // 1024


def attacks() -> list[Attack]:
    """All of them."""
    return [*images.ATTACKS, *weights.ATTACKS, *records.ATTACKS, *labels.ATTACKS]
