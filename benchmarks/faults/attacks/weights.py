"""Weights and configurations: pickles, bombs, names that lead outside."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.attacks.attack import EXECUTED, Attack, Payload, deep_list


def _small_config(folder: Path, **changes: Any) -> None:
    from mtnet_jax.config import default_config
    from mtnet_jax.saved_config import write_config

    config = default_config()
    config.model.width = config.model.depth = 0.01
    config.input.size = 64
    for name, value in changes.items():
        config.model[name] = value
    write_config(folder, config)


def _pickled_npz(folder: Path) -> None:
    _small_config(folder)
    objects = np.array([Payload(folder.parents[1] / EXECUTED)], object)
    np.savez(folder / "weights.npz", **{"params/backbone": objects}, allow_pickle=True)


def _npz_of(folder: Path, name: str, header: str, zeros: int = 0) -> None:
    _small_config(folder)
    begin = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    path, kind = folder / "weights.npz", zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        file.write(begin)
        for _ in range(zeros >> 20):
            file.write(bytes(1 << 20))


def _npz_bomb(folder: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (536870912,)}\n"
    _npz_of(folder, "params/backbone.npy", header, zeros=2 << 30)


def _npz_header(folder: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"
    _npz_of(folder, "params/backbone.npy", header)


def _npz_outside(folder: Path) -> None:
    _npz_of(folder, "../../x.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}\n")


def _safetensors(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def _deep_config(folder: Path) -> None:
    (folder / "config.json").write_text(f'{{"input": {deep_list()}}}')


def _wide_config(folder: Path) -> None:
    _small_config(folder, width=1e9)
    np.savez(folder / "weights.npz")


def _weights(folder: Path) -> Any:
    from mtnet_jax.weights import load_weights

    return load_weights(folder)[0].model


def _safetensors_weights(folder: Path) -> Any:
    from mtnet_jax.weights import load_weights

    return load_weights(folder / "weights.safetensors")[0].model


ATTACKS = [
    Attack("npz with a pickle", _pickled_npz, _weights),
    Attack("npz of 2 GB of zeros in 10 MB", _npz_bomb, _weights),
    Attack("npz with a header of 10^12 values", _npz_header, _weights),
    Attack("npz with a member ../../x", _npz_outside, _weights),
    Attack("safetensors with a header of 2^62 bytes", _safetensors, _safetensors_weights),
    Attack("config.json 200,000 lists deep", _deep_config, _weights),
    Attack("config.json that asks for a layer of 10^9 channels", _wide_config, _weights),
]
