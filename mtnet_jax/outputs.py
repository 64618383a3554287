"""Files that commands write: whole or not at all, and never in place of what is not theirs.

A file is written beside its place as NAME.partial and takes its name when it is complete, so that a
full disk or a kill leaves the file of before whole. `.mtnet-made.jsonl` beside it keeps, a line a
file, what was written: name, SHA-256, command, and the input it was made of. What stands there may
be replaced by the same command, for the same input, as long as nobody has changed it since.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mtnet_jax.errors import NOT_JSON, BadInput, FileInTheWay, Unavailable
from mtnet_jax.places import digest_of

MADE = ".mtnet-made.jsonl"
PARTIAL = ".partial"
_ASIDE = ".mtnet-replaced-"  # before the name of a folder while a new one takes it
PATIENCE = 1.0  # seconds that another command may take to end a file of the same name
_NOT_EMPTIED = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Outputs:
    """What one run of a command writes."""

    def __init__(self, command: str, inputs: Iterable[str | os.PathLike] = ()):
        """Nothing is written yet.

        Args:
          command: its name, such as "predict".
          inputs: files that it reads, which are never replaced.
        """
        self._command = command
        self._inputs = {identity for path in inputs if (identity := _identity(Path(path)))}
        self._taken: dict[tuple[str, str], str] = {}  # folder and name in small letters -> input
        self._made: dict[Path, dict[str, list[dict]]] = {}  # folder -> name -> what was written
        self._written: set[Path] = set()

    def check(self, path: Path, of: str = "") -> None:
        """Raises unless a file may be written: before the work, that is, and again when it is.

        Args:
          path: the file.
          of: the input it is made of; empty where its name was asked for by the user.

        Raises:
          FileInTheWay: something stands there that this command did not make of this input.
          BadInput: an input stands there.
          Unavailable: the folder cannot be written to.
        """
        if not is_device(path):
            _check_folder(path.parent)
        elif not os.access(path, os.W_OK):
            raise Unavailable(f"{path} cannot be written to: choose another place for the output.")
        if not path.exists():
            return
        if path.is_dir() and path.name not in self._made_in(path.parent):
            raise FileInTheWay(f"{path} is a folder: name another place, or remove it.")
        if _identity(path) in self._inputs:
            raise BadInput(f"{path} is one of the inputs: choose another place for the output.")
        if not path.is_dir() and (not path.is_file() or not path.stat().st_size):
            return  # a pipe or a device; an empty file, of which nothing is lost
        made = self._made_in(path.parent).get(path.name, [])
        ours = [e["sha256"] for e in made if (e["command"], e["of"]) == (self._command, of)]
        if _digest(path) not in ours:
            fault = "was changed since it was made" if ours else "was made by something else"
            raise FileInTheWay(
                f"{path} {fault}, so `mtnet {self._command}` does not replace it: move it away, or "
                "choose another place for the output."
            )

    def made(self, path: Path) -> bool:
        """Whether this command made a file, of any input, and nobody has changed it since."""
        with contextlib.suppress(OSError):  # what cannot be read, the list too, is not known
            entries = self._made_in(path.parent).get(path.name, [])
            ours = [entry["sha256"] for entry in entries if entry["command"] == self._command]
            return bool(ours) and _digest(path) in ours
        return False

    def own_name(self, folder: Path, stem: str, suffix: str, of: str) -> Path:
        """The file of an input: STEM, or STEM_2, ... where that is of another input.

        Args:
          folder: of the file.
          stem, suffix: of the name.
          of: the input, by its full path.

        Raises:
          FileInTheWay, BadInput: see `check`.
        """
        path = next(p for p in _numbered(folder, stem, suffix) if self._is_free(p, of))
        self.check(path, of)
        return path

    def own_folder(self, out: Path, name: str, of: str) -> Path:
        """The folder of an input's files: NAME, or NAME_2, ... where that is of another input."""

        def is_free(folder: Path) -> bool:
            made = itertools.chain.from_iterable(self._made_in(folder).values())
            return self._take(folder, of) and all(entry["of"] == of for entry in made)

        return next(folder for folder in _numbered(out, name, "") if is_free(folder))

    @contextlib.contextmanager
    def writing(self, path: Path, of: str = "", *, also_cut_short: bool = False) -> Iterator[IO]:
        """A binary file to write, also readable, that takes its name when the block ends.

        Args:
          path: the file; folders on the way are made.
          of: see `check`.
          also_cut_short: take the name too when the block ends by an exception: for files that are
            valid after every entry.

        Raises:
          FileInTheWay, BadInput: see `check`.
          OSError: it cannot be written, or another command writes it now; what stood there is
            whole.
        """
        self.check(path, of)
        if is_device(path):  # which has no place beside it
            with path.open("wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        # Without a buffer what is written stands in the file, whatever ends the process.
        with _opened_alone(partial, buffering=0 if also_cut_short else -1) as (file, waited):
            whole = False
            try:
                if waited:  # what another command wrote meanwhile is its own
                    self.check(path, of)
                whole = also_cut_short
                yield file
                file.flush()
                whole = True
            finally:
                if whole and partial.exists():
                    self._put_in_place(partial, path, of)
                else:
                    partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def placing(self, path: Path, of: str = "") -> Iterator[Path]:
        """A place for a writer that wants a path, of a file or a folder; see `writing`."""
        self.check(path, of)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        _remove(partial)
        _settle(path)
        try:
            yield partial
            self._put_in_place(partial, path, of)
        finally:
            _remove(partial)

    def write(self, path: Path, content: bytes | str, of: str = "") -> None:
        """Writes a whole file; see `writing`."""
        with self.writing(path, of) as file:
            file.write(_encoded(content) if isinstance(content, str) else content)

    def remove_outdated(self, folder: Path, of: Iterable[str]) -> None:
        """Removes what earlier runs of the command made in a folder of inputs, and this one did not
        make again. What was changed since stays.

        Args:
          folder: of the files.
          of: the inputs, see `check`.
        """
        inputs = {(self._command, each) for each in of}
        for name, made in self._made_in(folder).items():
            path = folder / name
            ours = [entry["sha256"] for entry in made if (entry["command"], entry["of"]) in inputs]
            if not ours or path in self._written:  # no need to read it
                continue
            _settle(path)
            _remove(_partial(path))
            if path.exists() and _digest(path) in ours:
                _remove(path)

    def _put_in_place(self, partial: Path, path: Path, of: str) -> None:
        entry = {"file": path.name, "sha256": _digest(partial), "command": self._command, "of": of}
        # First the note, then the name: a kill in between leaves a note of what is not there.
        self._made_in(path.parent).setdefault(path.name, []).append(entry)
        with (path.parent / MADE).open("a", encoding="utf-8") as made:
            made.write(json.dumps(entry) + "\n")
        if path.is_dir():  # which nothing can replace in one go
            path.replace(_aside(path))
        partial.replace(path)
        _settle(path)
        self._written.add(path)

    def _made_in(self, folder: Path) -> dict[str, list[dict]]:
        if folder not in self._made:
            self._made[folder] = _read_made(folder)
        return self._made[folder]

    def _is_free(self, path: Path, of: str) -> bool:
        made = self._made_in(path.parent).get(path.name)
        of_another = made and path.exists() and made[-1]["of"] not in ("", of)
        return not of_another and self._take(path, of)

    def _take(self, path: Path, of: str) -> bool:
        # Names that differ in case only are one name: some file systems do not tell them apart.
        key = (os.path.realpath(path.parent), path.name.lower())
        return self._taken.setdefault(key, of) == of


class JsonLines:
    """JSON lines in a binary file: every line that stands there is whole."""

    def __init__(self, file: IO, *, rewinds: bool = True):
        """Begins in a binary file; `rewinds` is False where nothing can be written over."""
        self._file, self._rewinds = file, rewinds and file.seekable()
        self._end = file.tell() if self._rewinds else 0

    def append(self, entry: Any) -> None:
        """Adds an entry."""
        self._write(self._end, _encoded(_json(entry) + "\n"))

    def close(self) -> None:
        """Ends the lines; the file stays open."""

    def _write(self, place: int, data: bytes, restored: bytes = b"") -> None:
        """Writes at a place, all of it or, on a full disk, what stood there before."""
        if not self._rewinds:
            self._file.write(data)
            self._file.flush()
            return
        try:
            self._file.seek(place)
            _write_all(self._file, data)
        except OSError:
            self._file.seek(place)
            _write_all(self._file, restored)
            self._file.truncate()
            raise
        self._end = place + len(data)


class JsonList(JsonLines):
    """A JSON list that is valid after every entry; on a pipe, at its end."""

    def __init__(self, file: IO, *, rewinds: bool = True):
        super().__init__(file, rewinds=rewinds)
        self._empty = True
        self._write(self._end, b"[]\n" if self._rewinds else b"[")

    def append(self, entry: Any) -> None:
        """Adds an entry."""
        text = ("\n" if self._empty else ",\n") + _json(entry)
        if self._rewinds:
            ending = b"]\n" if self._empty else b"\n]\n"
            self._write(self._end - len(ending), _encoded(text) + b"\n]\n", ending)
        else:
            self._write(0, _encoded(text))
        self._empty = False

    def close(self) -> None:
        """Ends the list; the file stays open."""
        if not self._rewinds:
            self._write(0, b"]\n" if self._empty else b"\n]\n")


def _json(entry: Any) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


def _encoded(text: str) -> bytes:
    """UTF-8; what file names hold that is none is escaped, in JSON too, as Python reads it back."""
    return text.encode(errors="backslashreplace")


@contextlib.contextmanager
def _opened_alone(path: Path, *, buffering: int) -> Iterator[tuple[IO, bool]]:
    """An empty binary file that no other command writes, and whether one did until now.

    Raises:
      Unavailable: another command writes it and does not end.
    """
    end, waited = time.monotonic() + PATIENCE, False
    while True:
        file = os.fdopen(os.open(path, _NOT_EMPTIED, 0o666), "r+b", buffering)
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            if time.monotonic() > end:
                raise Unavailable(
                    f"{str(path).removesuffix(PARTIAL)} is being written by another command: wait "
                    "for it, or choose another place for the output."
                ) from None
            time.sleep(PATIENCE / 20)
        except OSError:  # a file system that has no locks
            break
        else:
            found = os.fstat(file.fileno())
            if _identity(path) == (found.st_dev, found.st_ino):
                break
            file.close()  # it took its name between the two, and is no longer the partial one
        waited = True
    with file:
        file.truncate()
        yield file, waited


def _lock(file: IO) -> None:
    """Raises BlockingIOError where another process holds the file, OSError where nothing locks."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError("no locks here") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_all(file: IO, data: bytes) -> None:
    """An unbuffered file may take a part of what it is given."""
    while data:
        data = data[file.write(data) :]


def _read_made(folder: Path) -> dict[str, list[dict]]:
    """Name -> what commands wrote under it, oldest first; a line cut short by a kill is none."""
    made: dict[str, list[dict]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for line in (folder / MADE).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(*NOT_JSON):
                entry = json.loads(line)
                made.setdefault(entry["file"], []).append(entry)
    return made


def is_device(path: Path) -> bool:
    """Whether a path is a pipe, a terminal or the like."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _check_folder(folder: Path) -> None:
    """Raises unless files can be made in a folder, which need not be there yet."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise FileInTheWay(f"{there} is a file, so nothing can be written to {folder}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Unavailable(f"{there} cannot be written to: choose another place for the output.")


def _numbered(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    number = 2
    while True:
        yield folder / f"{stem}_{number}{suffix}"
        number += 1


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder that of the names and the digests of its files."""
    if path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.is_file())
        text = "".join(f"{each.relative_to(path)} {_digest(each)}\n" for each in inside)
        return hashlib.sha256(_encoded(text)).hexdigest()
    return digest_of(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def _aside(path: Path) -> Path:
    return path.with_name(_ASIDE + path.name)


def _settle(path: Path) -> None:
    """Removes a folder that was replaced, or gives it its name back where a kill left none."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.replace(path)
    _remove(aside)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a regular file, the same for all its names; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
