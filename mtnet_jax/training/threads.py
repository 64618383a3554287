"""What threads of libraries say when they fail: one line at most."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def failing_in_one_line() -> Iterator[None]:
    """Within the block a thread of orbax fails without a word and one on a full disk with one line.

    What fails in a thread of orbax is raised again where its result is waited for.
    """
    before, said = threading.excepthook, set()

    def hook(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__module__.startswith("orbax"):
            return
        if not isinstance(failure.exc_value, OSError):
            before(failure)
        elif str(failure.exc_value) not in said:
            said.add(str(failure.exc_value))
            print(f"in the background: {failure.exc_value}", file=sys.stderr)

    log = logging.getLogger("absl")  # orbax logs what it raises, with every frame of it
    level = log.level
    threading.excepthook = hook
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        threading.excepthook = before
        log.setLevel(level)
