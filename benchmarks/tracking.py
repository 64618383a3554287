"""Tracking and smoothing on rendered clips, where it is known who is who and how each head turns.

    python -m benchmarks.tracking --assets makehuman --weights weights/release --out runs/tracking

Renders the clips of `CLIPS` (people and camera move), runs `mtnet predict --track` on them, and
compares its JSON lines with the truth: identity switches, jitter of still heads, lag of turning
ones, for raw and smoothed rotations and for other settings of the filter. Clips that are there
already are not rendered again.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation, Slerp
from tqdm import tqdm

from data_prep.studio.layouts.motion import Motion, rotation_of
from data_prep.studio.layouts.writing import photograph
from data_prep.studio.people import make_person
from data_prep.studio.random_scene import random_lights
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.scene import Camera, Scene
from data_prep.studio.surroundings import random_room
from data_prep.studio.truth import truth
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.camera import camera_to_ray
from mtnet_jax.predict.predictor import Predictor
from mtnet_jax.predict.smoothing import RotationFilter
from mtnet_jax.predict.video import predict_video
from mtnet_jax.rotations import geodesic_degrees

RATE, SIZE, FOCAL = 25.0, (480, 360), 620.0
STILL, TURNING = 2.0, 20.0  # degrees a second of the truth: at most, at least
LEAST_IOU = 0.3  # between a true head and the one found for it
SETTINGS = ((1.0, 0.0), (1.0, 0.03), (0.5, 0.01), (0.5, 0.03), (0.5, 0.1), (0.25, 0.03))  # swept


class Clip(NamedTuple):
    """What a clip shows: seconds, a motion a person, and the camera's wandering."""

    seconds: float
    motions: tuple[Motion, ...]
    sway: float  # degrees of the camera's slow turning
    seed: int


def turning() -> Clip:
    """A head that rests, turns past its back, rests, comes back; beside it one that shakes."""
    once = Motion(
        times=np.array([0, 2.5, 5, 7.5, 10.0]),
        head=np.array([(0, 0, 0), (0, 0, 0), (210, 5, 0), (210, 5, 0), (30, -10, 5.0)]),
        body=np.array([(0, 0, 0), (0, 0, 0), (190, 0, 0), (190, 0, 0), (20, 0, 0.0)]),
        places=np.tile([-0.3, -1.5, 1.7], (5, 1)),
    )
    times = np.arange(0, 10.5, 1.0)
    yaw = np.array([-50, 50, 50, -50, -50, -50, 50, -50, 0, 0, 0.0])
    shaking = Motion(
        times=times,
        head=np.stack([yaw, 10 * np.sin(times), 0 * yaw], axis=1),
        body=np.zeros((len(times), 3)),
        places=np.tile([0.3, -1.45, 1.8], (len(times), 1)),
    )
    return Clip(10.0, (once, shaking), sway=1.0, seed=1)


def crossing() -> Clip:
    """Four people who walk to and fro past each other and look where they go, or at the camera."""
    motions, rng = [], np.random.default_rng(5)
    for number, depth in enumerate((1.7, 2.2, 2.7, 3.2)):
        times = np.arange(0, 9.0, 1.5) + 0.2 * number
        times[0] = 0.0
        side = 0.26 * depth * (-1.0) ** (np.arange(len(times)) + number)
        heading = np.where(rng.random(len(times)) < 0.5, 0.0, 75.0 * np.sign(side))
        head = np.stack([heading, rng.normal(0, 8, len(times)), 0 * times], axis=1)
        places = np.stack([side, np.full(len(times), -1.5), np.full(len(times), depth)], axis=1)
        motions.append(Motion(times, head, head * [0.6, 0, 0], places))
    return Clip(7.5, tuple(motions), sway=2.0, seed=2)


CLIPS: dict[str, Callable[[], Clip]] = {"turning": turning, "crossing": crossing}


def main() -> None:
    """Renders what is missing, predicts, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    predictor = Predictor.load(args.weights)
    frame = predictor.frame
    for name, make in CLIPS.items():
        video = args.out / f"{name}.mp4"
        if not video.exists():
            write_clip(make(), args.assets, video)
        predict_video(predictor, video, out=args.out / args.weights.name, track=True)
        lines = (args.out / args.weights.name / f"{name}.jsonl").read_text().splitlines()
        print(f"\n{name}, {args.weights}")
        report(matched(video.with_suffix(".json"), [json.loads(li) for li in lines], frame))


def camera_at(clip: Clip, seconds: float) -> Camera:
    """A camera held by hand: slow swaying, some trembling."""
    yaw = clip.sway * np.sin(0.9 * seconds) + 0.05 * np.sin(19 * seconds)
    pitch = 0.5 * clip.sway * np.sin(0.6 * seconds) + 0.05 * np.sin(23 * seconds)
    rotation = rotation_of(np.array([yaw, pitch, 0.0]))
    matrix = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1.0]])
    return Camera(matrix, rotation, -rotation @ np.array([0.0, -1.5, 0.0]), *SIZE)


def scenes(clip: Clip, assets: Path) -> Iterator[tuple[float, Scene]]:
    """Time and scene of every frame."""
    rng = np.random.default_rng(clip.seed)
    (lights, ambient), room = random_lights(rng), random_room(rng)
    people = [make_person(figure_of(assets), n, clip.seed) for n in range(len(clip.motions))]
    for number in range(round(clip.seconds * RATE)):
        seconds = number / RATE
        placed = [m.at(p, seconds) for m, p in zip(clip.motions, people, strict=True)]
        yield (
            seconds,
            Scene(tuple(placed), (camera_at(clip, seconds),), lights, ambient, room),
        )


def write_clip(clip: Clip, assets: Path, video: Path) -> None:
    """Renders a clip; writes the video, and the truth of each frame beside it as JSON."""
    video.parent.mkdir(parents=True, exist_ok=True)
    partial, rng, frames = video.with_suffix(".partial.mp4"), np.random.default_rng(0), []
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), RATE, SIZE)
    for _, scene in tqdm(scenes(clip, assets), desc=video.stem, total=round(clip.seconds * RATE)):
        (camera,) = scene.cameras
        rendering = render(scene, camera)
        writer.write(np.ascontiguousarray(photograph(rendering.image, rng)[..., ::-1]))
        heads, _ = truth(scene, camera, rendering.ids)
        frames.append(
            [
                {
                    "person": h.person,
                    "box": h.box.tolist(),
                    "camera": h.rotation.tolist(),
                    "ray": camera_to_ray(h.rotation[None], h.box[None], camera.intrinsics)[
                        0
                    ].tolist(),
                }
                for h in heads
                if not h.ignore
            ]
        )
    writer.release()
    video.with_suffix(".json").write_text(json.dumps(frames))
    partial.rename(video)


class Matched(NamedTuple):
    """A true head and what was found for it; arrays over the frames in which it was found."""

    rank: np.ndarray  # place in the list by falling score
    track: np.ndarray  # number, 0 for none
    seconds: np.ndarray
    truth: np.ndarray  # (n, 3, 3)
    raw: np.ndarray  # (n, 3, 3)
    smoothed: np.ndarray  # (n, 3, 3)


def matched(truth_file: Path, lines: list[dict], frame: str) -> dict[int, Matched]:
    """Person -> what was found, and the share of the true heads that was found is printed."""
    rows: dict[int, list] = {}
    asked = 0
    for true, line in zip(json.loads(truth_file.read_text()), lines, strict=True):
        found = line["heads"]
        asked += len(true)
        if not true or not found:
            continue
        overlap = np.asarray(
            iou_xyxy(
                np.array([t["box"] for t in true])[:, None],
                np.array([h["box"] for h in found])[None],
            )
        )
        for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[i, j] >= LEAST_IOU:
                head = found[j]
                smoothed = (head["smoothed"] or head)["rotation"]
                row = (j, head["track"] or 0, line["seconds"], true[i][frame])
                rows.setdefault(true[i]["person"], []).append((*row, head["rotation"], smoothed))
    print(f"{sum(map(len, rows.values()))} of {asked} true heads found")
    return {p: Matched(*map(np.array, zip(*r, strict=True))) for p, r in sorted(rows.items())}


def report(people: dict[int, Matched]) -> None:
    """Prints switches, jitter, lag, error."""
    for name in ("rank", "track"):
        numbers = [getattr(m, name) for m in people.values()]
        switches = sum(
            int((np.diff(n[n > 0] if name == "track" else n) != 0).sum()) for n in numbers
        )
        main_share = np.mean([np.unique(n, return_counts=True)[1].max() / len(n) for n in numbers])
        print(f"{name}: {switches} switches, {main_share:.3f} of a person under one number")
    titles = ("jitter, still", "lag, turning", "error, still")
    print("rotation".ljust(24) + "".join(t.rjust(15) for t in titles) + "turning".rjust(10))
    print_line("raw", [(m, m.raw) for m in people.values()])
    print_line("smoothed", [(m, m.smoothed) for m in people.values()])
    for setting in SETTINGS:
        tried = [(m, filtered(m, setting)) for m in people.values()]
        print_line(f"filter {setting[0]} Hz, {setting[1]}", tried)


def filtered(person: Matched, setting: tuple[float, float]) -> np.ndarray:
    """The raw rotations through a filter of other settings."""
    smooth = RotationFilter(*setting)
    return np.array([smooth(r, s) for r, s in zip(person.raw, person.seconds, strict=True)])


def print_line(name: str, pairs: list[tuple[Matched, np.ndarray]]) -> None:
    """Degrees a frame of jitter, milliseconds of lag, degrees of error: means over all people."""
    jitter, lags, still_error, turning_error = [], [], [], []
    for person, rotations in pairs:
        steps = geodesic_degrees(person.truth[:-1], person.truth[1:]) / np.diff(person.seconds)
        still, fast = steps <= STILL, steps >= TURNING
        off = rotations @ np.swapaxes(person.truth, -1, -2)  # what is wrong, in camera axes
        jitter.extend(geodesic_degrees(off[:-1], off[1:])[still])
        error = geodesic_degrees(rotations, person.truth)[1:]
        still_error.extend(error[still])
        turning_error.extend(error[fast])
        if fast.sum() > RATE:
            lags.append(lag(person, rotations, np.flatnonzero(fast) + 1))
    cells = (np.mean(jitter), 1000 * np.mean(lags), np.mean(still_error), np.mean(turning_error))
    print("{:24}{:13.2f} °{:12.0f} ms{:13.1f} °{:8.1f} °".format(name, *cells))


def lag(person: Matched, rotations: np.ndarray, frames: np.ndarray) -> float:
    """Seconds by which the truth has to be late to fit best; below 0 it would have to be early."""
    truth_at = Slerp(person.seconds, Rotation.from_matrix(person.truth))
    delays = np.arange(-0.2, 0.6, 0.01)
    errors = []
    for delay in delays:
        times = np.clip(person.seconds[frames] - delay, person.seconds[0], person.seconds[-1])
        errors.append(np.mean(geodesic_degrees(truth_at(times).as_matrix(), rotations[frames])))
    return float(delays[int(np.argmin(errors))])


if __name__ == "__main__":
    main()
