"""Faults on purpose. What machines do to runs is done to small ones, and counted.

    python -m benchmarks.faults [--work DIR] [--seed N] [--only NAME ...]

docs/reliability.md has what came of it.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Compiled programs are kept, which those with oneDNN's calls cannot be: a run is started often.
os.environ["MTNET_ONEDNN"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from benchmarks.faults import children, flips, hostile, kills, limits, two_hosts

FAULT = "FAULT"  # how the line of one begins
Campaign = Callable[[Path, int, random.Random], Iterator[str]]
# Name -> campaign and how often harm is done.
CAMPAIGNS: dict[str, tuple[Campaign, int]] = {
    "train": (kills.train, 50),
    "convert": (kills.convert, 20),
    "export": (kills.export, 10),
    "evaluate": (kills.evaluate, 10),
    "flips": (flips.flips, 200),
    "disk": (limits.disk, 14),
    "memory": (limits.memory, 6),
    "hostile": (hostile.hostile, 0),
    "hosts": (two_hosts.hosts, 4),
}


def main() -> int:
    """Runs campaigns; returns how many ended with a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/faults"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS))
    parser.add_argument("--count", type=int, metavar="N", help="of each (default: as documented)")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    children.prepare()
    faults = 0
    for name in args.only:
        campaign, count = CAMPAIGNS[name]
        begin = time.monotonic()
        for line in campaign(work, args.count or count, random.Random(f"{args.seed} {name}")):
            print(line, flush=True)
            faults += line.startswith(FAULT)
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
