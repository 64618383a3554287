"""The one place of the version: pyproject.toml and `mtnet --version` read it here."""

__version__ = "0.1.0"
