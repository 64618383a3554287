"""Processes of this machine that compute a function: for conversions and the input of training."""

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

from mtnet_jax.errors import WorkerDied

Function = Callable[[Any], Any]


def prepare(modules: Sequence[str]) -> None:
    """Starts, in the background, the process that workers are forked from, with these imported.

    It is another than this one, which may have threads (JAX, OpenCV) that do not survive a fork.
    """
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
    # SIGTERM to all processes of a job would end it, and with it the pools, while the training
    # still needs them for its last step: it begins with the signal blocked, and keeps it so. Its
    # own helper unblocks the signal here, so that comes first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pool_of(function: Function, count: int, *, at_signals: Any) -> ProcessPoolExecutor:
    """A pool of processes for this picklable function: `pool.submit(work, argument)`.

    They end with the process that started them, however that ends.

    Args:
      function: what they compute.
      count: of processes.
      at_signals: what SIGINT does there, which Ctrl-C sends to all: `signal.SIG_DFL` or, also for
        SIGTERM, `signal.SIG_IGN`.
    """
    return ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=_start,
        initargs=(function, at_signals),
    )


_function: Function | None = None  # of a worker process


def _start(function: Function, at_signals: Any) -> None:
    import cv2

    global _function
    _function = function
    cv2.setNumThreads(1)  # the processes share the processors
    signal.signal(signal.SIGINT, at_signals)
    if at_signals == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, at_signals)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # see `prepare`
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker when the process that started it is gone, killed perhaps."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers run this"
    connection.wait([parent.sentinel])
    os._exit(1)


def work(argument: Any) -> Any:
    """The function of the pool, in a worker."""
    assert _function is not None, "_start comes first"
    return _function(argument)


class Elsewhere:
    """A function that is computed in other processes, called like the function itself.

    A call waits for its result: threads that call it keep the processes busy. They let signals
    pass, since what they read is needed until the caller stops, and end when this is dropped.
    """

    def __init__(
        self, function: Function, processes: int, modules: Sequence[str], *, when_one_dies: str
    ):
        """Starts `processes` processes on the first call.

        Args:
          function: a picklable one of one argument.
          processes: how many.
          modules: what they import before they work.
          when_one_dies: what to do then, said in the error.
        """
        prepare(modules)
        self._cure = when_one_dies
        self._pool = pool_of(function, processes, at_signals=signal.SIG_IGN)
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __call__(self, argument: Any) -> Any:
        """function(argument), see `of_each`."""
        return self.of_each([argument])[0]

    def of_each(self, arguments: Iterable[Any]) -> list[Any]:
        """The function of each argument, side by side in as many processes as are free.

        Raises:
          ChildProcessError: a process died.
        """
        try:
            results = [self._pool.submit(work, argument) for argument in arguments]
            return [result.result() for result in results]
        except BrokenProcessPool:
            raise WorkerDied(
                f"a process that reads records died (killed, or out of memory?): {self._cure}"
            ) from None
