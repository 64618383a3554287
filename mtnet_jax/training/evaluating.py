"""The evaluations of a run: every host takes its share of the records, all get the same numbers."""

import io
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mtnet_jax import hosts
from mtnet_jax.cpu.cores import usable_cores
from mtnet_jax.data.records import RecordSource
from mtnet_jax.evaluation.metrics import (
    Settings,
    State,
    image_state,
    merge_states,
    summarise,
)
from mtnet_jax.evaluation.predicted import predict_records, spread
from mtnet_jax.predict.inference import EVAL_PRECISION, EVAL_SCORE_THRESHOLD, make_detector
from mtnet_jax.system import System
from mtnet_jax.training.distribution import Distribution, on_this_host
from mtnet_jax.training.stopping import Stopping

Values = dict[str, float | None]


class Evaluator:
    """Evaluates the variables of a run, compiled once."""

    def __init__(self, system: System, config: ConfigDict, distribution: Distribution):
        self._config, self._distribution = config, distribution
        self._mesh = local_mesh()
        over = self._mesh if self._mesh.size > 1 else None
        self._detector = make_detector(
            system, config, EVAL_SCORE_THRESHOLD, over=over, precision=EVAL_PRECISION
        )

    def __call__(self, variables: Any, source: RecordSource, stopping: Stopping) -> Values:
        """Of `result` the few numbers that are followed while training."""
        return followed(self.result(variables, source, stopping))

    def on(self, source: RecordSource) -> dict[str, Any]:
        """What numbers of a source are of, for the log: other ones are no match for them."""
        images = len(spread(len(source), self._config.eval_images))
        return {"split": source.split, "images": images, **self._config.decode.to_dict()}

    def result(self, variables: Any, source: RecordSource, stopping: Stopping) -> dict[str, Any]:
        """All metrics of a source, the same on every host; all hosts must ask.

        Args:
          variables: {"params", "batch_stats"} on the whole mesh.
          source: what is evaluated. Each host takes every so many-th record.
          stopping: a signal ends it between two images.
        """
        mine = on_this_host(variables, self._distribution)
        detect = self._detector(jax.device_put(mine, NamedSharding(self._mesh, PartitionSpec())))
        pairs = predict_records(
            detect,
            source,
            size=self._config.input.size,
            batch_size=self._config.eval_batch_size * self._mesh.size,
            threads=reading_threads(self._config),
            limit=self._config.eval_images,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        settings = Settings()
        state = merge_states(image_state(p, t, settings) for p, t in stopping.watch(pairs))
        everything = merge_states(map(from_bytes, hosts.gather(to_bytes(state))))
        return summarise(everything, settings)


def reading_threads(config: ConfigDict) -> int:
    """Threads that read while the devices evaluate: the processes that feed the training wait then,
    and leave their cores."""
    return max(config.loader_threads, min(config.loader_processes, usable_cores()))


def local_mesh() -> Mesh:
    """The devices of this host."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("image",), (AxisType.Auto,), devices=devices)


def followed(result: dict[str, Any]) -> Values:
    """Of all metrics those that are followed while training."""
    detection, pose = result["detection"], result["pose"]
    values = {name: detection[name] for name in ("ap50", "recall", "mean_iou_matched")}
    if pose["evaluated"]:
        values |= {name: pose[name] for name in ("mae", "geodesic_mean", "geodesic_median")}
    if result["heading"]["evaluated"]:
        values |= {f"heading_{name}": result["heading"][name] for name in ("mean", "beyond_90")}
    return values


def to_bytes(state: State) -> bytes:
    """A state of the metrics as it goes from host to host."""
    file = io.BytesIO()
    np.savez(file, **state._asdict())
    return file.getvalue()


def from_bytes(content: bytes) -> State:
    """What `to_bytes` wrote."""
    with np.load(io.BytesIO(content)) as stored:
        columns = [stored[name] for name in State._fields]
    values: list[Any] = [int(column) if column.ndim == 0 else column for column in columns]
    return State(*values)


def as_line(name: str, step: int, values: Values) -> str:
    """An evaluation for people."""
    shown = "  ".join(
        f"{key} {value:.3f}" if value is not None else f"{key} -" for key, value in values.items()
    )
    return f"step {step}  eval/{name}  {shown}"
