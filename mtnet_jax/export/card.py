"""The model card of an exported folder: README.md with front matter, as Hugging Face shows it."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.errors import NOT_JSON
from mtnet_jax.export.formats import FORMATS
from mtnet_jax.export.metadata import FRAMES

CARD = "README.md"
_EVALUATION = "evaluation.txt"  # of `mtnet eval`
_FENCE = "---\n"  # round the front matter
_LICENCE = "Licence"  # the section
_UNKNOWN, _OTHER = "unknown", "other"  # licences of Hugging Face's list
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")  # of a licence, as SPDX has them


def card(
    config: ConfigDict, *, license: str, formats: Sequence[str], evaluations: Mapping[str, str]
) -> str:
    """The text of a model card.

    Args:
      config: of the weights; with `data` and `init`, where they come from a work directory.
      license: of the weights, "" where nobody said.
      formats: names of the formats in the folder.
      evaluations: title -> table of `mtnet eval`.
    """
    model, size = config.model, config.input.size
    parts = [
        _front_matter(license),
        f"# Multitask-Net, width {model.width}, depth {model.depth}, input {size}\n\n"
        "Finds heads in an image and where each looks, all 360 degrees, in one pass. Read by\n"
        '`mtnet predict IMAGE --weights .` and `mtnet_jax.Predictor(".")`.',
        _section("Files", _files(formats)),
        _section(
            "Conventions",
            f"Images are RGB, scaled to fit {size} x {size}, centred, the rest grey 114. Classes: "
            f"{', '.join(config.class_names)}.\nBoxes are left, top, right, bottom in pixels, 0 at "
            f"the outer edge of the first. Frame `{config.frame}`:\n{FRAMES[config.frame]}. Head "
            "axes: x to the subject's left, y to the chin,\nz to the back of the head.",
        ),
        _section("Training data", _data(config)),
        _section(_LICENCE, license or "Not stated by who exported the weights."),
        _section("Measured", _measured(evaluations)),
        _section(
            "Limits",
            "Backs of heads show less of where a head looks than faces do, and errors grow there.\n"
            f"Heads much smaller than {size // 20} pixels of the input are missed: a larger input "
            "(`--size`) or tiles\n(`--tile`) find them. Scores are not probabilities. Made to "
            "find heads, not to tell who they are:\nuse on people needs its own look at consent "
            "and fairness.",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def license_in(folder: Path) -> str | None:
    """The licence of the weights in a folder by its card: "" where that says none, None where there
    is no card."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    front = text.split(_FENCE)[1] if text.startswith(_FENCE) else ""
    said = {key: _unquoted(value) for key, _, value in _pairs(front)}
    license = said.get("license", _UNKNOWN)
    if license == _OTHER:
        license = said.get("license_name", _OTHER)
    # The front matter has identifiers in small letters, the section below what was said.
    shown = text.partition(f"\n{_heading(_LICENCE)}")[2].partition("\n\n## ")[0]
    if shown.lower() == license.lower():
        return shown
    return "" if license == _UNKNOWN else license


def evaluations_of(workdir: Path, step: int | None, size: int) -> dict[str, str]:
    """What `mtnet eval` wrote below a work directory of the weights of a step, with inputs of a
    size: its title -> its table. Evaluations that do not say what they are of are taken."""
    found = {}
    for path in sorted(workdir.glob(f"eval/*/{_EVALUATION}")):
        if not _fits(path.with_suffix(".json"), step, size):
            continue
        title, _, table = path.read_text().partition("\n\n")
        found[title] = table.strip("\n")
    return found


def _fits(results: Path, step: int | None, size: int) -> bool:
    """Whether results are of weights of a step with inputs of a size, as far as they say; those of
    a file that runs are of its rounding, too."""
    try:
        settings = json.loads(results.read_text(encoding="utf-8"))["network"]["settings"]
        said = "weights" in settings
    except (OSError, KeyError, TypeError, *NOT_JSON):
        return True
    if said and str(settings["weights"]).endswith(".onnx"):
        return False
    return not said or (settings.get("step"), settings.get("size")) == (step, size)


def _pairs(front: str) -> list[tuple[str, str, str]]:
    return [line.partition(": ") for line in front.splitlines()]


def _unquoted(text: str) -> str:
    """A value of front matter, which may stand in the quotes of JSON."""
    with contextlib.suppress(*NOT_JSON):
        value = json.loads(text)
        return value if isinstance(value, str) else text
    return text


def _license_lines(license: str) -> list[str]:
    """What Hugging Face accepts: an identifier in small letters, or any text as a name."""
    if not license or _IDENTIFIER.fullmatch(license):
        return [f"license: {license.lower() or _UNKNOWN}"]
    return [f"license: {_OTHER}", f"license_name: {json.dumps(license)}"]


def _front_matter(license: str) -> str:
    lines = [
        "---",
        *_license_lines(license),
        "library_name: mtnet_jax",
        "pipeline_tag: object-detection",
        "tags: [head-detection, head-pose-estimation, jax, flax, onnx]",
        "---",
    ]
    return "\n".join(lines)


def _section(title: str, text: str) -> str:
    return _heading(title) + text


def _heading(title: str) -> str:
    return f"## {title}\n\n"


def _files(formats: Sequence[str]) -> str:
    rows = [("config.json, weights.npz", "configuration and arrays, for this package and NumPy")]
    rows += [(FORMATS[name].file, FORMATS[name].about) for name in formats]
    return "\n".join(["| file | what it is |", "|---|---|", *(f"| `{a}` | {b} |" for a, b in rows)])


def _data(config: ConfigDict) -> str:
    sets: Mapping[str, Any] = config.get("data", {})
    trained = [n for n, each in sets.items() if each["train_split"] and each.get("weight", 1) > 0]
    said = f"Record sets: {', '.join(trained)}."
    if not trained:
        said = "Not recorded with these weights: ask where they come from."
    init: Mapping[str, Any] = config.get("init", {})
    for start in filter(None, (init.get("weights"), init.get("darknet_weights"))):
        # Its end names them; what stands before is of somebody's machine.
        name = "/".join(Path(start).parts[-2:])
        said += f"\nBegan with the weights `{name}`: what trained them counts too."
    return said


def _measured(evaluations: Mapping[str, str]) -> str:
    if not evaluations:
        return "Nothing yet: `mtnet eval` measures these weights on a record set."
    return "\n\n".join(f"{title}\n\n```\n{table}\n```" for title, table in evaluations.items())
