"""SIGTERM and Ctrl-C end a run after its step, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from mtnet_jax.errors import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While the block runs a signal is kept until it is asked for; a second one ends at once."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._receive) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def check(self) -> None:
        """Raises Terminated or KeyboardInterrupt if a signal has come."""
        if self._received == signal.SIGTERM:
            raise Terminated
        if self._received is not None:
            raise KeyboardInterrupt

    def watch(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, until a signal comes."""
        for item in items:
            self.check()
            yield item

    def _receive(self, number: int, _: FrameType | None) -> None:
        again = self.asked
        self._received = number
        if again:
            self.check()
        os.write(2, b"\nstopping after this step, with a checkpoint (again: at once)\n")
