"""Labels of raw data sets, and parts of conversions: code to execute, bombs, depths."""

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.attacks.attack import EXECUTED, Attack, Payload, deep_list
from mtnet_jax.data.tfrecord import frame
from mtnet_jax.errors import MtnetError


def _mat(folder: Path) -> None:
    import scipy.io

    payload = np.frombuffer(pickle.dumps(Payload(folder.parents[1] / EXECUTED)), np.uint8)
    content = {"Pose_Para": np.array([{"x": payload}], object), "__function_workspace__": payload}
    scipy.io.savemat(folder / "face.mat", content)


def _mat_bomb(folder: Path) -> None:
    size = 3 << 29
    packer = zlib.compressobj(1)
    flags = struct.pack("<IIII", 6, 8, 9, 0)  # an array of bytes
    sides = struct.pack("<IIii", 5, 8, 1, size // 8 - 1)
    name = struct.pack("<II", 1, 9) + b"Pose_Para".ljust(16, b"\0")
    data = struct.pack("<II", 9, (size - 8) & 0xFFFFFFFF)
    head = flags + sides + name + data
    body = [packer.compress(struct.pack("<II", 14, (len(head) + size - 8) & 0xFFFFFFFF) + head)]
    body += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)] + [packer.flush()]
    packed = b"".join(body)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    (folder / "face.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)


def _faces(folder: Path) -> Any:
    from data_prep.sets.mat_faces import read_face

    return read_face(folder / "face.mat").angles


def _deep_coco(folder: Path) -> None:
    (folder / "train.json").write_text(f'{{"images": {deep_list()}}}')


def _coco(folder: Path) -> Any:
    return _converted(["coco", "--raw", str(folder), "--split", "train=train.json"], folder)


def _yaml_of(folder: Path, text: str) -> None:
    for kind in ("images", "labels"):
        (folder / "train" / kind).mkdir(parents=True)
    (folder / "data.yaml").write_text(text)


def _yaml_object(folder: Path) -> None:
    marker = folder.parents[1] / EXECUTED
    _yaml_of(folder, f"names: !!python/object/apply:os.system ['touch {marker}']\n")


def _yaml_laughs(folder: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    _yaml_of(folder, "\n".join([*lines, "names: *a11\n"]))


def _yaml_deep(folder: Path) -> None:
    _yaml_of(folder, f"names: {deep_list(20_000)}\n")


def _yolo(folder: Path) -> Any:
    return _converted(["yolo", "--raw", str(folder)], folder)


def _part(folder: Path) -> None:
    from benchmarks.faults.kills import raw_images

    raw_images(folder / "raw", count=2)
    parts = folder / ".records.parts"
    parts.mkdir()
    payload = pickle.dumps(Payload(folder.parents[1] / EXECUTED))
    for number in range(4):
        (parts / f"{number:06d}.pickle").write_bytes(frame(payload))
        (parts / f"{number:06d}.tfrecord").write_bytes(b"")


def _convert(folder: Path) -> Any:
    return _converted(["csv", "--raw", str(folder / "raw")], folder)


def _converted(arguments: list[str], folder: Path) -> str:
    """Converts in this process; a refusal is raised as what a user would see."""
    from contextlib import redirect_stderr, redirect_stdout

    from mtnet_jax.cli import main

    said = io.StringIO()
    command = ["data", "convert", *arguments, "--processes", "1", "--out", str(folder / "records")]
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(command)
    if code:
        raise MtnetError(said.getvalue().strip().splitlines()[-1])
    return "a record set"


ATTACKS = [
    Attack(".mat with a pickled object and a function", _mat, _faces),
    Attack(".mat of 1.5 GB of zeros in 7 MB", _mat_bomb, _faces),
    Attack("COCO json 200,000 lists deep", _deep_coco, _coco),
    Attack("YAML that makes Python objects", _yaml_object, _yolo),
    Attack("YAML of a billion laughs", _yaml_laughs, _yolo),
    Attack("YAML 20,000 lists deep", _yaml_deep, _yolo),
    Attack("a pickle among the parts of a conversion", _part, _convert),
]
