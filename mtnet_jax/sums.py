"""`SHA256SUMS` of an exported folder: what its files were when they were written.

Most formats of weights have no checksum, and a flipped bit in them is another network. The file is
that of `sha256sum --check SHA256SUMS`. Files that lie without it are taken as they are, and so are
those inside of folders, which are noted too: an orbax folder has fingerprints of its own.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from mtnet_jax.errors import BadInput
from mtnet_jax.outputs import Outputs
from mtnet_jax.places import digest_of, files_below

SUMS = "SHA256SUMS"


def write_sums(outputs: Outputs, folder: Path, names: Iterable[str]) -> None:
    """Notes these files of a folder, and what is inside of those that are folders, beside what was
    noted before and is still there."""
    files = [file for name in names for file in _files_of(folder, name)]
    there = {name: digest for name, digest in _read(folder).items() if (folder / name).exists()}
    sums = there | {name: sha256_of(folder / name) for name in files}
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    outputs.write(folder / SUMS, "".join(lines))


def check_sum(path: Path) -> None:
    """Raises BadInput unless a file is the one that was noted, if one was."""
    noted = _read(path.parent).get(path.name)
    if noted is not None and path.is_file() and sha256_of(path) != noted:
        raise BadInput(
            f"{path} is not the file that was exported ({SUMS} beside it has another checksum): "
            "copy it or export it again; if it was changed on purpose, remove its line there."
        )


def _files_of(folder: Path, name: str) -> list[str]:
    inside = folder / name
    return [f"{name}/{file}" for file in files_below(inside)] if inside.is_dir() else [name]


def _read(folder: Path) -> dict[str, str]:
    sums = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for line in (folder / SUMS).read_text(errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            sums[name] = digest
    return sums


def sha256_of(path: Path) -> str:
    """Of a file; "" where there is none."""
    return digest_of(path) if path.exists() else ""
