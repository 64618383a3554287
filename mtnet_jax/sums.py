"""`SHA256SUMS` of an exported folder: what its files were when they were written.

Most formats of weights have no checksum, and a flipped bit in them is another network. The file is
that of `sha256sum --check SHA256SUMS`. Files that lie without it are taken as they are.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from mtnet_jax.errors import BadInput
from mtnet_jax.outputs import Outputs
from mtnet_jax.places import digest_of

SUMS = "SHA256SUMS"


def write_sums(outputs: Outputs, folder: Path, names: Iterable[str]) -> None:
    """Notes these files of a folder, beside others that were noted before and are still there."""
    there = {name: digest for name, digest in _read(folder).items() if (folder / name).exists()}
    sums = there | {name: sha256_of(folder / name) for name in names}
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
