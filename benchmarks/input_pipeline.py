"""Images a second for each core: our input pipeline beside torch's DataLoader and tf.data.

    python -m benchmarks.input_pipeline --data records/hardhat --cores 1
    python -m benchmarks.input_pipeline --data records/hardhat --cores 2 --noise 0

The work is the same for all: take a record of the TFRecord file (shuffled, checksum verified),
decode its JPEG, letterbox and augment it (one affine map for image, boxes and rotations; one
colour matrix; blur of a tenth of the images; normal noise), pad its heads, make a batch.

- mtnet: `training_batches`, which trains; a thread a core.
- mtnet, processes: the same with a process a core (`config.loader_processes`).
- torch: a Dataset in torch's DataLoader, a worker process a core, with OpenCV as it is mostly used:
  the image decoded whole, averaged down where it shrinks by two or more, noise by cv2.randn.
- torch, our record: the DataLoader round our own function of a record, to compare loaders alone.
- tf.data: TensorFlow's operations, a thread a core (benchmarks/tf_data_pipeline.py says which), in
  the environment of requirements-tensorflow-test.txt: $MTNET_TF_PYTHON or .venv-tensorflow.

All processes of a contender are held to the same `--cores` cores. Contenders that are not
installed are left out, and named.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.timing import Contender, installed, measure, ratio, table, write_json
from mtnet_jax.cpu.allocator import keep_large_buffers
from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions, change_colour, random_map
from mtnet_jax.data.batches import augment_record, pad_heads, training_batches
from mtnet_jax.data.fitting import fit_heads
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.data.selection import parse_selection

REPOSITORY = Path(__file__).resolve().parent.parent
Run = tuple[Callable[[], Any], dict[str, Any]]


def mtnet(settings: dict, batches: int, processes: bool) -> Run:
    """What `mtnet train` reads from, in a process set up as it does."""
    keep_large_buffers()
    hold_to_cores(settings["workers"])
    iterator = training_batches(
        [RecordSource(settings["path"], settings["split"], decode=False)],
        [1.0],
        size=settings["size"],
        batch_size=settings["batch"],
        max_heads=settings["max_heads"],
        options=AugmentOptions(**settings["options"]),
        seed=settings["seed"],
        threads=settings["workers"],
        processes=settings["workers"] if processes else 0,
    )
    return taker(iterator, batches), {}


class TorchDataset:
    """Our records, for torch's DataLoader; its workers take it apart by index."""

    def __init__(self, settings: dict, change: Callable[..., dict]):
        self._source = RecordSource(settings["path"], settings["split"], decode=False)
        self._settings, self._change = settings, change
        self._options = AugmentOptions(**settings["options"])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self._settings["seed"], index))
        changed = self._change(self._source[index], rng, self._settings["size"], self._options)
        return pad_heads(changed, self._settings["max_heads"])


def usual_augmentation(
    record: dict, rng: np.random.Generator, size: int, options: AugmentOptions
) -> dict[str, np.ndarray]:
    """`augment_record` with the image decoded whole, and noise by OpenCV."""
    pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    letterbox = geometry.letterbox_map(pixels.shape[1], pixels.shape[0], size)
    matrix = geometry.compose(letterbox, random_map(rng, size, options))
    image = geometry.map_image(pixels, matrix, size)
    image = change_colour(rng, image, options._replace(noise=0))
    if options.noise > 0:
        cv2.setRNGSeed(int(rng.integers(2**31)))
        noise = np.empty(image.shape, np.int16)
        cv2.randn(noise, 0, rng.uniform(0, options.noise))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    return {"image": image, **fit_heads(record, matrix, size)}


def torch_loader(settings: dict, batches: int, usual: bool) -> Run:
    """torch's DataLoader with a worker process a core."""
    hold_to_cores(settings["workers"])
    import torch

    def endless():
        dataset = TorchDataset(settings, usual_augmentation if usual else augment_record)
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=settings["batch"],
            shuffle=True,
            num_workers=settings["workers"],
            drop_last=True,
            persistent_workers=True,
            multiprocessing_context="fork",
            generator=torch.Generator().manual_seed(settings["seed"]),
        )
        while True:
            yield from loader

    torch.set_num_threads(1)
    return taker(endless(), batches), {}


def tf_data(settings: dict, batches: int, python: str) -> Run:
    """tf.data, in a process of another environment."""
    hold_to_cores(settings["workers"])
    paths = RecordSet.open(settings["path"]).shard_paths(settings["split"])
    arguments = json.dumps({**settings, "files": [str(path) for path in paths]})
    process = subprocess.Popen(
        [python, REPOSITORY / "benchmarks" / "tf_data_pipeline.py", arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
    )

    def run() -> None:
        process.stdin.write(f"{batches}\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            raise RuntimeError(f"{python} benchmarks/tf_data_pipeline.py ended: run it by hand")

    return run, {}


def taker(iterator: Any, batches: int) -> Callable[[], None]:
    """Takes so many batches at each call."""

    def run() -> None:
        for _ in range(batches):
            next(iterator)

    return run


def hold_to_cores(count: int) -> None:
    """Keeps this process, and those it starts, on the first `count` cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def tensorflow_python() -> Path:
    """The interpreter that has TensorFlow."""
    default = REPOSITORY / ".venv-tensorflow" / "bin" / "python"
    return Path(os.environ.get("MTNET_TF_PYTHON", default))


def contenders(settings: dict, batches: int) -> dict[str, Contender]:
    """Those that are installed."""
    common = {"settings": settings, "batches": batches}
    found = {
        "mtnet": Contender(mtnet, {**common, "processes": False}),
        "mtnet, processes": Contender(mtnet, {**common, "processes": True}),
    }
    if installed("torch"):
        found["torch"] = Contender(torch_loader, {**common, "usual": True})
        found["torch, our record"] = Contender(torch_loader, {**common, "usual": False})
    else:
        print("torch is not installed: left out")
    if tensorflow_python().exists():
        found["tf.data"] = Contender(tf_data, {**common, "python": str(tensorflow_python())})
    else:
        print(f"no TensorFlow at {tensorflow_python()}: left out")
    return found


def main() -> None:
    """Prints the table of the contenders, and images a second for each core."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="record set as DIR[:SPLIT], JPEG images")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40, help="in a turn")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--noise", type=float, default=AugmentOptions().noise)
    parser.add_argument("--json", type=Path, help="where every sample is written")
    args = parser.parse_args()
    path, split = parse_selection(args.data, "train")
    settings = {
        "path": str(path),
        "split": split,
        "size": args.size,
        "batch": args.batch,
        "max_heads": 32,
        "seed": 0,
        "workers": args.cores,
        "options": AugmentOptions(noise=args.noise)._asdict(),
    }
    results = measure(contenders(settings, args.batches), turns=args.turns)
    print(f"{args.batches} batches of {args.batch} images a run, {args.cores} core(s)")
    print(table(results))
    for name, result in results.items():
        rate = args.batches * args.batch / result.median() / args.cores
        times = ratio(result, results["mtnet"])[0]
        print(f"{name}: {rate:.0f} images/s a core; its time is {times:.2f} of mtnet's")
    if args.json:
        write_json(args.json, results, settings)


if __name__ == "__main__":
    main()
