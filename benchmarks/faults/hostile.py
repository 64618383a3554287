"""Files made to do harm: bounded memory, nothing executed, nothing written outside.

Each is given to what reads such files, in a process that may use a limited address space and time.
It must be refused with an error for the user (or be read as what it is); a marker shows what was
executed, and a folder around the work shows what was written outside.
"""

import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults import children
from mtnet_jax.data.index import MAGIC, index_path
from mtnet_jax.data.tfrecord import frame, masked_crc32c, write_records
from mtnet_jax.errors import MtnetError

MOST_MEMORY = 1 << 30  # bytes beyond what a process begins with
_EXECUTED = "executed"  # the file that hostile code would write


class Attack(NamedTuple):
    """A hostile file and its reader."""

    name: str
    write: Callable[[Path], Any]  # into a folder
    read: Callable[[Path], Any]  # from that folder


def hostile(folder: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Reads every hostile file once (count and rng are of the other campaigns)."""
    del count, rng
    tried, faults = attacks(), 0
    for attack in tried:
        around = folder / "hostile"
        shutil.rmtree(around, ignore_errors=True)
        work = around / "a" / "work"
        work.mkdir(parents=True)
        attack.write(work)
        try:
            outcome, megabytes = children.in_child(_suffer, attack.read, work)
        except RuntimeError as error:
            outcome, megabytes = str(error), 0
        outside = [p for p in around.rglob("*") if p.is_file() and work not in p.parents]
        if (around / _EXECUTED).exists() or outside or not outcome.startswith(("refused", "read")):
            faults += 1
            yield f"FAULT: {attack.name}: {outcome}; outside: {outside}"
        else:
            yield f"{attack.name}: {outcome} (+{megabytes} MB)"
    yield f"hostile files: {len(tried)}, of which {faults} did harm"


def _suffer(read: Callable[[Path], Any], work: Path) -> tuple[str, int]:
    """What reading comes to, and by how many MB the process grew."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.environ["HOME"] = str(work)
    try:
        outcome = f"read as {read(work)}"
    except MtnetError as error:
        outcome = f"refused: {str(error).replace(str(work), '')[:110]}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return outcome, grown // 1024


class _Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, marker: Path):
        self._marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self._marker}",)


def attacks() -> list[Attack]:
    """All of them."""
    images = [
        Attack("PNG of 60,000 x 60,000", _png(60_000, 60_000), _image),
        Attack("PNG of 2^31 x 2^31", _png(2**31 - 1, 2**31 - 1), _image),
        Attack("PNG of 1.2 GB of zeros in 6 MB", _png(20_000, 20_000, real=True), _image),
        Attack("JPEG of 65,500 x 65,500", _jpeg_header, _image),
        Attack("TIFF of 2^31 x 2^31", _tiff, _image),
    ]
    weights = [
        Attack("npz with a pickle", _pickled_npz, _weights),
        Attack("npz of 2 GB of zeros in 10 MB", _npz_bomb, _weights),
        Attack("npz with a header of 10^12 values", _npz_header, _weights),
        Attack("npz with a member ../../x", _npz_outside, _weights),
        Attack("safetensors with a header of 2^62 bytes", _safetensors, _safetensors_weights),
        Attack("config.json 200,000 lists deep", _deep_config, _weights),
        Attack("config.json that asks for a layer of 10^9 channels", _wide_config, _weights),
    ]
    records = [
        Attack("index of 10^12 records", _huge_index, _records),
        Attack("index whose header is 200,000 lists deep", _deep_index, _records),
        Attack("record of 2^62 bytes with a good checksum", _huge_record, _records),
        Attack("dataset_info.json 200,000 lists deep", _deep_info, _records),
        Attack("record set of the name ../../x", _named_outside, _records),
        Attack("image_id ../../x", _id_outside, _extract),
    ]
    labels = [
        Attack(".mat with a pickled object and a function", _mat, _faces),
        Attack(".mat of 1.5 GB of zeros in 7 MB", _mat_bomb, _faces),
        Attack("COCO json 200,000 lists deep", _deep_coco, _coco),
        Attack("YAML that makes Python objects", _yaml_object, _yolo),
        Attack("YAML of a billion laughs", _yaml_laughs, _yolo),
        Attack("YAML 20,000 lists deep", _yaml_deep, _yolo),
        Attack("a pickle among the parts of a conversion", _part, _convert),
    ]
    return [*images, *weights, *records, *labels]


# --- images --------------------------------------------------------------------------------------


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def _png(width: int, height: int, *, real: bool = False) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        pixels = zlib.compress(b"\0")
        if real:
            packer = zlib.compressobj(1)
            row = bytes(1 + 3 * width)
            pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
        (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

    return write


def _jpeg_header(folder: Path) -> None:
    import cv2

    small = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    place = small.index(b"\xff\xc0")
    small[place + 5 : place + 9] = struct.pack(">HH", 65_500, 65_500)
    (folder / "image.jpg").write_bytes(small)


def _tiff(folder: Path) -> None:
    sides = [(256, 4, 2**31 - 1), (257, 4, 2**31 - 1), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries = sorted([*sides, (273, 4, 8), (277, 3, 1), (278, 4, 2**31 - 1), (279, 4, 16)])
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    header = b"II*\0" + struct.pack("<I", 24) + bytes(16)
    (folder / "image.tif").write_bytes(header + body + bytes(4))


def _image(folder: Path) -> Any:
    from mtnet_jax.data.images import decode_image

    (path,) = folder.glob("image.*")
    return decode_image(path.read_bytes()).shape


# --- weights -------------------------------------------------------------------------------------


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
    objects = np.array([_Payload(folder.parents[1] / _EXECUTED)], object)
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


def _deep(depth: int = 200_000) -> str:
    return "[" * depth + "]" * depth


def _deep_config(folder: Path) -> None:
    (folder / "config.json").write_text(f'{{"input": {_deep()}}}')


def _wide_config(folder: Path) -> None:
    _small_config(folder, width=1e9)
    np.savez(folder / "weights.npz")


def _weights(folder: Path) -> Any:
    from mtnet_jax.weights import load_weights

    return load_weights(folder)[0].model


def _safetensors_weights(folder: Path) -> Any:
    from mtnet_jax.weights import load_weights

    return load_weights(folder / "weights.safetensors")[0].model


# --- record sets ---------------------------------------------------------------------------------


def _set(folder: Path, *, name: str = "tiny", image_id: str = "image 0") -> Path:
    """A record set of one record; returns its shard."""
    import cv2

    from mtnet_jax.data.example import encode_record
    from mtnet_jax.data.index import encode_index

    record: dict[str, Any] = {
        "image": cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(),
        "image_id": image_id,
        "source": "hostile",
        "boxes": np.array([[0, 0, 4, 4]], np.float32),
        "rotations": np.eye(3, dtype=np.float32)[None],
        "intrinsics": np.zeros(4, np.float32),
        "headings": np.zeros(1, np.float32),
        "labels": np.zeros(1, np.int32),
    } | {flag: np.zeros(1, bool) for flag in ("has_pose", "ignore", "has_heading")}
    data = encode_record(record)
    info = {"name": name, "version": "1.0.0", "splits": [{"name": "a", "shardLengths": ["1"]}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "metadata.json").write_text('{"box_rule": "head", "label_names": ["head"]}')
    shard = folder / f"{name}-a.tfrecord-00000-of-00001"
    if shard.parent == folder:
        write_records(shard, [data])
        lengths = np.array([len(data)])
        index_path(folder, name, "a").write_bytes(encode_index([(shard.name, lengths)]))
    return shard


def _index_of(folder: Path, head: str) -> None:
    _set(folder)
    content = MAGIC + head.encode() + b"\n"
    content += struct.pack("<I", masked_crc32c(content))
    index_path(folder, "tiny", "a").write_bytes(content)


def _huge_index(folder: Path) -> None:
    shard = "tiny-a.tfrecord-00000-of-00001"
    _index_of(folder, json.dumps({"shards": [[shard, 10**12, 10**12]]}))


def _deep_index(folder: Path) -> None:
    _index_of(folder, f'{{"shards": {_deep()}}}')


def _huge_record(folder: Path) -> None:
    shard = _set(folder)
    index_path(folder, "tiny", "a").unlink()
    length = struct.pack("<Q", 2**62)
    shard.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + frame(b"")[12:])


def _deep_info(folder: Path) -> None:
    _set(folder)
    (folder / "dataset_info.json").write_text(_deep())


def _named_outside(folder: Path) -> None:
    _set(folder, name="../../x")


def _id_outside(folder: Path) -> None:
    _set(folder, image_id="../../x")


def _records(folder: Path) -> Any:
    from mtnet_jax.data.records import RecordSource

    return RecordSource(folder, "a")[0]["image"].shape


def _extract(folder: Path) -> Any:
    from mtnet_jax.inspection.extract import write_images

    return write_images(str(folder), folder / "images")


# --- labels --------------------------------------------------------------------------------------


def _mat(folder: Path) -> None:
    import scipy.io

    payload = np.frombuffer(pickle.dumps(_Payload(folder.parents[1] / _EXECUTED)), np.uint8)
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
    (folder / "train.json").write_text(f'{{"images": {_deep()}}}')


def _coco(folder: Path) -> Any:
    return _converted(["coco", "--raw", str(folder), "--split", "train=train.json"], folder)


def _yaml_of(folder: Path, text: str) -> None:
    for kind in ("images", "labels"):
        (folder / "train" / kind).mkdir(parents=True)
    (folder / "data.yaml").write_text(text)


def _yaml_object(folder: Path) -> None:
    marker = folder.parents[1] / _EXECUTED
    _yaml_of(folder, f"names: !!python/object/apply:os.system ['touch {marker}']\n")


def _yaml_laughs(folder: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    _yaml_of(folder, "\n".join([*lines, "names: *a11\n"]))


def _yaml_deep(folder: Path) -> None:
    _yaml_of(folder, f"names: {_deep(20_000)}\n")


def _yolo(folder: Path) -> Any:
    return _converted(["yolo", "--raw", str(folder)], folder)


def _part(folder: Path) -> None:
    from benchmarks.faults.kills import raw_images

    raw_images(folder / "raw", count=2)
    parts = folder / ".records.parts"
    parts.mkdir()
    payload = pickle.dumps(_Payload(folder.parents[1] / _EXECUTED))
    for number in range(4):
        (parts / f"{number:06d}.pickle").write_bytes(payload)
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
