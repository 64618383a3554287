"""Writes the page: a folder to be served, or one file that works when it is opened.

There is no bundler. The modules of `static/` import each other by name, and an import map says
where each is: beside the page, or inside it as a data URL.
"""

import base64
import gzip
import html
import json
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.data.listing import is_of_another_system
from mtnet_jax.errors import FileInTheWay
from mtnet_jax.export.formats import FORMATS, HEADS
from mtnet_jax.export.metadata import LICENSE_KEY, NOT_STATED
from mtnet_jax.heads import FOUND_SCORE
from mtnet_jax.outputs import MADE, PARTIAL, Outputs
from mtnet_jax.page.runtime import SCRIPT, VERSION, WASM, licences, runtime_files
from mtnet_jax.predict import close_look, far_look, tiles, turned_look
from mtnet_jax.predict.onnx_runtime import lone_file, open_heads, open_heads_beside
from mtnet_jax.predict.second_look import LEAST_SCORE, looks_again

INDEX, STYLE, MODEL, LICENCES = "index.html", "style.css", HEADS, "LICENCES.txt"
_NAMES = ("app", "network", "looks", "heads", "drawing")
MODULES = {f"mtnet/{name}": f"{name}.js" for name in _NAMES}
MARK = '<meta name="generator" content="mtnet page">'

# What browsers let the page do. `connect-src` is what the page's promise rests on.
_POLICY = (
    "default-src 'none'; script-src {own} 'unsafe-inline' 'wasm-unsafe-eval' blob: data:; "
    "style-src {own} 'unsafe-inline'; img-src data: blob:; media-src blob: mediastream:; "
    "worker-src {own} blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
)


def write_page(
    weights: Path, out: Path, *, single_file: bool = False, package: Path | None = None
) -> Path:
    """Writes the page.

    Args:
      weights: a file that `mtnet export` wrote for heads (.onnx), a folder with one, or any weights
        from which one can be exported (as where that in the folder is of other weights).
      out: folder.
      single_file: everything in index.html, which then also works from `file://`.
      package: see `runtime_files`.

    Returns:
      index.html.

    Raises:
      FileExistsError: `out` holds something that is not a page of this command.
      FileNotFoundError, ValueError, RuntimeError, OSError: of weights and runtime, see
        `model_of` and `runtime_files`.
    """
    check_out(out)
    model, settings = model_of(weights)
    runtime = runtime_files(package)
    files = _single(model, settings, runtime) if single_file else _several(model, settings, runtime)
    outputs = Outputs("page")
    for name in files:  # a page that somebody changed is not replaced in part
        outputs.check(out / name)
    # The page last: while one part is an old one, the old page stands.
    for name in sorted(files, key=lambda name: name == INDEX):
        outputs.write(out / name, files[name])
    outputs.remove_outdated(out, [""])  # of a page in several files where there is one file now
    return out / INDEX


def check_out(out: Path) -> None:
    """Raises FileExistsError where writing could replace what is not of this command."""
    if out.exists() and not out.is_dir():
        raise FileInTheWay(f"--out {out} is a file: name a folder.")
    if not out.is_dir() or _is_page(out / INDEX):
        return
    outputs = Outputs("page")  # of a first page that was cut short index.html is not there yet
    for path in out.iterdir():
        begun = path.name == MADE or path.suffix == PARTIAL or is_of_another_system(path)
        if not (begun or outputs.made(path)):
            raise FileInTheWay(
                f"--out {out} holds other things than a page of mtnet: choose another."
            )


def model_of(weights: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the exported file, and what the page has to know of it.

    Raises:
      FileNotFoundError: no weights there.
      ValueError: damaged weights, or a file that was not exported for heads.
      RuntimeError: weights without an exported file, and the package onnx is missing.
    """
    file = lone_file(weights)
    opened: tuple[Any, ConfigDict] | None
    if file.suffix == ".onnx":
        opened = open_heads(file)
    else:
        opened, file = open_heads_beside(weights), weights / HEADS
    if opened is None:
        return _exported(weights)
    session, config = opened
    stated = session.get_modelmeta().custom_metadata_map
    settings = {
        "size": config.input.size,
        "secondLook": _second_look(config),
        "iou": config.decode.iou_threshold,
        "classNames": list(config.class_names),
        "frame": config.frame,
        "licence": stated.get(LICENSE_KEY, NOT_STATED),
    }
    return file.read_bytes(), settings


def _second_look(config: ConfigDict) -> dict[str, Any] | None:
    """Which heads get a second look, and how large; None for a network that looks once."""
    if not looks_again(config):
        return None
    size = config.input.size
    far = {
        "side": far_look.far_side(size),
        "sure": FOUND_SCORE,
        "plain": far_look.PLAIN,
        "large": far_look.LARGE / size,  # of the image's longer side
        "largestNear": far_look.LARGEST_NEAR / size,
        "smallestFar": far_look.SMALLEST_FAR / size,
    }
    turned = {
        "sure": turned_look.SURE,
        "sameIou": turned_look.SAME_IOU,
        "turns": [
            {"quarters": quarters, "least": least} for quarters, least in turned_look.TURNS.items()
        ],
    }
    in_tiles = {
        "sure": FOUND_SCORE,
        "plain": far_look.PLAIN,
        "small": tiles.SMALL,
        "worth": tiles.WORTH,
        "three": tiles.THREE,
        "whole": tiles.WHOLE,
        "largest": tiles.LARGEST,
        "mostOverlap": tiles.MOST_OVERLAP,
        "inside": tiles.INSIDE,
        "crowd": tiles.CROWD,
        "larger": tiles.LARGER,
        "border": tiles.BORDER,
    }
    close = {
        "square": close_look.SQUARE,
        "part": close_look.HEAD,
        "gain": close_look.GAIN,
        "most": close_look.MOST,
        "sure": FOUND_SCORE,
        "sameIou": close_look.SAME_IOU,
    }
    looks = {"far": far, "turned": turned, "tiles": in_tiles, "close": close}
    return {"leastScore": LEAST_SCORE, **looks}


def _exported(weights: Path) -> tuple[bytes, dict[str, Any]]:
    from mtnet_jax.export.folder import export  # loads JAX

    with tempfile.TemporaryDirectory() as folder:
        export(weights, folder, formats=["onnx"])
        return model_of(Path(folder) / FORMATS["onnx"].file)


def _several(
    model: bytes, settings: Mapping[str, Any], runtime: Mapping[str, bytes]
) -> dict[str, bytes]:
    """File name -> content of a page in several files."""
    page = _filled(
        settings={**settings, "model": MODEL, "runtime": f"./{SCRIPT}"},
        policy=_POLICY.format(own="'self'", connect="'self'"),
        style=f'<link rel="stylesheet" href="{STYLE}">',
        licences=f'<p><a href="{LICENCES}">Licences</a></p>',
        embedded=_import_map({name: f"./{file}" for name, file in MODULES.items()}),
    )
    parts = {name: _static(name) for name in (STYLE, *MODULES.values())}
    own = {INDEX: page, LICENCES: licences(), **parts}
    return {**{n: text.encode() for n, text in own.items()}, **runtime, MODEL: model}


def _single(
    model: bytes, settings: Mapping[str, Any], runtime: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The page as one file."""
    addresses = {
        name: "data:text/javascript;base64," + base64.b64encode(_static(file).encode()).decode()
        for name, file in MODULES.items()
    }
    packed = {"model": model, "runtime": runtime[SCRIPT], "wasm": runtime[WASM]}
    embedded = [_import_map(addresses)]
    for name, data in packed.items():
        text = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
        embedded.append(f'<script type="text/plain" id="embedded-{name}">{text}</script>')
    page = _filled(
        settings=settings,
        policy=_POLICY.format(own="", connect="'none'"),
        style=f"<style>\n{_static(STYLE)}</style>",
        licences=(
            "<details><summary>Licences</summary>"
            f'<pre id="licences" tabindex="0">{html.escape(licences())}</pre></details>'
        ),
        embedded="\n".join(embedded),
    )
    return {INDEX: page.encode()}


def _filled(settings: Mapping[str, Any], **parts: str) -> str:
    """index.html with its parts in their places."""
    about = f"onnxruntime-web {VERSION}; weights: licence {settings['licence']}."
    # "<" could end the script element in which the settings stand.
    parts["settings"] = json.dumps(settings).replace("<", "\\u003c")
    page = _static(INDEX)
    for name, text in {**parts, "about": html.escape(about)}.items():
        page = page.replace(f"{{{name}}}", text)
    return page


def _import_map(addresses: Mapping[str, str]) -> str:
    return f'<script type="importmap">{json.dumps({"imports": addresses})}</script>'


def _static(name: str) -> str:
    return (resources.files("mtnet_jax.page") / "static" / name).read_text(encoding="utf-8")


def _is_page(index: Path) -> bool:
    if not index.is_file():
        return False
    with index.open("rb") as file:
        return MARK.encode() in file.read(2000)
