"""Numbers that tell whether stored arrays are still what they were.

Formats of arrays compress, and a flipped bit in compressed data can decompress to other numbers
without a word. A fingerprint is taken of the values themselves, on the devices that hold them, and
is the same however they are sharded and stored.
"""

import json
import zlib
from typing import Any

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.errors import BadInput

_CHECKSUM = "checksum"
_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # bytes of a value -> its bits as a number


def fingerprint(tree: Any) -> int:
    """A number of 32 bits for the values of a tree of arrays and their paths.

    Any change of one value gives another number; one of several does but for one case in 2^32.
    """
    return int(_fingerprint(tree))


@jax.jit
def _fingerprint(tree: Any) -> jax.Array:
    total = jnp.uint32(0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = zlib.crc32(jax.tree_util.keystr(path).encode())
        total += _of_array(leaf) * np.uint32(name | 1)  # odd: no bit of the factor is lost
    return total


def _of_array(array: jax.Array) -> jax.Array:
    """Sum of the values' bits, each with the place mixed in and times an odd number of it."""
    array = array.astype(jnp.uint8) if array.dtype == jnp.bool_ else array
    bits = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = (bits ^ (place * np.uint32(0x9E3779B1))) * (2 * place + 1)
    return (mixed ^ (mixed >> 15)).sum(dtype=jnp.uint32)


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Metadata (what JSON holds) with a checksum of them."""
    return {**values, _CHECKSUM: _checksum(values)}


def unsealed(values: dict[str, Any]) -> dict[str, Any]:
    """Metadata without their checksum; those of before there was one are taken as they are.

    Raises:
      BadInput: they do not match it.
    """
    content = {name: value for name, value in values.items() if name != _CHECKSUM}
    if _CHECKSUM in values and values[_CHECKSUM] != _checksum(content):
        raise BadInput("its metadata do not match their checksum")
    return content


def _checksum(values: dict[str, Any]) -> int:
    return google_crc32c.value(json.dumps(values, sort_keys=True).encode())
