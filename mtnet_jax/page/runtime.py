"""onnxruntime-web: one pinned, checksummed package of the npm registry, taken apart without npm.

It is 33 MB, of which two files are needed. They are fetched once and kept in the user's cache; a
copy of the package can be given instead where there is no network.
"""

import base64
import contextlib
import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.request
from importlib import metadata
from io import BytesIO
from pathlib import Path

from mtnet_jax.errors import BadInput, Failed, MissingFile, Unavailable

VERSION = "1.30.0"
SHA512 = (  # of the package, as the registry and lock files of npm have it
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
NAME = f"onnxruntime-web-{VERSION}.tgz"
REGISTRY = "https://registry.npmjs.org"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_FOLDER = "package/dist"  # in the package
_NOTICES = ("LICENSE", "ThirdPartyNotices.txt")  # in the Python package onnxruntime
_PATIENCE = 60.0  # seconds without a byte


def runtime_files(package: Path | None = None) -> dict[str, bytes]:
    """The script and the WebAssembly of onnxruntime-web, by file name.

    Args:
      package: a copy of the package (`npm pack onnxruntime-web@VERSION` makes one); None takes the
        one in the cache, or fetches it from the registry ($npm_config_registry, if set) into it.

    Raises:
      FileNotFoundError: `package` does not exist.
      ValueError: it is another package or damaged.
      OSError: the registry cannot be reached.
    """
    if package is not None:
        if not package.is_file():
            raise MissingFile(f"There is no file {package}.")
        return _taken_apart(package.read_bytes(), str(package))
    kept = cache_folder() / NAME
    with contextlib.suppress(OSError):  # there is none yet, or it cannot be read
        if is_genuine(data := kept.read_bytes()):
            return _taken_apart(data, str(kept))
    data = _fetched()
    files = _taken_apart(data, "what the registry sent")
    _keep(kept, data)
    return files


def licences() -> str:
    """The licence of onnxruntime and the notices of what is built into it.

    The npm package carries neither; they come from the Python package of the same project.

    Raises:
      RuntimeError: that package lacks them.
    """
    distribution = metadata.distribution("onnxruntime")
    parts = [
        f"The page runs onnxruntime-web {VERSION}. Its licence and the notices of what is built "
        f"into it, as onnxruntime {distribution.version} for Python states them:"
    ]
    for name in _NOTICES:
        file = Path(str(distribution.locate_file(f"onnxruntime/{name}")))
        if not file.is_file():
            raise Failed(
                f"The Python package onnxruntime has no {name}, which has to go with the page: "
                "install it from PyPI."
            )
        parts.append(file.read_text(encoding="utf-8-sig", errors="replace").strip())
    return "\n\n".join(parts) + "\n"


def is_genuine(package: bytes) -> bool:
    """Whether these are the bytes of the pinned package."""
    return base64.b64encode(hashlib.sha512(package).digest()).decode() == SHA512


def cache_folder() -> Path:
    """Where the package is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mtnet_jax" / "onnxruntime-web"


def _taken_apart(package: bytes, origin: str) -> dict[str, bytes]:
    if not is_genuine(package):
        raise BadInput(
            f"{origin} is not onnxruntime-web {VERSION} (its SHA-512 differs): get it again with "
            f"`npm pack onnxruntime-web@{VERSION}`."
        )
    files = {}
    with tarfile.open(fileobj=BytesIO(package)) as archive:
        for name in (SCRIPT, WASM):
            member = archive.extractfile(f"{_FOLDER}/{name}")
            assert member is not None  # the checksum says what is inside
            files[name] = member.read()
    return files


def _fetched() -> bytes:
    # npm's own variable for a mirror.
    registry = (os.environ.get("npm_config_registry") or REGISTRY).rstrip("/")  # noqa: SIM112
    address = f"{registry}/onnxruntime-web/-/{NAME}"
    print(f"fetching {address} (33 MB, once)")
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as response:
            return response.read()
    # HTTPException: it broke off; ValueError: a registry that is no address.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"{address} cannot be fetched ({error}). Where there is no network, give the package "
            f"with --onnxruntime-web FILE; `npm pack onnxruntime-web@{VERSION}` makes it elsewhere."
        ) from error


def _keep(path: Path, data: bytes) -> None:
    """Keeps the package, if it can be: the page needs it now, the cache only the next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            part.write_bytes(data)
            part.replace(path)
    except OSError as error:
        print(
            f"{path} cannot be kept ({error}), so the next page fetches it again: name another "
            "place in $XDG_CACHE_HOME.",
            file=sys.stderr,
        )
