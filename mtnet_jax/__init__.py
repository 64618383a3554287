"""Multitask-Net in JAX/Flax: every head in an image and where it looks, all 360 degrees."""

from typing import Any

from mtnet_jax.version import __version__

__all__ = ["Head", "Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing the package alone stays quick: JAX is loaded by what needs it.
    if name in ("Head", "Predictor"):
        from mtnet_jax.predict import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
