"""From a decoded image to heads, beside onnxruntime's time for the bare network alone.

    python -m benchmarks.predict --width 0.25
    python -m benchmarks.predict --weights weights/release

Each contender runs in a process of its own, with two threads. Before anything is measured, the
network is checked to give what onnxruntime gives. The first line is the bare network as PyTorch
exports it; the lines below are ours. "network" is the network alone as JAX predicts with it,
"as trained" with BatchNorm apart and the kernels as they are; "letterbox" and "decode" are the rest
of the way from image to heads.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.timing import Contender, measure, table, write_json
from mtnet_jax import Predictor
from mtnet_jax.anchors import ANCHORS_PER_CELL
from mtnet_jax.config import default_config
from mtnet_jax.cpu.choice import fastest, training_options
from mtnet_jax.data import geometry
from mtnet_jax.decode import DecodeOptions, decode
from mtnet_jax.network import normalise_images
from mtnet_jax.network.branches import objectness_prior_bias
from mtnet_jax.predict.inference import compile_for_prediction, make_network
from mtnet_jax.predict.predictor import read_image
from mtnet_jax.shipped import shipped
from mtnet_jax.system import abstract_variables, build_system
from mtnet_jax.weights import load_weights, write_weights

IMAGE = (480, 640, 3)
PERSON = shipped("demo/images/person11146+0+0.jpg")
RANDOM_PRIOR = 0.063  # objectness of an anchor in random weights
AGREEMENT = 1e-4  # of the largest output, between onnxruntime and the network


def read_weights(weights: str | None, width: float, size: int) -> tuple[ConfigDict, dict]:
    """Configuration and variables: of a folder, or random ones of a network of the paper's depth.

    The cost of the network does not depend on the weights, as long as no number falls out of
    float32's normal range. That of decoding depends on how many anchors pass for heads: objectness
    of the random weights is such that a few may.
    """
    if weights:
        return load_weights(weights)
    config = default_config()
    config.model.width, config.input.size = width, size
    system = build_system(config)
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            values = rng.normal(0, np.prod(leaf.shape[:3]) ** -0.5, leaf.shape)
        elif name == "bias" and path[1].key == "face":
            bias = objectness_prior_bias(leaf.shape[0] // ANCHORS_PER_CELL, RANDOM_PRIOR)
            values = np.asarray(bias(None, leaf.shape))
        else:
            values = np.full(leaf.shape, 1.0 if name in ("scale", "var") else 0.0)
        return values.astype(np.float32)

    return config, jax.tree_util.tree_map_with_path(draw, abstract_variables(system))


def vga_image() -> np.ndarray:
    """A decoded image of VGA size: a person some way off, before noise.

    It is looked at once here: second looks (docs/results.md) are more of the same.
    """
    image = np.random.default_rng(0).integers(0, 256, IMAGE, dtype=np.uint8)
    photo = cv2.resize(read_image(PERSON), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    image[200 : 200 + photo.shape[0], 200 : 200 + photo.shape[1]] = photo
    return image


def network_input(size: int) -> np.ndarray:
    """The image, letterboxed, as a batch of one."""
    image = vga_image()
    matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
    return geometry.map_image(image, matrix, size)[None]


def onnx_network(path: str, size: int) -> tuple[Callable, dict[str, Any]]:
    from benchmarks.onnx_models import as_onnx_input, session

    images, network = as_onnx_input(network_input(size)), session(Path(path))
    return lambda: network.run(None, {"images": images}), {}


def open_predictor(source: dict[str, Any], runtime: str) -> Predictor:
    with tempfile.TemporaryDirectory() as folder:
        write_weights(folder, *read_weights(**source))
        return Predictor(folder, runtime=runtime, second_look=False)


def whole_way(runtime: str, **source: Any) -> tuple[Callable, dict[str, Any]]:
    predictor, image = open_predictor(source, runtime), vga_image()
    return lambda: predictor(image), {"heads": len(predictor(image))}


def network_alone(**source: Any) -> tuple[Callable, dict[str, Any]]:
    config, variables = read_weights(**source)
    network = make_network(build_system(config))(variables)
    images = jax.device_put(network_input(config.input.size))
    return lambda: jax.block_until_ready(network(images)), {}


def network_as_trained(**source: Any) -> tuple[Callable, dict[str, Any]]:
    config, variables = read_weights(**source)
    model = fastest(build_system(config).model)
    variables = jax.device_put(variables)
    network = jax.jit(
        lambda v, x: model.apply(v, normalise_images(x)), compiler_options=training_options()
    )
    images = jax.device_put(network_input(config.input.size))
    return lambda: jax.block_until_ready(network(variables, images)), {}


def letterbox_alone(**source: Any) -> tuple[Callable, dict[str, Any]]:
    size, image = read_weights(**source)[0].input.size, vga_image()

    def run():
        matrix = geometry.letterbox_map(image.shape[1], image.shape[0], size)
        geometry.map_image(image, matrix, size)

    return run, {}


def decode_alone(**source: Any) -> tuple[Callable, dict[str, Any]]:
    config, variables = read_weights(**source)
    system = build_system(config)
    outputs = make_network(system)(variables)(network_input(config.input.size))
    options = DecodeOptions(**config.decode)

    @compile_for_prediction
    def run(outputs):
        return decode(
            outputs, grid=system.grid, representation=system.representation, options=options
        )

    return lambda: jax.device_get(run(outputs)), {}


def check_agreement(path: Path, source: dict[str, Any]) -> float:
    """The largest difference between onnxruntime's outputs and ours, of the largest output.

    Raises:
      RuntimeError: the two are different networks.
    """
    from benchmarks.onnx_models import as_onnx_input, session

    config, variables = read_weights(**source)
    images = network_input(config.input.size)
    ours = make_network(build_system(config))(variables)(images)
    theirs = session(path).run(None, {"images": as_onnx_input(images)})
    differences = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs, strict=True)]
    if not max(differences) < AGREEMENT:
        raise RuntimeError(f"onnxruntime and the network differ by {differences}")
    return float(max(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="work directory or export; else random weights")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=416, help="side of the network's input")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3, help="a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample")
    args = parser.parse_args()

    from benchmarks.onnx_models import write_network

    source = {"weights": args.weights, "width": args.width, "size": args.size}
    config, variables = read_weights(**source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_network(path, config, variables)
        del variables
        difference = check_agreement(path, source)
        contenders = {
            "onnxruntime, network": Contender(
                onnx_network, {"path": str(path), "size": config.input.size}
            ),
            "image to heads, jax": Contender(whole_way, {"runtime": "jax", **source}),
            "image to heads, onnxruntime": Contender(
                whole_way, {"runtime": "onnxruntime", **source}
            ),
            "network": Contender(network_alone, source),
            "network, as trained": Contender(network_as_trained, source),
            "letterbox": Contender(letterbox_alone, source),
            "decode": Contender(decode_alone, source),
        }
        results = measure(contenders, turns=args.turns, runs=args.runs)
    print(f"width {config.model.width}, {config.input.size} pixels, batch 1, 2 threads;")
    print(f"outputs agree with onnxruntime's within {difference:.0e} of the largest")
    print(f"heads found: {results['image to heads, jax'].facts['heads']}")
    print(table(results))
    if args.json:
        write_json(args.json, results, vars(args))


if __name__ == "__main__":
    main()
