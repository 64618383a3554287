"""Full disks and too little memory at random moments.

The work lies on a file system that is too small by a random amount (a tmpfs, which mounting needs
rights for; without them every file is limited by RLIMIT_FSIZE). The command must end by itself with
a line for the user and no traceback; with room again, the same command must end as one that never
lacked it. Too little memory (RLIMIT_AS) ends a process where libraries are written to end it; what
counts is that the next one goes on.
"""

import contextlib
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults import children, run_config
from benchmarks.faults.children import Ended, Limits
from benchmarks.faults.kills import files_of, is_done, raw_images, state_of_run

_LONGEST = 900.0  # seconds; what takes longer hangs
_ROOM = 1 << 30  # bytes of a disk that is large enough


class Work(NamedTuple):
    """A command, where it writes, and what must come of it."""

    name: str
    command: Callable[[Path], list[str]]
    state: Callable[[Path], Any]
    most_memory: int = 1 << 20  # bytes that may be too little


def disk(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Full disks: half in training, a third in converting, the rest in exporting."""
    for work, share in zip(_works(folder), (0.5, 0.35, 0.15), strict=True):
        yield from _disks(folder, work, max(1, round(count * share)), rng)


def memory(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Too little memory in training and converting."""
    for work in _works(folder)[:2]:
        yield from _memories(folder, work, max(1, count // 2), rng)


def _works(folder: Path) -> list[Work]:
    raw = raw_images(folder / "raw", count=60)
    converting = ["data", "convert", "csv", "--raw", str(raw), "--processes", "1", "--out"]
    training = ["train", "--config", run_config.__file__, "--workdir"]
    exporting = ["export", "--workdir", str(folder / "training-whole"), "--out"]
    return [
        Work("training", lambda run: [*training, str(run)], state_of_run, 1 << 30),
        Work("converting", lambda run: [*converting, str(run / "records")], files_of, 40 << 20),
        Work("exporting", lambda run: [*exporting, str(run)], files_of),
    ]


def _whole(folder: Path, work: Work) -> tuple[Path, Any]:
    """The work without a fault; that of an earlier campaign if it is there."""
    whole = folder / f"{work.name}-whole"
    if work.name != "training" or not (whole / "checkpoints").is_dir():
        shutil.rmtree(whole, ignore_errors=True)
        ended = children.mtnet(work.command(whole), whole)
        if ended.code:
            raise RuntimeError(ended.output)
    return whole, children.in_child(work.state, whole)


def _disks(folder: Path, work: Work, count: int, rng: random.Random) -> Iterator[str]:
    whole, expected = _whole(folder, work)
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    outcomes, faults = Counter[str](), []
    for number in range(count):
        run = folder / f"{work.name}-disk-{number}"
        size = rng.randint(64 << 10, max(needed, 128 << 10))
        with _small_disk(run, size) as enlarge:
            limits = Limits(seconds=_LONGEST, file_size=0 if enlarge else size // 4)
            on, said = run / "on", run.with_suffix(".said")
            ended = children.mtnet(work.command(on), on, limits, said)
            outcomes[_outcome(ended)] += 1
            if _outcome(ended) not in ("ended with a line", "had enough"):
                faults.append(f"FAULT: {work.name}, disk of {size} bytes: {ended.output[-1500:]}")
            if enlarge:
                enlarge()
            faults += _goes_on(work, on, expected, f"a disk of {size} bytes", said)
    shown = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
    yield f"{work.name} on {count} full disks, went on with room: {shown}; {len(faults)} faults"
    yield from faults


def _memories(folder: Path, work: Work, count: int, rng: random.Random) -> Iterator[str]:
    _, expected = _whole(folder, work)
    outcomes, faults = Counter[str](), []
    for number in range(count):
        run = folder / f"{work.name}-memory-{number}"
        shutil.rmtree(run, ignore_errors=True)
        limits = Limits(seconds=_LONGEST, memory=rng.randint(1 << 20, work.most_memory))
        ended = children.mtnet(work.command(run), run, limits)
        outcomes[_outcome(ended)] += 1
        about = f"{limits.memory} bytes of memory"
        faults += _goes_on(work, run, expected, about, run.with_suffix(".said"))
        shutil.rmtree(run, ignore_errors=True)
    shown = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
    times = f"{work.name} in too little memory {count} times, then in enough"
    yield f"{times}: {shown}; {len(faults)} faults"
    yield from faults


def _goes_on(work: Work, run: Path, expected: Any, fault: str, said: Path) -> Iterator[str]:
    """Says where the same command does not end as one without a fault."""
    again = children.mtnet(work.command(run), run, said=said)
    if not is_done(again):
        yield f"FAULT: {work.name} after {fault} does not go on: {again.output[-1500:]}"
    elif children.in_child(work.state, run) != expected:
        yield f"FAULT: {work.name} after {fault} ends otherwise"


def _outcome(ended: Ended) -> str:
    if ended.code == 0:
        return "had enough"
    if ended.code == 137:
        return "hung"
    if ended.code > 128:
        return f"ended by signal {ended.code - 128}"
    return "ended with a traceback" if "Traceback" in ended.output else "ended with a line"


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[Callable[[], Any] | None]:
    """A folder on a disk of so many bytes, and what enlarges it; None where mounting is denied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mounted = _mount(f"size={size}", folder)
    try:
        yield (lambda: _mount(f"remount,size={_ROOM}", folder)) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)


def _mount(options: str, folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0
