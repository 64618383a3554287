"""What was compiled once is not compiled again by the next command."""

import os
import sys
from pathlib import Path

import jax


def use_compilation_cache() -> Path | None:
    """Keeps compiled programs in the user's cache folder, unless JAX was told where, or not to.

    JAX's own settings go first: `JAX_COMPILATION_CACHE_DIR=DIR` chooses another folder,
    `JAX_ENABLE_COMPILATION_CACHE=false` switches the cache off. The folder may be deleted at any
    time; a program is found again only by the same code, versions, processor and options.

    Returns:
      The folder in use, None without one. One that cannot be written is said on stderr, and the
      command goes on without.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    folder = user_cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        print(
            f"Compiled programs are not kept for the next start: {error} "
            "(JAX_COMPILATION_CACHE_DIR=DIR chooses another folder)",
            file=sys.stderr,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def user_cache_folder() -> Path:
    """$XDG_CACHE_HOME/mtnet_jax, by default ~/.cache/mtnet_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtnet_jax"
