"""One flipped bit in a byte of a file that is read: found, by name, or harmless.

Found means an error for the user that names the file or its folder. Harmless means that what is
read is the same, bit for bit: bytes that nothing reads. Everything else is a fault.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults import children, run_config
from benchmarks.faults.kills import digest_of_tree
from mtnet_jax.errors import MtnetError


class Target(NamedTuple):
    """Files to damage.

    Attributes:
      name: of the kind.
      files: one of them is damaged at a time.
      read: what a program would do with them; its result is compared.
      share: of the flips.
    """

    name: str
    files: list[Path]
    read: Callable[[], Any]
    share: float


def flips(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Flips bits in copies of a record set, a checkpoint and exports; yields lines of the report.

    The run is the one that `train` left, or a new one.
    """
    run, work = folder / "training-whole", folder / "flips"
    if not (run / "checkpoints").is_dir():
        children.mtnet(["train", "--config", run_config.__file__, "--workdir", str(run)], run)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(run_config.get_config().data.demo.path, work / "records")
    shutil.copytree(run, work / "run")
    exporting = ["export", "--workdir", str(run), "--out", str(work / "export")]
    formats = ["--format", "safetensors", "orbax", "onnx"]
    ended = children.mtnet([*exporting, *formats], work / "export")
    if ended.code:
        raise RuntimeError(ended.output)
    yield from children.in_child(_all_flips, work, count, rng)


def _all_flips(work: Path, count: int, rng: random.Random) -> list[str]:
    targets, lines, faults = _targets(work), [], []
    for target in targets:
        expected = target.read()
        outcomes: Counter[str] = Counter()
        for _ in range(round(count * target.share)):
            path = rng.choice(target.files)
            outcome, about = _flip(path, target.read, expected, rng)
            outcomes[outcome] += 1
            if outcome not in ("found", "harmless"):
                faults.append(f"FAULT: {target.name}: {path.relative_to(work)}, {about}: {outcome}")
        shown = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
        lines.append(f"{target.name} ({len(target.files)} files): {shown}")
    return ["; ".join(lines), *faults]


def _flip(
    path: Path, read: Callable[[], Any], expected: Any, rng: random.Random
) -> tuple[str, str]:
    """Flips one bit, reads, and mends it; the outcome and where it was."""
    whole = path.read_bytes()
    place, bit = rng.randrange(len(whole)), rng.randrange(8)
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    about = f"byte {place} of {len(whole)}, bit {bit}"
    path.write_bytes(damaged)
    try:
        same = read() == expected
    except MtnetError as error:
        # The file, or the folder that is read as one: a checkpoint, an export.
        named = any(name in str(error) for name in (path.name, *map(str, path.parents[:6])))
        return ("found" if named else f"found, but not named: {error}"), about
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}", about
    finally:
        path.write_bytes(whole)
    return ("harmless" if same else "not found"), about


def _targets(work: Path) -> list[Target]:
    records, export = work / "records", work / "export"
    (step,) = sorted((work / "run/checkpoints").iterdir(), key=lambda p: int(p.name))[-1:]
    return [
        Target("records", sorted(records.glob("*.tfrecord*")), lambda: _records(records), 0.25),
        Target("index", sorted(records.glob("*.index")), lambda: _records(records), 0.15),
        Target("checkpoint", _files(step), lambda: _checkpoint(work / "run"), 0.3),
        Target("weights.npz", [export / "weights.npz"], lambda: _weights(export), 0.06),
        Target("config.json", [export / "config.json"], lambda: _weights(export), 0.06),
        *(
            Target(path.name, _files(path), lambda path=path: _weights(path), 0.06)
            for path in (export / "weights.safetensors", export / "orbax")
        ),
        Target("heads.onnx", [export / "heads.onnx"], lambda: _heads(export / "heads.onnx"), 0.06),
    ]


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [file for file in found if file.stat().st_size]


def _records(folder: Path) -> str:
    import hashlib

    from mtnet_jax.data.records import RecordSet, RecordSource

    digest = hashlib.sha256()
    for split in RecordSet.open(folder).splits:
        source = RecordSource(folder, split)
        for i in range(len(source)):
            digest.update(source.raw(i))
    return digest.hexdigest()


def _checkpoint(workdir: Path) -> Any:
    import jax

    from mtnet_jax.checkpoints import Checkpoints, with_sharding
    from mtnet_jax.config import load_config
    from mtnet_jax.system import TrainState, abstract_variables, build_system
    from mtnet_jax.training.phases import make_optimizer, read_phases

    config = load_config(run_config.__file__, [])
    abstract = abstract_variables(build_system(config))
    with Checkpoints(workdir, keep=None) as checkpoints:
        step = checkpoints.steps()[0]
        position = checkpoints.position(step)
        phase = read_phases(config)[position.phase]
        optimizer = make_optimizer(phase, abstract["params"], steps=4, clip_norm=config.clip_norm)
        moments = jax.eval_shape(optimizer.init, abstract["params"])
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        state = checkpoints.restore(
            step, with_sharding(TrainState(**abstract, opt_state=moments), device)
        )
    return str(position), digest_of_tree(state)


def _weights(path: Path) -> Any:
    from mtnet_jax.weights import load_weights

    config, variables = load_weights(path)
    return config.to_json(), digest_of_tree(variables)


def _heads(path: Path) -> Any:
    from mtnet_jax.predict.runtimes import Wanted, open_weights

    opened = open_weights(path, Wanted(0.0, None, "onnxruntime", None, None))
    size = opened.config.input.size
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    return opened.config.to_json(), digest_of_tree(opened.detect(images))
