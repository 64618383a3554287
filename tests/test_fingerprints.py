"""Damage of stored values that their formats let pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.errors import BadInput
from mtnet_jax.fingerprints import fingerprint, sealed, unsealed


def a_tree() -> dict:
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
        "count": jnp.int32(12),
        "flag": jnp.array([True, False]),
        "empty": jnp.zeros((0, 4)),
    }


def slow_fingerprint(tree: dict) -> int:
    """The same number, one value after the other in whole numbers of Python."""
    import zlib

    total, mask = 0, 2**32 - 1
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        words = array.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize])
        for place, word in enumerate(words.ravel().tolist()):
            mixed = ((word ^ (place * 0x9E3779B1 & mask)) * (2 * place + 1)) & mask
            factor = zlib.crc32(jax.tree_util.keystr(path).encode()) | 1
            total += (mixed ^ (mixed >> 15)) * factor
    return total & mask


def test_it_is_the_slow_one():
    assert fingerprint(a_tree()) == slow_fingerprint(a_tree())


@pytest.mark.parametrize("name", ["kernel", "half", "count", "flag"])
def test_every_flipped_bit_changes_it(name):
    tree = a_tree()
    before = fingerprint(tree)
    whole = np.asarray(tree[name])
    bits = 1 if whole.dtype == bool else 8
    for byte in range(whole.nbytes):
        for bit in range(bits):
            damaged = bytearray(whole.tobytes())
            damaged[byte] ^= 1 << bit
            array = np.frombuffer(bytes(damaged), whole.dtype).reshape(whole.shape)
            assert fingerprint({**tree, name: jnp.asarray(array)}) != before


def test_what_changed_places_changes_it():
    tree = a_tree()
    turned = {**tree, "kernel": tree["kernel"].transpose(1, 0, 2, 3)}
    renamed = {("kernel2" if name == "kernel" else name): leaf for name, leaf in tree.items()}
    assert len({fingerprint(tree), fingerprint(turned), fingerprint(renamed)}) == 3


def test_a_seal():
    values = {"step": 3, "data": {"next": [1, 2], "name": "ü"}, "none": None}
    assert unsealed(sealed(values)) == values
    assert unsealed(values) == values  # written before there were seals
    with pytest.raises(BadInput, match="checksum"):
        unsealed({**sealed(values), "step": 4})
