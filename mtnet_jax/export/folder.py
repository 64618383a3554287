"""An exported folder: configuration, weights, a model card, and a file for each format."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput
from mtnet_jax.export.card import CARD, card, evaluations_of, license_in
from mtnet_jax.export.formats import CALIBRATED, FORMATS
from mtnet_jax.export.graph import require
from mtnet_jax.export.metadata import LICENSE_KEY, NOT_STATED
from mtnet_jax.outputs import Outputs
from mtnet_jax.run_metrics import LAST, Step
from mtnet_jax.saved_config import CONFIG, WEIGHTS, read_config
from mtnet_jax.sums import sha256_of, write_sums
from mtnet_jax.weights import export_weights, load_weights, metadata_of


def export(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    formats: Sequence[str] = (),
    half: bool = False,
    size: int | None = None,
    step: Step = LAST,
    license: str = "",
    calibration: Sequence[np.ndarray] = (),
) -> list[Path]:
    """Writes an exported folder: config.json, weights.npz, README.md, a file for each format.

    Files of other formats that lie there from an earlier export stay if that was of the same
    weights, configuration and licence, and go if not.

    Args:
      source: weights in any form that `mtnet_jax.weights.load_weights` reads.
      out: folder to write; made where it does not exist.
      formats: names in `FORMATS`.
      half: see `mtnet_jax.weights.write_weights`; the other formats hold the rounded numbers.
      size: side of the network's input in pixels; None: as trained.
      step: which checkpoint of a work directory, see `mtnet_jax.weights.load_step`.
      license: of the weights; it is said in the card, and in the files of other programs that have
        metadata. Empty: what an earlier export of the same weights to `out` said, or else what the
        source says.
      calibration: inputs (side, side, 3) uint8 of the network, for 8 bits.

    Returns:
      What was written beside config.json and the card.

    Raises:
      RuntimeError: a package that a format needs is missing; nothing is written then.
      ValueError: `out` is the source, a size that no network takes, a parameter that float16 cannot
        hold, no images to calibrate with.
    """
    for name in formats:
        require(FORMATS[name].needs, FORMATS[name].extra)
    if CALIBRATED in formats and not len(calibration):
        raise BadInput(f"The format {CALIBRATED} needs images to calibrate with: give --images.")
    source, out, outputs = Path(source), Path(out), Outputs("export")
    for file in (CARD, *(FORMATS[name].file for name in formats)):
        outputs.check(out / file)  # before the work
    before, said = _state(out), _license_in_export(out)
    arrays, number = export_weights(source, out, half=half, size=size, step=step, outputs=outputs)
    written = [arrays]
    same = before == _state(out)
    license = license or (said if same else "") or _license_of(source)
    if not same or (said or "") != license:
        # At once: if what follows is cut short, the next export would take them for its own.
        outputs.remove_outdated(out, [""])
        write_sums(outputs, out, ())  # without what is gone
    stated = {"weights_sha256": sha256_of(arrays), "license": license}
    config, variables = load_weights(out)  # as `half` rounded them
    for name in formats:
        written.append(out / FORMATS[name].file)
        writer = importlib.import_module(FORMATS[name].module)
        options = {"calibration": calibration} if name == CALIBRATED else {}
        with outputs.placing(written[-1]) as partial:
            writer.write(partial, config, variables, **options, **stated)
        write_sums(outputs, out, [FORMATS[name].file])  # whatever becomes of the next one
    evaluations = evaluations_of(source, number, config.input.size)
    there = [name for name, form in FORMATS.items() if (out / form.file).exists()]
    outputs.write(out / CARD, _card_of(source, config, license, there, evaluations))
    return written


def _state(folder: Path) -> tuple[str, str]:
    """What the files of an exported folder are made of: equal for equal heads."""
    return sha256_of(folder / WEIGHTS), sha256_of(folder / CONFIG)


def _license_in_export(folder: Path) -> str | None:
    """The licence that an exported folder has, by its card, or, without one, by its files; None
    where they do not say either."""
    said = license_in(folder)
    for form in FORMATS.values() if said is None else ():
        stated = metadata_of(folder / form.file) if (folder / form.file).exists() else {}
        if LICENSE_KEY in stated:
            return "" if stated[LICENSE_KEY] == NOT_STATED else stated[LICENSE_KEY]
    return said


def _license_of(source: Path) -> str:
    """The licence that weights say they have, "" where they say none."""
    said = metadata_of(source).get(LICENSE_KEY, NOT_STATED)
    return (license_in(source) or "") if said == NOT_STATED else said


def _card_of(
    source: Path,
    config: ConfigDict,
    license: str,
    formats: Sequence[str],
    evaluations: Mapping[str, str],
) -> str:
    trained = (read_config(source) if (source / CONFIG).exists() else None) or {}
    how = {name: trained.get(name, {}) for name in ("data", "init")}
    described = ConfigDict({**config.to_dict(), **how})
    return card(described, license=license, formats=formats, evaluations=evaluations)


def bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
