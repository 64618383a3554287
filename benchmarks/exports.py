"""Every export beside the JAX predictor: heads found, differences, size, time.

    python -m benchmarks.exports
    python -m benchmarks.exports --weights weights/release --images DIR --write docs/export.md

Exports the weights to a temporary folder, in every format whose packages are installed (those of
TensorFlow in the environment of requirements-tensorflow-test.txt), reads each back, and runs all on
the same inputs: the demo's images (or others) and noise. Times are those of one image, the least of
some calls in turns, as multiples of JAX's in the same run.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.decode import DecodeOptions, decode_flat
from mtnet_jax.export.folder import bytes_of, export
from mtnet_jax.export.formats import FORMATS
from mtnet_jax.export.metadata import INPUT, OUTPUT
from mtnet_jax.heads import Heads
from mtnet_jax.predict.files import find_images
from mtnet_jax.predict.inference import compile_for_prediction, make_detector
from mtnet_jax.predict.onnx_runtime import make_onnx_detector, make_session, open_heads
from mtnet_jax.predict.placing import letterboxed
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.rotations import geodesic_degrees
from mtnet_jax.shipped import shipped, weights_folder
from mtnet_jax.system import build_system
from mtnet_jax.weights import load_weights

SCORE, IOU = 0.1, 0.5
SAME_HEAD = 0.5  # least IoU of a head of the export with one of JAX
NOISE_IMAGES = 4
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"

Detect = Callable[[np.ndarray], Heads]


class Parity(NamedTuple):
    """An export beside JAX."""

    name: str
    heads: int  # of JAX
    found: int  # of them in the export
    extra: int  # heads of the export alone
    box: float  # largest difference of an edge, pixels of the input
    degrees: float  # largest difference of a rotation
    megabytes: float
    time: float  # of JAX's for one image


def writable() -> tuple[str, ...]:
    """The formats whose packages are installed."""
    return tuple(name for name, form in FORMATS.items() if importlib.util.find_spec(form.needs))


def readers(folder: Path) -> dict[str, tuple[Path, Detect]]:
    """What each file that lies in an exported folder finds: name -> (file, function)."""

    def by_jax(source: Path) -> Detect:
        config, variables = load_weights(source)
        detect = make_detector(build_system(config), config, SCORE)(variables)
        return lambda images: Heads(*map(np.asarray, detect(images)))

    def by_onnxruntime(path: Path) -> Detect:
        session, _ = open_heads(path)
        return make_onnx_detector(session, score_threshold=SCORE, iou_threshold=IOU)

    how = {
        "onnx": by_onnxruntime,
        "onnx-int8": by_onnxruntime,
        "onnx-network": _by_onnx_network,
        "stablehlo": _by_stablehlo,
        "safetensors": by_jax,
        "orbax": by_jax,
        "saved-model": _by_saved_model,
        "tflite": _by_tflite,
    }
    found = {"npz": (folder / "weights.npz", by_jax(folder))}
    for name, format in FORMATS.items():
        if (folder / format.file).exists():
            found[name] = (folder / format.file, how[name](folder / format.file))
    return found


def _by_stablehlo(path: Path) -> Detect:
    call = jax.jit(jax.export.deserialize(path.read_bytes()).call)
    scalars = np.float32(SCORE), np.float32(IOU)
    return lambda images: Heads(**jax.tree.map(np.asarray, call(images, *scalars)))


def _by_onnx_network(path: Path) -> Detect:
    session = make_session(path)
    return _decoded(path.parent, lambda images: session.run(None, {INPUT: images})[0])


def _by_saved_model(path: Path) -> Detect:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return _decoded(path.parent, lambda images: loaded.network(tf.constant(images))[OUTPUT].numpy())


def _by_tflite(path: Path) -> Detect:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predictions(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        return interpreter.get_tensor(got["index"])

    return _decoded(path.parent, lambda images: np.concatenate([predictions(i) for i in images]))


def _decoded(folder: Path, network: Callable[[np.ndarray], np.ndarray]) -> Detect:
    """A bare network, whose raw predictions JAX decodes."""
    config, _ = load_weights(folder)
    system = build_system(config)
    options = DecodeOptions(**{**config.decode, "score_threshold": SCORE, "iou_threshold": IOU})

    @compile_for_prediction
    def decode(raw: Any) -> Heads:
        return decode_flat(
            raw, grid=system.grid, representation=system.representation, options=options
        )

    return lambda images: Heads(*map(np.asarray, decode(network(images))))


def compare(name: str, expected: Heads, found: Heads) -> dict[str, Any]:
    """Heads found, and the largest differences of those that both found."""
    lost = extra = both = 0
    box = degrees = 0.0
    for row in range(len(expected.scores)):
        ours, theirs = (np.flatnonzero(heads.valid[row]) for heads in (expected, found))
        pairs = _pairs(iou_xyxy(expected.boxes[row][ours][:, None], found.boxes[row][theirs][None]))
        both, lost = both + len(pairs), lost + len(ours) - len(pairs)
        extra += len(theirs) - len(pairs)
        for a, b in pairs:
            i, j = ours[a], theirs[b]
            box = max(box, float(np.abs(expected.boxes[row, i] - found.boxes[row, j]).max()))
            angle = geodesic_degrees(expected.rotations[row, i], found.rotations[row, j])
            degrees = max(degrees, float(angle))
    return {
        "name": name, "heads": both + lost, "found": both, "extra": extra, "box": box,
        "degrees": degrees,
    }  # fmt: skip


def _pairs(iou: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns that belong together, the best first, each once."""
    iou, pairs = iou.copy(), []
    while iou.size and iou.max() >= SAME_HEAD:
        a, b = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((int(a), int(b)))
        iou[a], iou[:, b] = -1, -1
    return pairs


def parity(folder: Path, images: np.ndarray, *, rounds: int = 20) -> list[Parity]:
    """Every file of an exported folder beside JAX on inputs (n, size, size, 3) uint8."""
    files = readers(folder)
    expected = files["npz"][1](images)
    times = _times({name: detect for name, (_, detect) in files.items()}, images[:1], rounds)
    return [
        Parity(
            **compare(name, expected, detect(images)),
            megabytes=bytes_of(path) / 1e6,
            time=times[name] / times["npz"],
        )
        for name, (path, detect) in files.items()
    ]


def _times(contenders: dict[str, Detect], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Least seconds of each, called in turns so that noise hits all alike."""
    best = dict.fromkeys(contenders, np.inf)
    for number in range(rounds + 1):
        for name, detect in contenders.items():
            start = time.perf_counter()
            detect(image)
            if number:  # the first call compiles
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def inputs(source: Path, size: int) -> np.ndarray:
    """Images of a folder and noise as inputs (n, size, size, 3) uint8."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (NOISE_IMAGES, size, size, 3), dtype=np.uint8)
    images = [letterboxed(read_image(path), size)[0] for path in find_images([source]).images]
    return np.stack([*images, *noise])


def table(results: list[Parity]) -> str:
    """The results in Markdown."""
    lines = [
        "| format | heads of JAX found | others | largest difference of a box, pixels "
        "| of a rotation, degrees | size, MB | time of JAX's |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| `{r.name}` | {r.found} of {r.heads} | {r.extra} | {r.box:.1g} | {r.degrees:.1g} | "
            f"{r.megabytes:.1f} | {r.time:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="default: those that ship")
    parser.add_argument("--images", type=Path, default=shipped("demo/images"))
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    args = parser.parse_args()
    weights = weights_folder(args.weights)
    size = load_weights(weights)[0].input.size
    images = inputs(args.images, size)
    with tempfile.TemporaryDirectory() as folder:
        export(weights, folder, formats=writable(), calibration=images[:-NOISE_IMAGES])
        text = table(parity(Path(folder), images))
    print(text)
    if args.write:
        page = args.write.read_text()
        before, rest = page.split(BEGIN)
        args.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
