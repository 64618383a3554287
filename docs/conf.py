"""The documentation as a site: sphinx-build -W docs site."""

import re
from pathlib import Path

import mtnet_jax

REPOSITORY = Path(__file__).resolve().parent.parent

project = "mtnet-jax"
author = "The mtnet-jax authors"
version = release = mtnet_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = f"mtnet-jax {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["attrs_inline"]

autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Links that leave docs/ mean files of the repository. On the site they show the path as text.
_OUTWARDS = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def _links_to_the_repository(app, docname, source):
    source[0] = _OUTWARDS.sub(lambda link: f"`{link[2].removeprefix('../')}`", source[0])


def _plain_docstring(app, what, name, obj, options, lines):
    """Docstrings are written for readers of the code: `name` is code there, not a reference."""
    for number, line in enumerate(lines):
        line = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", line)
        lines[number] = re.sub(r"(?<=\S)([|*])|(?<!^)(?<=\s)([|*])(?=\S)", r"\\\1\2", line)


def setup(app):
    app.connect("source-read", _links_to_the_repository)
    app.connect("autodoc-process-docstring", _plain_docstring, priority=100)
