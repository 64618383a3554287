"""Images -> heads in network coordinates: network, decoding, suppression in one compiled call."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from mtnet_jax.cpu import choice
from mtnet_jax.decode import DecodeOptions, decode
from mtnet_jax.heads import Heads
from mtnet_jax.network import normalise_images
from mtnet_jax.network.folding import Folded, apply_folded, fold
from mtnet_jax.system import System

# Evaluation wants the weak predictions too (average precision); images for people do not.
EVAL_SCORE_THRESHOLD = 0.01
# And products of float32 as such on every device: tables of two devices are to be compared.
EVAL_PRECISION = "highest"

# Weights -> (images (B, size, size, 3) uint8 -> Heads).
Detector = Callable[[Mapping[str, Any]], Callable[[Any], Heads]]


def make_detector(
    system: System,
    config: ConfigDict,
    score_threshold: float,
    *,
    over: Mesh | None = None,
    precision: str | None = None,
) -> Detector:
    """The way from a network's input to heads.

    Args:
      system: the network, its grid and its representation.
      config: for `config.decode`.
      score_threshold: heads of a lower score are left out.
      over, precision: see `make_network`.

    Returns:
      detector(variables), which folds the weights and returns the function images -> Heads. Both
      are compiled once, whatever weights come later; the second once for each size of batch.
    """
    options = DecodeOptions(score_threshold=score_threshold, **config.decode)

    def to_heads(outputs: list[jax.Array]) -> Heads:
        return decode(
            outputs, grid=system.grid, representation=system.representation, options=options
        )

    return make_network(system, then=to_heads, over=over, precision=precision)


def make_network(
    system: System,
    then: Callable[[list[jax.Array]], Any] = lambda outputs: outputs,
    *,
    over: Mesh | None = None,
    precision: str | None = None,
) -> Callable[[Mapping[str, Any]], Callable[[Any], Any]]:
    """As `make_detector`, with anything else made of the network's three maps.

    Args:
      system: the network.
      then: compiled together with the network.
      over: devices that share each batch, each as if its images were all; the variables must lie on
        all of them. None: one device.
      precision: of products of float32, see `jax.default_matmul_precision`; None: the device's own,
        which on TPUs is that of bfloat16, and on GPUs may be TF32.

    Returns:
      variables -> (images (B, size, size, 3) uint8 -> what `then` returns).
    """
    model, convolution = choice.fastest(system.model), choice.folded_convolution(system.model.dtype)
    prepare = jax.jit(partial(fold, model, convolution=convolution))

    def run(folded: Folded, images: jax.Array) -> Any:
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            return then(apply_folded(model, folded, normalise_images(images), convolution))

    if over is not None:
        whole, split = PartitionSpec(), PartitionSpec(over.axis_names)
        run = jax.shard_map(
            run, mesh=over, in_specs=(whole, split), out_specs=split, check_vma=False
        )
    compiled = compile_for_prediction(run)
    return lambda variables: partial(compiled, prepare(variables))


def compile_for_prediction(function: Callable) -> Callable:
    """`jax.jit` with the options that make the folded network fast on the default backend."""
    compiled = jax.jit(function, compiler_options=choice.prediction_options())

    def call(*args: Any) -> Any:
        with choice.compiling():  # the first time for each shape
            return compiled(*args)

    return call
