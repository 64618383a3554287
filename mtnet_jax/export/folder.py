"""An exported folder: configuration, weights, and a file for each format that is asked for."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from mtnet_jax.export.formats import FORMATS
from mtnet_jax.export.graph import require
from mtnet_jax.export.metadata import sha256_of
from mtnet_jax.weights import export_weights, load_weights


def export(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    *,
    formats: Sequence[str] = (),
    half: bool = False,
    size: int | None = None,
    license: str = "",
) -> list[Path]:
    """Writes an exported folder: config.json, weights.npz, and a file for each format.

    Args:
      workdir: of `mtnet train`, or an exported folder.
      out: folder to write; made where it does not exist.
      formats: names in `FORMATS`.
      half: see `mtnet_jax.weights.write_weights`; the other formats hold the rounded numbers.
      size: side of the network's input in pixels; None: as trained.
      license: of the weights; it is said in every file.

    Returns:
      The files.

    Raises:
      RuntimeError: a package that a format needs is missing; nothing is written then.
      ValueError: `out` is the work directory, a size that no network takes, a parameter that
        float16 cannot hold.
    """
    for name in formats:
        require(FORMATS[name].needs)
    written = [export_weights(workdir, out, half=half, size=size)]
    stated = {"weights_sha256": sha256_of(written[0]), "license": license}
    config, variables = load_weights(out)  # as `half` rounded them
    for name in formats:
        written.append(Path(out) / FORMATS[name].file)
        writer = importlib.import_module(FORMATS[name].module)
        writer.write(written[-1], config, variables, **stated)
    return written
