r"""Representations beside each other on one trained detector: only the pose branch differs.

    python -m benchmarks.pose_branches --records records --out runs/pose_branches

The detector that ships, without its pose branch, looks once at crops round heads
(`mtnet data convert crops`), and what the pose branch reads there is kept. A new pose branch is
then trained on that for every arm and seed: the network's own `PoseBranch`, the losses and decoders
of `representations`. What phase 3 would do with everything else frozen, in seconds a run.

The detector was trained with vectors, which may favour them. With `--features hog` the branch reads
histograms of oriented gradients instead, which nothing was trained for; `mtnet ablate
representations` trains everything and takes hours. Tables and plots are those of `mtnet ablate`.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax.ablation.comparing import compare
from mtnet_jax.ablation.measure import SETTINGS, Measured
from mtnet_jax.ablation.report import write_files
from mtnet_jax.anchors import ANCHORS_PER_CELL, STRIDES
from mtnet_jax.boxes import longer_side_xyxy
from mtnet_jax.cpu.choice import fastest
from mtnet_jax.data import geometry
from mtnet_jax.data.augment import AugmentOptions
from mtnet_jax.data.batches import augment_record, pad_heads
from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation.figures import euler_errors, vector_errors
from mtnet_jax.evaluation.intervals import Interval
from mtnet_jax.evaluation.metrics import EMPTY, TRUTH_ROW
from mtnet_jax.network.branches import PoseBranch
from mtnet_jax.network.fpn import ScaleFeatures
from mtnet_jax.representations import Representation, make_representation
from mtnet_jax.rotations import geodesic_degrees, rotation_to_euler
from mtnet_jax.shipped import weights_folder
from mtnet_jax.system import at_size, build_system
from mtnet_jax.weights import load_weights

SIZE = 96  # pixels of the input; the heads in it have 18 to 60
WIDTH = 0.25  # of the pose branches that are compared
HOG_SIZE = 64  # pixels of the square round a head
LOOKED_AT = 64  # crops a call
LAST_TRAINED = 2560  # frames of studio_31 before it train; of other people, those after it test

# Heads of crops take .4 to .8 of their side; the detector knows heads that are smaller than that.
TRAIN = AugmentOptions(scale_min=0.45, scale_max=0.75, shift=0.1)
TEST = AugmentOptions(*[0.0] * 2, 0.6, 0.6, *[0.0] * (len(AugmentOptions._fields) - 4))

ARMS: dict[str, dict[str, Any]] = {
    "vectors": {"name": "vectors"},
    "euler": {"name": "euler"},
    "6D": {"name": "sixd"},
    "quaternion": {"name": "quaternion"},
    "vectors, geodesic loss": {"name": "vectors", "vector_loss": "geodesic"},
}
REFERENCE = "vectors"
OF_BOXES = ("ap50", "ap50_95", "recall", "mean_iou_all")  # figures that say nothing of poses


class Seen(NamedTuple):
    """What the detector saw of n heads.

    Attributes:
      scale1, scale2, scale3: (n, C) what the pose branch reads in the cell of the head's centre.
      answer: (n,) which of the nine predictions of these cells is surest: 3 times scale + anchor.
      rotations: (n, 3, 3) of the truth.
      image_ids: (n,) str.
    """

    scale1: np.ndarray
    scale2: np.ndarray
    scale3: np.ndarray
    answer: np.ndarray
    rotations: np.ndarray
    image_ids: np.ndarray


# --- What the branch reads ------------------------------------------------------------------------


def look(
    records: Sequence[tuple[RecordSource, Sequence[int]]],
    options: AugmentOptions,
    rounds: int,
    features: str,
) -> Seen:
    """Looks at crops, each changed anew in every round."""
    cells = _histograms if features == "hog" else _detector()
    parts: list[list[np.ndarray]] = []
    waiting: list[tuple[np.ndarray, ...]] = []
    for crop in _crops(records, options, rounds):
        waiting.append(crop)
        if len(waiting) == LOOKED_AT:
            parts.append(_looked(cells, waiting))
            waiting = []
    if waiting:
        parts.append(_looked(cells, waiting))
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _histograms(images: np.ndarray, boxes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Histograms of oriented gradients of the square round each head, as the coarsest scale."""
    found = []
    for image, box in zip(images, boxes, strict=True):
        scale = 0.8 * HOG_SIZE / max(float(longer_side_xyxy(box)), 1.0)
        middle = np.full(2, HOG_SIZE / 2)
        matrix = geometry.similarity_map(scale, 0.0, 1.0, (box[:2] + box[2:]) / 2, middle)
        grey = cv2.cvtColor(geometry.map_image(image, matrix, HOG_SIZE), cv2.COLOR_RGB2GRAY)
        found.append(_histogram(grey))
    nothing = np.zeros((len(images), 1), np.float32)
    return [np.stack(found), nothing, nothing], np.zeros(len(images), int)


def _histogram(grey: np.ndarray) -> np.ndarray:
    """(576,) of 8x8 cells with 9 orientations of 20 degrees each, square roots of their shares."""
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    strength, degrees = cv2.cartToPolar(across, down, angleInDegrees=True)
    cell = np.arange(HOG_SIZE) * 8 // HOG_SIZE
    places = (cell[:, None] * 8 + cell) * 9 + (degrees % 180 // 20).astype(int).clip(0, 8)
    sums = np.bincount(places.ravel(), strength.ravel(), 8 * 8 * 9)
    return np.sqrt(sums / max(sums.mean(), 1e-9)).astype(np.float32)


def _detector() -> Callable[[np.ndarray, np.ndarray], Any]:
    """Images and boxes -> what the pose branch reads at three scales, and the surest prediction."""
    config, variables = load_weights(weights_folder())
    system = build_system(at_size(config, SIZE))
    model = fastest(system.model)
    variables = {kind: dict(trees) for kind, trees in variables.items()}

    @jax.jit
    def cells(images: jax.Array, boxes: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        scales, faces = model.apply(variables, images / 255.0, method=_features)
        read, surest = [], []
        for scale, face, stride in zip(scales, faces, STRIDES, strict=True):
            cell = jnp.clip(centres // stride, 0, SIZE // stride - 1).astype(int)
            row = jnp.arange(len(images)), cell[:, 1], cell[:, 0]
            read.append(scale.pose_BxKxKxC[row])
            surest.append(face[row].reshape(len(images), ANCHORS_PER_CELL, -1)[..., 4])
        return read, jnp.argmax(jnp.concatenate(surest, axis=-1), axis=-1)

    return cells


def _features(model: nn.Module, images: jax.Array) -> tuple[Sequence[ScaleFeatures], list]:
    scales = model.neck(model.backbone(images, train=False), train=False)
    return scales, model.face(scales)


def _crops(
    records: Sequence[tuple[RecordSource, Sequence[int]]], options: AugmentOptions, rounds: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Image, box of the head, rotation, image_id of each crop."""
    rng = np.random.default_rng(0)
    for source, numbers in [each for _ in range(rounds) for each in records]:
        for number in numbers:
            record = source[number]
            crop = pad_heads(augment_record(record, rng, SIZE, options), 4)
            own = np.flatnonzero(crop["valid"] & crop["has_pose"] & ~crop["ignore"])
            for head in own[:1]:  # none where it was moved out of view
                name = np.array(record["image_id"])
                yield crop["image"], crop["boxes"][head], crop["rotations"][head], name


def _looked(cells: Any, crops: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    images, boxes, rotations, names = (np.stack(column) for column in zip(*crops, strict=True))
    short = LOOKED_AT - len(images)
    padded = np.pad(images, [(0, short), (0, 0), (0, 0), (0, 0)])
    read, answer = jax.device_get(cells(padded, np.pad(boxes, [(0, short), (0, 0)])))
    return [*(r[: len(images)] for r in read), answer[: len(images)], rotations, names]


def look_at_all(records: Path, out: Path, rounds: int, features: str) -> dict[str, Seen]:
    """What was seen of the training crops ("train") and of each test set; kept in `out`."""

    def source(name: str, split: str) -> RecordSource:
        return RecordSource(records / f"{name}_crops", split, decode=False)

    studio = source("studio_31", "train")
    frames = [int(studio[i]["image_id"].split("#")[0][-6:]) for i in range(len(studio))]
    trained = [i for i, frame in enumerate(frames) if frame < LAST_TRAINED]
    tested = [i for i, frame in enumerate(frames) if frame >= LAST_TRAINED]
    photographs = ("pointing04", "masks", "hardhat")
    sets: dict[str, list[tuple[RecordSource, Sequence[int]]]] = {
        "studio_31": [(studio, tested)],
        **{n: [(s, range(len(s)))] for n in photographs for s in [source(n, "test")]},
        "train": [
            (studio, trained),
            *((s, range(len(s))) for n in photographs for s in [source(n, "train")]),
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    seen = {}
    for name, chosen in sets.items():
        path = out / f"{name}.npz"
        if not path.is_file():
            training = name == "train"
            found = look(chosen, TRAIN if training else TEST, rounds if training else 1, features)
            np.savez(path, **found._asdict())
        with np.load(path) as file:
            seen[name] = Seen(**{field: file[field] for field in Seen._fields})
        print(f"{name}: {len(seen[name].answer)} heads", flush=True)
    return seen


# --- One branch -----------------------------------------------------------------------------------


def make_branch(name: str, *, vector_loss: str = "squared") -> tuple[PoseBranch, Representation]:
    """The pose branch of an arm, and what it predicts."""
    representation = make_representation(name, vector_loss=vector_loss)
    return PoseBranch(representation.size, WIDTH), representation


def predict(
    branch: PoseBranch, variables: Any, heads: Sequence[jax.Array], answer: jax.Array, train: bool
) -> tuple[jax.Array, Any]:
    """Raw poses (B, size) of the prediction that answers, and the statistics after it."""
    scales = [ScaleFeatures(face_BxKxKxC=h, pose_BxKxKxC=h[:, None, None]) for h in heads]
    outputs, changed = branch.apply(
        variables, scales, list(heads), train=train, mutable=["batch_stats"]
    )
    flat = jnp.stack([o.reshape(len(o), ANCHORS_PER_CELL, -1) for o in outputs], axis=1)
    flat = flat.reshape(len(flat), -1, flat.shape[-1])
    return jnp.take_along_axis(flat, answer[:, None, None], axis=1)[:, 0], changed


class Trained(NamedTuple):
    """A trained branch.

    Attributes:
      rotations: test set -> (n, 3, 3) predicted.
      curve: heads seen and geodesic error of every fourth held-out head, after each epoch.
      parameters: how many.
      seconds: of training.
    """

    rotations: dict[str, np.ndarray]
    curve: list[tuple[int, float]]
    parameters: int
    seconds: float


class Trainer:
    """Trains the branches of one arm; compiled once for all seeds."""

    def __init__(self, arm: dict[str, Any], heads: Seen, *, epochs: int, batch_size: int):
        self._branch, self._representation = make_branch(**arm)
        self._arrays = [jnp.asarray(each) for each in heads[:5]]
        self._steps, self._epochs = len(heads.answer) // batch_size, epochs
        self._batch_size = batch_size
        rate = optax.cosine_decay_schedule(4e-3, self._steps * epochs, alpha=0.01)
        self._optimizer = optax.adam(rate)
        self._epoch = jax.jit(self._run_epoch)
        self._decode = jax.jit(self._run_decode)

    def __call__(self, seed: int, tests: dict[str, Seen], followed: str) -> Trained:
        """Trains with a seed and predicts the test sets; `followed` is that of the curve."""
        key = jax.random.key(seed)
        few = [a[:2] for a in self._arrays[:3]]
        scales = [ScaleFeatures(face_BxKxKxC=h, pose_BxKxKxC=h[:, None, None]) for h in few]
        variables = self._branch.init(key, scales, few, train=False)
        state = (variables, self._optimizer.init(variables["params"]))
        curve, started = [], time.perf_counter()
        for epoch in range(self._epochs):
            order = jax.random.permutation(jax.random.fold_in(key, epoch), len(self._arrays[3]))
            order = order[: self._steps * self._batch_size].reshape(self._steps, -1)
            state = self._epoch(state, order)
            test = Seen(*(each[::4] for each in tests[followed]))
            errors = geodesic_degrees(self.rotations(state[0], test), test.rotations)
            seen = (epoch + 1) * self._steps * self._batch_size
            curve.append((seen, float(np.mean(errors))))
        seconds = time.perf_counter() - started
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state[0]["params"]))
        predicted = {name: self.rotations(state[0], test) for name, test in tests.items()}
        return Trained(predicted, curve, parameters, seconds)

    def rotations(self, variables: Any, seen: Seen) -> np.ndarray:
        """(n, 3, 3) predicted for heads that were seen."""
        return np.asarray(self._decode(variables, list(seen[:3]), seen.answer), np.float64)

    def _run_decode(self, variables: Any, heads: list[jax.Array], answer: jax.Array) -> jax.Array:
        raw, _ = predict(self._branch, variables, heads, answer, train=False)
        return self._representation.decode(raw)

    def _run_epoch(self, state: Any, order: jax.Array) -> Any:
        def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
            variables, moments = state
            *heads, answer, rotations = (each[rows] for each in self._arrays)

            def loss(params: Any) -> tuple[jax.Array, Any]:
                both = {**variables, "params": params}
                raw, changed = predict(self._branch, both, heads, answer, train=True)
                return self._representation.loss(raw, rotations).mean(), changed

            gradient, changed = jax.grad(loss, has_aux=True)(variables["params"])
            updates, moments = self._optimizer.update(gradient, moments)
            params = optax.apply_updates(variables["params"], updates)
            return ({"params": params, **changed}, moments), None

        return jax.lax.scan(step, state, order)[0]


def measured(seen: Seen, rotations: np.ndarray) -> Measured:
    """Poses alone: every head has its answer, boxes are not looked at."""
    rows = np.zeros(len(rotations), TRUTH_ROW)
    rows["has_pose"] = True
    truth = np.asarray(seen.rotations, np.float64)
    rows["yaw"] = rotation_to_euler(truth, convention="canonical")[..., 0]
    rows["euler"] = euler_errors(rotations, truth)
    rows["vectors"] = vector_errors(rotations, truth)
    rows["geodesic"] = geodesic_degrees(rotations, truth)
    rows["heading"] = rows["heading_error"] = np.nan
    number = np.arange(len(rows))
    return Measured(
        EMPTY._replace(rows=rows, images=len(rows)), number, number[:0], seen.image_ids, ""
    )


def without_detection(sets: dict[str, Any]) -> dict[str, Any]:
    """What `compare` gave, without the figures of boxes, which nothing was asked about."""
    for of_set in sets.values():
        for arm in of_set["arms"].values():
            for key in OF_BOXES:
                arm["overall"][key] = {**Interval(None, None, None, 0)._asdict(), "by_seed": {}}
        for apart in of_set["differences"].values():
            for key in OF_BOXES:
                nothing = {"over_seeds": Interval(None, None, None, 0)._asdict(), "p": None}
                apart["overall"][key] = {**nothing, "over_groups": None, "seeds": 0, "heads": None}
    return sets


# --- All of it ------------------------------------------------------------------------------------


def main() -> None:
    """Looks, trains every arm with every seed, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="folder of the record sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--features", choices=("detector", "hog"), default="detector")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1, help="looks at each training crop")
    args = parser.parse_args()
    seen = look_at_all(args.records, args.out / "seen", args.rounds, args.features)
    tests = {name: heads for name, heads in seen.items() if name != "train"}
    runs: dict[str, dict[int, dict[str, Measured]]] = {}
    costs: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for arm in args.arms:
        trainer = Trainer(ARMS[arm], seen["train"], epochs=args.epochs, batch_size=args.batch_size)
        for seed in range(args.seeds):
            trained = trainer(seed, tests, "studio_31")
            runs.setdefault(arm, {})[seed] = {
                name: measured(tests[name], r) for name, r in trained.rotations.items()
            }
            lines = [{"images": n, "geodesic_mean": error} for n, error in trained.curve]
            curves.setdefault(arm, {})[str(seed)] = {"eval/studio_31": lines}
            images = trained.curve[-1][0]
            costs[arm] = {
                "parameters": trained.parameters,
                "flop_of_image": 2.0 * trained.parameters,
                "images": images,
                "seconds_of_1000_images": 1000 * trained.seconds / images,
                "runs": seed + 1,
            }
            print(f"{arm}, seed {seed}: {trained.curve[-1][1]:.2f} degrees", flush=True)
    sets = without_detection(compare(runs, REFERENCE, dict.fromkeys(tests, r"[^#]+")))
    result = {
        "name": "pose_branches",
        "arms": {arm: ARMS[arm] for arm in args.arms},
        "seeds": list(range(args.seeds)),
        "reference": REFERENCE,
        "settings": SETTINGS._asdict(),
        "missing": [],
        "costs": costs,
        "curves": curves,
        "sets": sets,
    }
    write_files(json.loads(json.dumps(result)), args.out)


if __name__ == "__main__":
    main()
