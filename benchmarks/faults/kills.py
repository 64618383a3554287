"""kill -9 at random moments of training, converting, exporting and evaluating.

A run is killed and started again until it ends; then it must be the run that was never killed: the
same parameters and moments bit for bit, each step and each evaluation logged once with the same
numbers, the same files.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.faults import children, run_config
from benchmarks.faults.children import Ended

KILLED = 137
_IN_A_ROW = 5  # kills before a run is let go to its end
# Of a line of the log, what depends on the machine.
_OF_THE_MACHINE = ("time", "per_second", "share", "seconds", "memory_gb", "mfu")


def train(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kills training so many times; yields lines of the report."""
    command = ["train", "--config", run_config.__file__, "--workdir"]
    yield from _campaign(
        "training", folder, kills, rng, lambda run: [*command, str(run)], state_of_run
    )


def convert(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kills conversions on two processes."""
    raw = raw_images(folder / "raw", count=60)
    command = ["data", "convert", "csv", "--raw", str(raw), "--processes", "2", "--out"]
    yield from _campaign(
        "converting", folder, kills, rng, lambda run: [*command, str(run / "records")], files_of
    )


def export(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kills exports of the weights that training left."""
    command = ["export", "--workdir", str(folder / "training-whole")]
    yield from _campaign(
        "exporting", folder, kills, rng, lambda run: [*command, "--out", str(run)], files_of
    )


def evaluate(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kills evaluations of the weights that training left."""
    run_config_data = run_config.get_config().data.demo.path
    command = ["eval", "--workdir", str(folder / "training-whole"), "--limit", "24"]
    command += ["--data", f"{run_config_data}:test", "--out"]
    yield from _campaign(
        "evaluating", folder, kills, rng, lambda run: [*command, str(run)], files_of
    )


def _campaign(
    name: str,
    folder: Path,
    kills: int,
    rng: random.Random,
    command: Callable[[Path], list[str]],
    state_of: Callable[[Path], Any],
) -> Iterator[str]:
    """Kills a command again and again, and compares what comes of it with the whole."""
    whole = folder / f"{name}-whole"
    for _ in ("compiles its programs", "finds them, as all later ones"):
        shutil.rmtree(whole, ignore_errors=True)
        ended = children.mtnet(command(whole), whole)
    if ended.code:
        raise RuntimeError(
            f"{name}: the run that nobody kills ends with {ended.code}\n{ended.output}"
        )
    expected = children.in_child(state_of, whole)
    done, runs, places, faults = 0, 0, Counter[str](), []
    while done < kills:
        run = folder / f"{name}-{runs}"
        shutil.rmtree(run, ignore_errors=True)
        killed = _kill_in_a_row(run, command(run), ended, min(_IN_A_ROW, kills - done), rng)
        last = children.mtnet(command(run), run)
        done, runs = done + len(killed), runs + 1
        places.update(map(_part, killed))
        found = children.in_child(state_of, run) if is_done(last) else last.output[-2000:]
        if found == expected:
            yield f"  {run.name}: the same after {len(killed)} kills, at {'; '.join(killed)}"
            shutil.rmtree(run)
        else:
            faults.append(
                f"FAULT: {name}: {run.name} after {killed} differs: {_difference(found, expected)}"
            )
    where = ", ".join(f"{count} in {part}" for part, count in places.most_common())
    equal = f"{runs - len(faults)} runs ended as the one that was not killed"
    yield f"{name}: {done} kills in {runs} runs ({where}); {equal}"
    yield from faults


def _kill_in_a_row(
    run: Path, command: list[str], whole: Ended, most: int, rng: random.Random
) -> list[str]:
    """Kills a command up to so many times; what it touched last each time."""
    killed: list[str] = []
    while len(killed) < most:
        ended = children.mtnet(command, run, children.a_moment(rng, whole))
        if is_done(ended):
            break
        if ended.code != KILLED:
            raise RuntimeError(f"{run}: ends with {ended.code}\n{ended.output[-3000:]}")
        killed.append(ended.last or "nothing yet")
    return killed


def is_done(ended: Ended) -> bool:
    """Whether a command has ended its work, or a killed one before it had."""
    return ended.code == 0 or "exists already" in ended.output


def _part(touched: str) -> str:
    """The part of a run that a file belongs to."""
    parts = {"checkpoints": "saving", "metrics.jsonl": "logging", "tensorboard": "logging"}
    parts |= {".records.parts": "reading and writing parts", "nothing yet": "starting"}
    return next((part for key, part in parts.items() if key in touched), "other files")


def state_of_run(workdir: Path) -> dict[str, Any]:
    """All of a run that must not depend on kills."""
    from orbax.checkpoint import v1 as ocp

    state = stated_of_run(workdir)
    for folder in (workdir / "checkpoints").iterdir():
        tree = ocp.load_checkpointables(folder.resolve())
        state[f"checkpoint {folder.name}"] = digest_of_tree(tree)
    return state


def stated_of_run(workdir: Path) -> dict[str, Any]:
    """The same by what the run says: positions with fingerprints of all values, and the log.

    What several processes saved cannot be loaded without them; the fingerprints are taken on their
    devices (`mtnet_jax.fingerprints`).
    """
    from orbax.checkpoint import v1 as ocp

    from mtnet_jax.run_metrics import read_metrics

    state: dict[str, Any] = {}
    for folder in sorted((workdir / "checkpoints").iterdir()):
        metadata = ocp.checkpointables_metadata(folder.resolve()).custom_metadata
        state[f"position {folder.name}"] = json.dumps(metadata, sort_keys=True)
    for line in read_metrics(workdir):
        key = f"{line['kind']} at {line['step']}"
        if key in state:
            state[f"{key} again"] = "logged twice"
        of_the_run = {k: v for k, v in line.items() if not k.endswith(_OF_THE_MACHINE)}
        state[key] = json.dumps(of_the_run, sort_keys=True)
    kept = {"checkpoints", "config.json", "lock", "metrics.jsonl", "records.json", "tensorboard"}
    state["strange files"] = sorted({path.name for path in workdir.iterdir()} - kept)
    return state


def digest_of_tree(tree: Any) -> str:
    """SHA-256 of all arrays of a tree, with their paths."""
    import jax

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(f"{jax.tree_util.keystr(path)}".encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files below a folder; the list of what was made is not compared."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".mtnet-made.jsonl"
    }


def raw_images(folder: Path, count: int) -> Path:
    """A folder of images with labels for the converter `csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image,x1,y1,x2,y2,yaw,pitch,roll,convention"]
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), pixels)
        rows.append(f"{number:03d}.jpg,10,10,60,70,{number},0,0,canonical")
    (folder / "heads.csv").write_text("\n".join(rows) + "\n")
    return folder


def _difference(found: Any, expected: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return str(found)
    keys = found.keys() | expected.keys()
    return ", ".join(sorted(key for key in keys if found.get(key) != expected.get(key)))
