"""What all benchmarks share: contenders side by side, medians, the machine, a table and JSON.

Machines are noisy, so nothing is measured alone: the contenders take turns, and what is said is how
many times as long one takes as another in the same turn. Each contender lives in a process of its
own, which sleeps while the others run: no thread pool, allocator or cache of one framework works
beside or for another, and each may have environment variables of its own.

    contenders = {"numpy": Contender(make_product, {"size": 512}), ...}
    results = measure(contenders, turns=9)
    print(table(results))

`make` is a function at the top level of a module (it is called in the other process). It builds
what is measured and returns (run, facts): `run()` does the work once and waits for its end; `facts`
is a dictionary of numbers worth reporting (memory, FLOP), which may be empty.
"""

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAUSE = 0.05  # seconds between turns: threads that spin after their work have gone to sleep
LIBRARIES = ("jax", "jaxlib", "flax", "torch", "onnxruntime", "opencv-python", "numpy")


class Contender(NamedTuple):
    """One thing to measure."""

    make: Callable[..., tuple[Callable[[], Any], dict[str, Any]]]
    arguments: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}  # set before its process starts


class Sample(NamedTuple):
    """One turn of a contender, per run."""

    seconds: float
    cpu_seconds: float  # of all threads
    page_faults: float
    peak_mb: float  # of the process during the turn; NaN where the system does not say


class Result(NamedTuple):
    """All turns of a contender."""

    samples: list[Sample]
    facts: dict[str, Any]

    def median(self, field: str = "seconds") -> float:
        """The median of a field of `Sample`."""
        return float(np.median([getattr(sample, field) for sample in self.samples]))


def measure(
    contenders: Mapping[str, Contender], *, turns: int, runs: int = 1, warmup: int = 1
) -> dict[str, Result]:
    """Lets the contenders run in turn.

    Args:
      contenders: by the name they are shown with; the first is what the others are compared with.
      turns: that are counted.
      runs: of a contender in each turn, for work of a few milliseconds.
      warmup: turns before, not counted.

    Returns:
      The results by name.

    Raises:
      RuntimeError: a contender failed; the message is its traceback.
    """
    workers = {}
    try:
        for name, contender in contenders.items():
            workers[name] = _Worker(name, contender)
        results = {name: Result([], worker.receive()) for name, worker in workers.items()}
        for turn in range(warmup + turns):
            for name, worker in workers.items():
                time.sleep(PAUSE)
                worker.pipe.send(runs)
                sample = worker.receive()
                if turn >= warmup:
                    results[name].samples.append(sample)
        return results
    finally:
        for worker in workers.values():
            worker.stop()


def ratio(result: Result, other: Result) -> tuple[float, float, float]:
    """How many times as long `result` takes as `other`: median of the turns, lower, upper quartile.

    Each turn gives one ratio, so what slows a whole turn down falls out.
    """
    ratios = [a.seconds / b.seconds for a, b in zip(result.samples, other.samples, strict=True)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def table(results: Mapping[str, Result]) -> str:
    """Medians, and ratios to the first with the quartiles of the turns."""
    first = next(iter(results.values()))
    width = max(len(name) for name in results)
    titles = f"{'ms a run':>9} {'CPU ms':>9} {'faults':>8} {'peak MB':>8}  ratio (quartiles)"
    lines = [f"{'':{width}}  {titles}"]
    for name, result in results.items():
        milliseconds = f"{1e3 * result.median():9.1f} {1e3 * result.median('cpu_seconds'):9.1f}"
        memory = f"{result.median('page_faults'):8.0f} {result.median('peak_mb'):8.0f}"
        middle, low, high = ratio(result, first)
        lines.append(
            f"{name:{width}}  {milliseconds} {memory}  {middle:.3f} ({low:.3f} to {high:.3f})"
        )
    return "\n".join(lines)


def write_json(
    path: Path, results: Mapping[str, Result], settings: Mapping[str, Any] | None = None
) -> None:
    """Writes settings, machine and every sample."""
    content = {
        "command": f"python {' '.join(sys.orig_argv[1:])}",
        "settings": dict(settings or {}),
        "machine": machine(),
        "results": {
            name: {"facts": result.facts, "samples": [s._asdict() for s in result.samples]}
            for name, result in results.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory, system, versions of the libraries."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions,
    }


def installed(module: str) -> bool:
    """Whether a library that is compared with is there."""
    return importlib.util.find_spec(module) is not None


def _processor() -> str:
    """Name and widest vector instructions of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (li.partition(":") for li in lines)}
    flags = fields.get("flags", "").split()
    widest = [name for name in ("amx_tile", "avx512f", "avx2") if name in flags][:1]
    return " ".join([fields.get("model name", platform.machine()), *widest])


class _Worker:
    """The process of a contender."""

    def __init__(self, name: str, contender: Contender):
        self._name = name
        self.pipe, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        # Not a daemon: those may not start processes of their own, as data loaders do.
        self._process = spawn.Process(target=_work, args=(theirs, contender))
        with _environment(contender.environment):
            self._process.start()
        theirs.close()

    def receive(self) -> Any:
        try:
            kind, content = self.pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self._name}: its process died without a word") from error
        if kind == "error":
            raise RuntimeError(f"{self._name} failed:\n{content}")
        return content

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _work(pipe: Any, contender: Contender) -> None:
    try:
        run, facts = contender.make(**contender.arguments)
        pipe.send(("facts", facts))
        while True:
            runs = pipe.recv()
            pipe.send(("sample", _sample(run, runs)))
    except EOFError:
        pass  # the other end is gone
    except Exception:
        pipe.send(("error", traceback.format_exc()))


def _sample(run: Callable[[], Any], runs: int) -> Sample:
    _forget_peak()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(runs):
        run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return Sample(seconds / runs, cpu / runs, faults / runs, peak_memory_mb())


def peak_memory_mb() -> float:
    """The most memory this process held since `_forget_peak` (Linux), in 10^6 bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _forget_peak() -> None:
    # Not Linux, or not allowed: then the peak is that of the process's whole life.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
