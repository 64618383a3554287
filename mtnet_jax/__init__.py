"""Multitask-Net in JAX/Flax: every head in a picture and where it looks, all 360 degrees."""

from typing import Any

__all__ = ["Head", "Predictor"]


def __getattr__(name: str) -> Any:
    # Importing the package alone stays quick: JAX is loaded by what needs it.
    if name in __all__:
        from mtnet_jax.predict import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
