"""SIGTERM and Ctrl-C end a run after its step, with a checkpoint.

In a run of several processes JAX takes SIGTERM, which is also how platforms announce a preemption,
and lets all of them agree on a step that none has passed (`hosts.told_to_stop`). Ctrl-C in one of
them is passed on as that.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from mtnet_jax import hosts
from mtnet_jax.errors import Preempted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While the block runs a signal is kept until it is asked for; a second one ends at once."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Any] = dict.fromkeys(SIGNALS, self._receive)
            if hosts.several():
                handlers = {signal.SIGINT: self._pass_on}
            self._before = {each: signal.signal(each, handlers[each]) for each in handlers}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def asked(self, step: int) -> bool:
        """Whether the run is to end after this step; every process asks after every step."""
        if hosts.several():
            return hosts.told_to_stop(step)
        return self._received is not None

    def end(self) -> None:
        """Raises what ends a run: KeyboardInterrupt after Ctrl-C, else Preempted."""
        alone = self._received == signal.SIGINT and not hosts.several()
        raise KeyboardInterrupt if alone else Preempted

    def watch(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, until a signal comes; several processes go to the end together."""
        for item in items:
            if self._received is not None and not hosts.several():
                self.end()
            yield item

    def _receive(self, number: int, _: FrameType | None) -> None:
        again = self._received is not None
        self._received = number
        if again:
            self.end()
        os.write(2, b"\nstopping after this step, with a checkpoint (again: at once)\n")

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        os.kill(os.getpid(), signal.SIGTERM)
        os.write(2, b"\nstopping together with the other processes (again: this one at once)\n")
