"""Where the work of a conversion is done: in this process, in several, or on Apache Beam.

A runner takes a picklable function and tasks, calls the function once for each task, in any order,
and yields the results. What the function writes is its result; nothing depends on the order.
"""

import itertools
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mtnet_jax import workers
from mtnet_jax.errors import BadInput, WorkerDied

Task = Callable[[Any], Any]
Runner = Callable[[Task, Iterable[Any]], Iterator[Any]]

# What every worker needs, imported once.
_WORKER_MODULES = (
    "data_prep.engine.units",
    "data_prep.engine.shards",
    "data_prep.engine.heads",
    "tensorflow_datasets.proto.tf_example_pb2",
)
# Runners that Beam does not know by their short names.
_FULL_NAMES = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
_LOOK_EVERY = 1.0  # seconds between two looks for results of a Beam pipeline


def prepare_processes(*modules: str) -> None:
    """Starts, in the background, to import what workers need: these modules and the usual ones."""
    workers.prepare([*_WORKER_MODULES, *modules])


def on_processes(count: int) -> Runner:
    """Runs tasks in `count` processes; 1 stays in this one."""
    return Processes(count) if count > 1 else in_this_process


def in_this_process(function: Task, tasks: Iterable[Any]) -> Iterator[Any]:
    """Runs one task after the other."""
    return map(function, tasks)


class Processes:
    """Runs tasks in several processes of this machine."""

    def __init__(self, count: int):
        self._count = count

    def __call__(self, function: Task, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields results as they come. Only a few tasks are waiting at a time.

        Raises:
          ChildProcessError: a process died.
        """
        prepare_processes()
        tasks = iter(tasks)
        # Ctrl-C ends them without a word.
        pool = workers.pool_of(function, self._count, at_signals=signal.SIG_DFL)
        waiting: set[Future] = set()
        try:
            while True:
                # One task more than processes, so that none has to wait for this one.
                free = self._count + 1 - len(waiting)
                waiting |= {
                    pool.submit(workers.work, task) for task in itertools.islice(tasks, free)
                }
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise WorkerDied(
                "a worker process died (killed, or out of memory? --processes 1 needs the least); "
                "the same command goes on from the parts that are done"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


class Beam:
    """Runs tasks as an Apache Beam pipeline, on whatever runner Beam has.

    Tasks and results are files in a folder, which every worker must be able to reach at the same
    path (as it must reach raw data and records): a pipeline that holds the tasks would grow with
    the data set, and runners limit its size.
    """

    def __init__(self, runner: str, options: Sequence[str], processes: int, folder: Path):
        """Prepares a pipeline.

        Args:
          runner: "DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", ...
          options: of Beam's pipelines, such as "--region=europe-west4".
          processes: of the DirectRunner, unless the options say otherwise.
          folder: for the tasks; made and removed.
        """
        usual = {
            "DirectRunner": [
                "--direct_running_mode=multi_processing",
                f"--direct_num_workers={processes}",
                "--default_sdk_harness_log_level=WARNING",
            ],
            # Else a worker gets 128 tasks as one, all of them again where a worker is lost.
            "DaskRunner": ["--dask_partition_size=1"],
        }
        chosen = any(option.startswith("--dask_npartitions") for option in options)
        self._options = [*([] if chosen else usual.get(runner, [])), *options]
        self._runner, self._folder = _FULL_NAMES.get(runner, runner), folder
        self._yielded: set[str] = set()

    def __call__(self, function: Task, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields results as they come, each once: a runner repeats tasks of workers that it lost.

        Raises:
          ChildProcessError: a task failed (its error is told), or Beam did.
          ValueError: Apache Beam is not installed.
        """
        beam, pipeline_options = _import_beam()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._yielded.clear()
        count = 0
        for count, task in enumerate(tasks, start=1):
            _write(self._folder / f"{count - 1}.task", task)
        settings = pipeline_options.PipelineOptions(self._options, runner=self._runner)
        pipeline = beam.Pipeline(options=settings)
        numbers = pipeline | "Tasks" >> beam.Create(range(count)) | "Spread" >> beam.Reshuffle()
        _ = numbers | "Work" >> beam.Map(_TaskFile(function, self._folder))
        try:
            with ThreadPoolExecutor(1) as background:
                running = background.submit(lambda: pipeline.run().wait_until_finish())
                while not running.done():
                    wait([running], timeout=_LOOK_EVERY)
                    yield from self._new_results()
            running.result()
            yield from self._new_results()
        except Exception as error:
            told = next(self._folder.glob("*.error"), None)
            text = told.read_text() if told else f"Apache Beam, {type(error).__name__}: {error}"
            raise WorkerDied(text) from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _new_results(self) -> Iterator[Any]:
        for path in self._folder.glob("*.result"):
            result = pickle.loads(path.read_bytes())
            path.unlink()
            if path.name not in self._yielded:
                self._yielded.add(path.name)
                yield result


class _TaskFile:
    """Runs the task of a file and leaves its result, or its error, in another. Picklable."""

    def __init__(self, function: Task, folder: Path):
        self._function, self._folder = function, folder

    def __call__(self, number: int) -> None:
        try:
            result = self._function(pickle.loads((self._folder / f"{number}.task").read_bytes()))
            _write(self._folder / f"{number}.result", result)
        except Exception as error:
            (self._folder / f"{number}.error").write_text(str(error))
            raise


def _write(path: Path, value: Any) -> None:
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_bytes(pickle.dumps(value))
    os.replace(hidden, path)


def _import_beam() -> tuple[Any, Any]:
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise BadInput(
            f"--runner needs Apache Beam: pip install 'mtnet-jax[beam]' ({error})"
        ) from error
    return apache_beam, pipeline_options
