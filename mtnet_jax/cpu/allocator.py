"""How this process asks the system for memory.

XLA takes the temporary memory of every step from the C library's allocator and gives it back. glibc
hands such large buffers back to the system at once, which fills each page with zeros when it is
touched again: a fifth of the time of a narrow network's training step on a CPU.
"""

import ctypes
import importlib.util
import platform
import sys

# Numbers of mallopt's options, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_large_buffers() -> bool:
    """Tells glibc to keep memory that was freed, for the next step.

    Works only before JAX has started its threads (its first computation, or `jax.devices()`); later
    it does no harm. The process then holds on to the most memory it needed at one time.

    Returns:
      Whether glibc was told: it is not where JAX could use an accelerator, which has an allocator
      of its own, nor with another C library.
    """
    if not _glibc() or accelerator_installed():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_MMAP_MAX, 0)  # large buffers from the heap: unmapping one frees it to the system
        and mallopt(_TRIM_THRESHOLD, -1)  # the heap never shrinks
        and mallopt(_ARENA_MAX, 1)  # one heap for all threads: those of threads hold 64 MB each
    )


def return_freed_memory() -> None:
    """Hands what is free at this moment back to the system, as after a compilation.

    The compiler of a CPU needs some 400 MB for the step of a whole network, which the step itself
    would never fill.
    """
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def accelerator_installed() -> bool:
    """Whether JAX may find a backend other than the CPU; without asking it, which starts it."""
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
