"""A digest of what a conversion, or a part of it, depends on: options, raw files, code.

Parts of an earlier run are used again only where the digest is the same. A difference that does not
matter costs a conversion of that part, one that is overlooked would mix two conversions; so more is
looked at than has to be.
"""

import dataclasses
import functools
import hashlib
import inspect
import os
import pickle
import stat
import sys
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib import util
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

# Source files that records may depend on: all converters, what they share with the network.
_SOURCES = (("data_prep", "**/*.py"), ("mtnet_jax", "*.py"), ("mtnet_jax", "data/*.py"))


def fingerprint(*values: Any) -> str:
    """Hexadecimal digest of any values that can be pickled.

    Paths of files count with the size and the time of change of the file (those of folders with
    their name alone), functions with the text of the file they stand in, sets without their order.
    A dataclass counts with its fields and with the paths that its method `inputs` gives, where it
    has one: files that are read for it and that no field names. Equal in every process.
    """
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()[:32]


@functools.cache
def code_fingerprint() -> str:
    """Digest of the source of this project and of the versions of NumPy and OpenCV."""
    files = [pair for source in _SOURCES for pair in source_files(*source).items()]
    digest = hashlib.sha256(f"{np.__version__} {cv2.__version__}".encode())
    for name, path in sorted(files):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def source_files(package: str, pattern: str) -> dict[str, Path]:
    """Name, wherever the package lies -> file, of its source files that follow a pattern."""
    spec = util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    return {f"{package}/{path.relative_to(folder)}": path for path in folder.glob(pattern)}


def _feed(digest: Any, value: Any) -> None:
    digest.update(type(value).__name__.encode() + b"\0")
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        _words(digest, value.dtype.str, value.shape)
        digest.update(value.tobytes())
    elif isinstance(value, bytes):
        _words(digest, len(value))
        digest.update(value)
    elif value is None or isinstance(value, str | int | float | complex):
        _words(digest, repr(value))
    elif isinstance(value, PurePath):
        _words(digest, repr(os.fspath(value)), *_file_state(value))
    elif isinstance(value, Mapping):
        _feed_all(digest, [part for pair in value.items() for part in pair])
    elif isinstance(value, Set):
        _words(digest, *sorted(fingerprint(member) for member in value))
    elif isinstance(value, Sequence):
        _feed_all(digest, value)
    elif isinstance(value, functools.partial):
        _feed_all(digest, (value.func, value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        _feed_all(digest, (value.__func__, value.__self__))
    elif isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        _words(digest, value.__module__, value.__qualname__, _source_digest(value.__module__))
    elif dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        inputs = value.inputs() if hasattr(value, "inputs") else ()
        _feed_all(digest, (type(value), *fields, *inputs))
    else:
        _words(digest, hashlib.sha256(pickle.dumps(value)).hexdigest())


def _feed_all(digest: Any, values: Iterable) -> None:
    values = list(values)
    _words(digest, len(values))
    for value in values:
        _feed(digest, value)


def _words(digest: Any, *words: Any) -> None:
    digest.update("\0".join(map(str, words)).encode("utf-8", "surrogateescape") + b"\0")


def _file_state(path: PurePath) -> tuple[int, ...]:
    """Size and time of change of a file; nothing for a folder, or where there is no file."""
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else ()


@functools.cache
def _source_digest(module: str) -> str:
    try:
        source = inspect.getsourcefile(sys.modules[module])
        return hashlib.sha256(Path(source or "").read_bytes()).hexdigest()
    except (KeyError, OSError, TypeError):
        return ""  # built in, or typed into an interpreter
