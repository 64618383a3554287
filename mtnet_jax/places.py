"""Places of files: a folder of this machine, or an address such as gs://bucket/records.

An address is whatever fsspec opens (gs://, s3://, abfs://, https://, memory://, ...). A place here
is a `pathlib.Path`, one elsewhere a `upath.UPath`, which has the same methods. Record sets are read
where they lie, in ranges. What programs write or load as files (work directories, exports, weights)
is worked on in a copy here, and the copy is kept the same as the place.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mtnet_jax.errors import BadInput, Failed, MissingFile, MtnetError

if TYPE_CHECKING:
    from upath import UPath

    Address: TypeAlias = UPath
    Place: TypeAlias = Path | UPath
else:  # loaded where there is an address
    Address = Place = Any

_COPIES_AT_ONCE = 16  # files: each waits for the network more than it works
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "abfs": "adlfs", "az": "adlfs"}


def is_address(path: Any) -> bool:
    """Whether a path is an address: it lies elsewhere, and not in a file system of this machine."""
    return "://" in str(path) and not isinstance(path, Path)


def place(path: Any) -> Place:
    """The place that a text or a path names.

    Raises:
      Failed: the package that opens such addresses is not installed.
      BadInput: an address of no known kind.
    """
    if not is_address(path):
        return Path(path)
    from upath import UPath

    if isinstance(path, UPath):
        return path
    kind, _, rest = path.partition("://")
    if kind == "file":
        return Path(rest)
    try:
        found = UPath(path)
        _ = found.fs  # opens what the address needs
        return found
    except ImportError as error:
        package = _DRIVERS.get(kind, "")
        cure = f": pip install {package}" if package else ""
        raise Failed(f"{path} needs a package that is not installed ({error}){cure}") from error
    except ValueError as error:
        raise BadInput(f"{path} is no address that can be opened: {error}") from error


def place_argument(text: str) -> Place:
    """`place` as the type of an option: a folder or file, or an address (gs://bucket/folder)."""
    try:
        return place(text)
    except MtnetError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def sizes_of_files(folder: Place) -> dict[str, int]:
    """Name -> bytes of the files in a folder, by one look at it; none where there is no folder."""
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
    try:
        entries = folder.fs.ls(folder.path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {
        entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"])
        for entry in entries
        if entry["type"] == "file"
    }


def write_whole(path: Place, content: bytes) -> None:
    """Writes a file that takes its name when it is complete (an object has no half of itself).

    Several processes, of several hosts too, may write the same one: the last to end has it.
    """
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def fetched(path: Any) -> Iterator[Path]:
    """A file or folder to read here: itself, or for an address a copy that goes with the block.

    Raises:
      MissingFile: nothing at the address.
    """
    source = place(path)
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mtnet-") as temporary:
        local = Path(temporary) / (source.name or "copy")
        if source.is_file():
            local.write_bytes(source.read_bytes())
        else:
            copy_here(source, local)
            if not local.is_dir():
                raise MissingFile(f"There is nothing at {source}.")
        yield local


@contextlib.contextmanager
def published(path: Any) -> Iterator[Path]:
    """A folder to write: itself, or for an address a copy whose changes go there at the end.

    They go there only if the block ends without an exception.
    """
    target = place(path)
    if isinstance(target, Path):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="mtnet-") as temporary:
        local = Path(temporary) / (target.name or "copy")
        copy_here(target, local)
        before = {name: digest_of(local / name) for name in files_below(local)}
        yield local
        there = files_below(local)
        copy_there(local, target, [n for n in there if before.get(n) != digest_of(local / n)])
        for name in set(before) - set(there):
            (target / name).unlink(missing_ok=True)


def copy_here(source: Address, folder: Path, names: Iterable[str] | None = None) -> None:
    """Copies files below an address into a folder: all of them, or those of these relative names.

    Raises:
      BadInput: a name that leads out of the folder.
    """
    wanted = list(addresses_below(source) if names is None else names)
    for name in wanted:
        if not inside(name):
            raise BadInput(f"{source} lists a file {name!r}, which leads out of the folder.")

    def copy(name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with (source / name).open("rb") as remote, partial.open("wb") as file:
            shutil.copyfileobj(remote, file, 1 << 20)
        partial.replace(path)

    _for_each(copy, wanted)


def copy_there(folder: Path, target: Address, names: Iterable[str]) -> None:
    """Copies files of a folder, by relative names, to an address."""

    def copy(name: str) -> None:
        remote = target / name
        remote.parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("rb") as file, remote.open("wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)

    _for_each(copy, list(names))


def addresses_below(source: Address) -> list[str]:
    """Relative names of all files below an address, in order."""
    try:
        found = source.fs.find(source.path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    root = source.path.rstrip("/") + "/"
    return sorted(name.removeprefix(root) for name in found if name.startswith(root))


def files_below(folder: Path) -> list[str]:
    """Relative names of all files below a folder, in order; folders may vanish meanwhile."""
    below = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sorted(path.relative_to(folder).as_posix() for path in below)


def inside(name: str) -> bool:
    """Whether a relative name stays in the folder that it is joined to."""
    return not name.startswith(("/", "\\")) and ".." not in name.replace("\\", "/").split("/")


def _for_each(function: Any, names: list[str]) -> None:
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        for _ in pool.map(function, names):
            pass


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
