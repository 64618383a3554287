"""Images to heads as StableHLO by `jax.export`: one file for cpu, cuda and tpu, any batch.

It runs with jax alone, without this package, and in later versions of jax:

    heads = jax.jit(jax.export.deserialize(open("heads.stablehlo", "rb").read()).call)
    found = heads(images, score_threshold, iou_threshold)
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from ml_collections import ConfigDict

from mtnet_jax.anchors import flatten_outputs
from mtnet_jax.decode import DecodeOptions, decode_flat
from mtnet_jax.export.horn import nearest_rotation
from mtnet_jax.network import normalise_images
from mtnet_jax.network.folding import apply_folded, fold
from mtnet_jax.system import System, build_system

PLATFORMS = ("cpu", "cuda", "tpu")
# By themselves TPUs multiply float32 in bfloat16 and GPUs in TF32: heads would not be those of a
# CPU, or of another format. What is lowered here states its precision.
PRECISION = "highest"


def write(path: Path, config: ConfigDict, variables: dict[str, Any], **stated: str) -> None:
    """Writes (images, score_threshold, iou_threshold) -> a dict of the fields of `Heads`.

    Images are (batch, size, size, 3) uint8, letterboxed; the thresholds float32 scalars. What the
    file is made of is said beside it: the format has no metadata.
    """
    del stated
    size = config.input.size
    batch = export.symbolic_shape(f"batch, {size}, {size}, 3")
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    exported = export.export(jax.jit(_find_heads(config, variables)), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(batch, jnp.uint8), scalar, scalar
    )
    path.write_bytes(exported.serialize())


def _find_heads(config: ConfigDict, variables: dict[str, Any]) -> Any:
    system = _without_svd(build_system(config))
    model = system.model.clone(dtype=jnp.float32, remat="none")
    folded = fold(model, variables)

    def find_heads(images: jax.Array, score: jax.Array, iou: jax.Array) -> dict[str, jax.Array]:
        options = DecodeOptions(**{**config.decode, "score_threshold": score, "iou_threshold": iou})
        with jax.default_matmul_precision(PRECISION):
            raw = flatten_outputs(apply_folded(model, folded, normalise_images(images)))
            heads = decode_flat(
                raw, grid=system.grid, representation=system.representation, options=options
            )
        return heads._asdict()  # a NamedTuple would ask the reader for its class

    return find_heads


def _without_svd(system: System) -> System:
    """Each platform has another SVD, and not all of them can be exported."""
    if system.representation.size != 9:
        return system
    return system._replace(representation=system.representation._replace(decode=nearest_rotation))
