"""JAX's persistent compilation cache: what was compiled once starts at once the next time."""

import os
import sys
from pathlib import Path


def keep_compiled_programs() -> Path | None:
    """Turns the cache on, unless the user has decided. Does not load JAX.

    $JAX_COMPILATION_CACHE_DIR names a folder, or is empty for no cache; where it is not set the
    cache lies in `mtnet_jax` of $XDG_CACHE_HOME, by default ~/.cache. Programs that call oneDNN
    (`mtnet_jax.cpu.onednn`) cannot be kept and compile each time.

    Returns:
      The folder, None where there is no cache.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = str(Path(base) / "mtnet_jax")
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", chosen or None)
    else:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = chosen  # JAX reads it when it is loaded
    return Path(chosen) if chosen else None
