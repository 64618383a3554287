"""Weights for use: of a work directory, or exported.

An exported folder has `config.json`, the part of the configuration that predicting needs (how and
on what it was trained stays behind), and `weights.npz`: the arrays of {"params", "batch_stats"}
under their paths joined by "/", readable with NumPy alone. Half precision (of "params") halves the
file; computing stays in float32. A `.safetensors` file and an orbax folder, which `mtnet export`
can write too, hold the same arrays with the configuration in their metadata.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.mirror import weights_here
from mtnet_jax.outputs import Outputs
from mtnet_jax.places import Place, place
from mtnet_jax.run_metrics import LAST, Step
from mtnet_jax.saved_config import (
    CONFIG,
    SECTIONS,
    WEIGHTS,
    config_of,
    config_text,
    for_prediction,
    read_config,
)
from mtnet_jax.sums import SUMS, check_sum, write_sums
from mtnet_jax.system import abstract_variables, at_size, build_system


def load_weights(folder: Any, step: Step = LAST) -> tuple[ConfigDict, dict[str, Any]]:
    """Configuration and {"params", "batch_stats"} of weights; see `load_step`."""
    return load_step(folder, step)[:2]


def load_step(folder: Any, step: Step = LAST) -> tuple[ConfigDict, dict[str, Any], int | None]:
    """Configuration and {"params", "batch_stats"} of weights in any form that holds arrays.

    In the configuration the network computes in float32, whatever it was trained in: its parameters
    are float32, and few CPUs are quick in bfloat16.

    Args:
      folder: a work directory, an exported folder, its .safetensors file or its orbax folder; or
        the address of one.
      step: of a work directory: a number, the last, or the best by its `config.best_metric`. Of
        averaged weights (`config.ema_decay`) the average is taken.

    Returns:
      Configuration, variables, and the number of the checkpoint that they are of: a run that still
      trains saves others meanwhile, and of the last ones one may be damaged. None of what is no
      work directory.

    Raises:
      FileNotFoundError: no configuration or no weights there, or not of this step.
      ValueError: a configuration or exported weights that are damaged or of something else, weights
        that do not fit their configuration, by name, or a step of what is no work directory.
    """
    with weights_here(folder, latest=step == LAST) as here:
        config, variables, number = _load(here, step)
    config.model.dtype = "float32"
    return config, variables, number


def _load(folder: Path, step: Step) -> tuple[ConfigDict, dict[str, Any], int | None]:
    exported = folder / WEIGHTS
    if step != LAST and (folder.is_file() or is_orbax(folder) or exported.exists()):
        raise BadInput(f"{folder} is no work directory: it holds one state, and no step {step}.")
    if folder.suffix == ".safetensors":
        return *_load_safetensors(folder), None
    if folder.suffix == ".onnx" and folder.is_file():
        raise BadInput(
            f"{folder} holds a network that is ready to run, not the arrays it was made of: give "
            "the folder that it was exported into, or a .safetensors file."
        )
    if folder.is_file():
        raise BadInput(
            f"{folder} is not taken by itself: give its folder, or a .onnx or .safetensors file."
        )
    if is_orbax(folder):
        return *_load_orbax(folder), None
    config = _read_config(folder)
    abstract = abstract_variables(build_system(config))
    if exported.exists():
        return config, _read_npz(exported, abstract), None
    from mtnet_jax.checkpoints import load_model  # orbax takes a second to import

    return config, *load_model(folder, _on_one_device(abstract), step)


def metadata_of(source: Path) -> dict[str, Any]:
    """What a .safetensors file or an orbax folder that can be loaded says of itself (see
    `mtnet_jax.export.metadata.describe`); nothing of weights in other forms."""
    if source.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(source, framework="numpy") as stored:
            return stored.metadata() or {}
    if is_orbax(source):
        from mtnet_jax.checkpoints import exported_metadata

        return exported_metadata(source)
    return {}


def export_weights(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    *,
    half: bool,
    size: int | None = None,
    step: Step = LAST,
    outputs: Outputs | None = None,
) -> tuple[Path, int | None]:
    """Writes a checkpoint of a work directory as an exported folder.

    Args:
      workdir: of `mtnet train`.
      out: folder to write; made where it does not exist.
      half: store the parameters as float16. The BatchNorm statistics stay float32: a variance may
        be beyond what float16 holds, and they are small.
      size: side of the network's input in pixels; None: as trained.
      step: see `load_step`.
      outputs: of the command.

    Returns:
      The weights file, and the number of the checkpoint, see `load_step`.

    Raises:
      ValueError: see `check_apart`, or a parameter is too large for float16, by name.
    """
    check_apart(workdir, out)
    config, variables, number = load_step(workdir, step)
    if size is not None:
        config = at_size(config, size)
    return write_weights(out, config, variables, half=half, outputs=outputs), number


def check_apart(source: Any, out: Any) -> None:
    """Raises BadInput where an export would hide or replace what it is made of.

    In a work directory it would hide what is trained later. In the folder of the file or orbax
    folder that it is made of, which are exports themselves, it would round or remove them.

    Args:
      source: weights, or their address.
      out: folder to export to, or its address.
    """
    folder, (name, parent) = _named(out)[0], _named(source)
    if folder == name:
        raise BadInput(f"{out} is the work directory itself: export to another folder.")
    export = place(source)
    if folder == parent and (export.is_file() or is_orbax(export)):
        raise BadInput(
            f"{source} lies in {out}, where the export would replace it: export to another folder."
        )


def _named(path: Any) -> tuple[str, str]:
    """The name of a place and that of the folder that it lies in, by which places are compared."""
    found = place(path)
    if isinstance(found, Path):
        return str(found.resolve()), str(found.resolve().parent)
    name = str(found).rstrip("/")
    return name, name.rpartition("/")[0]


def write_weights(
    out: str | os.PathLike,
    config: ConfigDict,
    variables: dict[str, Any],
    *,
    half: bool = False,
    outputs: Outputs | None = None,
) -> Path:
    """Writes an exported folder; see `export_weights`."""
    outputs = outputs or Outputs("export")
    for name in (CONFIG, WEIGHTS, SUMS):
        outputs.check(Path(out) / name)
    arrays: dict[str, Any] = flat_arrays(variables)
    if half:
        arrays = {name: _halve(name, value) for name, value in arrays.items()}
    path = Path(out) / WEIGHTS
    with outputs.writing(path) as file:
        np.savez_compressed(file, **arrays)
    outputs.write(Path(out) / CONFIG, config_text(prediction_config(config)))
    write_sums(outputs, Path(out), (CONFIG, WEIGHTS))
    return path


def flat_arrays(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """{"params", "batch_stats"} as float32 arrays under their paths joined by "/"."""
    flat = flatten_dict(variables, sep="/")
    return {name: np.asarray(value, np.float32) for name, value in flat.items()}


def prediction_config(config: ConfigDict) -> ConfigDict:
    """The part of a configuration that predicting needs."""
    return ConfigDict({name: config[name] for name in SECTIONS})


def _halve(name: str, value: np.ndarray) -> np.ndarray:
    if not name.startswith("params/"):
        return value
    if np.abs(value).max() > np.finfo(np.float16).max:
        raise BadInput(f"{name} is too large for float16: export in full precision.")
    return value.astype(np.float16)


def _read_config(folder: Path) -> ConfigDict:
    path = folder / CONFIG
    check_sum(path)
    config = read_config(folder)
    if config is None:
        raise MissingFile(
            f"{path} does not exist: give the work directory of `mtnet train` or a folder of "
            "`mtnet export`."
        )
    return for_prediction(config, path)


def _load_safetensors(path: Path) -> tuple[ConfigDict, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    check_sum(path)
    try:
        with safe_open(path, framework="numpy") as stored:
            metadata = stored.metadata()
            found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(f"{path} is damaged, copy or export it again: {error}") from error
    config = config_of(metadata, path)
    return config, _as_variables(path, found, abstract_variables(build_system(config)))


def is_orbax(folder: Place) -> bool:
    """Whether a folder is what `mtnet export --format orbax` writes, and not a work directory."""
    return (folder / "model").is_dir() and not (folder / CONFIG).exists()


def _load_orbax(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    from mtnet_jax.checkpoints import exported_metadata, load_exported

    config = config_of(exported_metadata(folder), folder)
    abstract = abstract_variables(build_system(config))
    return config, load_exported(folder, _on_one_device(abstract))


def _on_one_device(abstract: dict[str, Any]) -> dict[str, Any]:
    from mtnet_jax.checkpoints import with_sharding

    return with_sharding(abstract, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))


def _read_npz(path: Path, abstract: dict[str, Any]) -> dict[str, Any]:
    check_sum(path)
    try:
        # An open file: given a path, NumPy forgets to close what turns out to be no archive.
        with path.open("rb") as file, np.load(file) as stored:
            # What is not of this network is not decompressed: it may be larger than the memory.
            _check_shapes(path, _shapes_in(stored), abstract)
            found = {name: stored[name] for name in stored.files}
    except BadInput:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path} is damaged, copy or export it again: {error}") from error
    return _as_variables(path, found, abstract)


def _as_variables(
    path: Path, found: dict[str, np.ndarray], abstract: dict[str, Any]
) -> dict[str, Any]:
    """Arrays by path as the variables of a network, if they are its own."""
    _check_shapes(path, {name: value.shape for name, value in found.items()}, abstract)
    for name, value in found.items():
        if not np.isfinite(value).all():
            raise BadInput(f"{path}: {name} holds values that are no numbers: export it again.")
    return unflatten_dict(
        {name: jax.numpy.asarray(value, np.float32) for name, value in found.items()}, sep="/"
    )


def _check_shapes(path: Path, found: dict[str, tuple[int, ...]], abstract: dict[str, Any]) -> None:
    """Raises BadInput unless arrays of these shapes are those of a network."""
    expected = flatten_dict(abstract, sep="/")
    for name in sorted(expected.keys() ^ found.keys()):
        where = "lacks" if name in expected else "has an unexpected"
        raise BadInput(f"{path} {where} {name}: it belongs to another configuration.")
    for name, leaf in expected.items():
        if found[name] != leaf.shape:
            raise BadInput(f"{path}: {name} has shape {found[name]}, not {leaf.shape}.")


def _shapes_in(stored: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the arrays of an .npz, from their headers.

    Raises:
      ValueError: one that holds no floating-point numbers.
    """
    shapes = {}
    for name in stored.files:
        with stored.zip.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
                member
            )
        if dtype.kind != "f":
            raise ValueError(f"{name} holds {dtype}, no floating-point numbers")
        shapes[name] = shape
    return shapes
