"""What an ablation compares: arms that differ in some options, each trained with several seeds."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mtnet_jax.config import call_in_file, load_config
from mtnet_jax.errors import BadInput
from mtnet_jax.saved_config import read_config
from mtnet_jax.shipped import shipped
from mtnet_jax.training.workdir import has_checkpoint

FINISHED = "finished.json"  # of a run's work directory: it is trained, and how large it is
# What may differ between arms that share a detector; phases that come after it may too.
_DETECTOR = "detector"  # name of the runs that arms share
_OF_THE_POSE = ("model.representation", "model.pose_activation", "model.aggregate", "pose_loss.")


class HeldOut(NamedTuple):
    """Records that every run is measured on.

    Attributes:
      path: of the record set.
      split: of it.
      group: regular expression; what it finds in an image_id names what stands or falls together
        in a bootstrap, such as a person; "" takes the image.
      limit: at most so many images, evenly spread; 0: all.
    """

    path: str
    split: str = "test"
    group: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Ablation:
    """A comparison: the content of a file in `configs/ablations/`.

    Attributes:
      config: name or file of the configuration that all arms share.
      arms: name of an arm -> dotted name of an option -> its value there.
      seeds: of the runs of each arm.
      reference: the arm that the others are compared with.
      test_sets: name -> what every run is measured on.
      detector_phases: phases that are trained once for each seed, and shared by its arms; they
        must leave the pose branch alone, and the arms may differ in the pose branch alone.
    """

    config: str
    arms: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    reference: str
    test_sets: Mapping[str, HeldOut]
    detector_phases: Sequence[str] = ()


class Run(NamedTuple):
    """One training run: an arm with a seed, or the detector of a seed where `arm` is empty."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its work directory."""
        return f"{_as_file_name(self.arm) if self.arm else _DETECTOR}-seed{self.seed}"


def grid(options: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Arms of all combinations of values, each named after its own.

    Args:
      options: dotted name of an option -> its values.
    """
    combinations = (dict(zip(options, values, strict=True)) for values in _product(options))
    return {" ".join(str(v) for v in arm.values()): arm for arm in combinations}


def _product(options: Mapping[str, Sequence[Any]]) -> itertools.product:
    return itertools.product(*options.values())


def load_ablation(spec: str | Path) -> Ablation:
    """The ablation of a file, or of the name of one that ships.

    Raises:
      BadInput: no such file or name (says which there are), an error in the file, with its line, or
        what cannot be compared.
    """
    path = Path(spec)
    if not path.is_file():
        found = {p.stem: p for p in sorted(shipped("configs/ablations").glob("*.py"))}
        if str(spec) not in found:
            raise BadInput(f"No ablation {spec}, neither a file nor one of {', '.join(found)}.")
        path = found[str(spec)]
    ablation = call_in_file(path, "get_ablation", "an Ablation")
    _check(ablation, path)
    return ablation


def runs_of(ablation: Ablation) -> list[Run]:
    """Every run, detectors first, then seed by seed: a grid that is stopped has whole seeds."""
    detectors = [Run("", seed) for seed in ablation.seeds if ablation.detector_phases]
    return detectors + [Run(arm, seed) for seed in ablation.seeds for arm in ablation.arms]


def config_of(
    ablation: Ablation, run: Run, workdir: Path, overrides: Sequence[str] = ()
) -> ConfigDict:
    """The configuration of a run.

    Args:
      ablation: what is compared.
      run: one of its runs.
      workdir: of the ablation; a shared detector lies there.
      overrides: `--config.KEY=VALUE` for all runs.

    Raises:
      BadInput: an option that does not exist, or a value of another kind than it has.
    """
    config = load_config(ablation.config, overrides)
    config.seed = run.seed
    options = ablation.arms[run.arm] if run.arm else {}
    try:
        config.update_from_flattened_dict(options)
    except (KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"Arm {run.arm!r}: {error.args[0]}") from error
    for name in ablation.detector_phases:
        if name not in config.phases:
            raise BadInput(f"detector_phases names {name!r}, the phases are {list(config.phases)}.")
    if ablation.detector_phases:
        for name, phase in config.phases.items():
            if (name in ablation.detector_phases) == bool(run.arm):
                phase.epochs = 0.0
        if run.arm:
            config.init.weights = _detector_of(run, workdir)
    return config


def _detector_of(run: Run, workdir: Path) -> str:
    """Where the detector of an arm lies; for one that has begun with it, where it lay then.

    The folder of a grid may be moved, or be seen under another path by another host.
    """
    folder, detector = workdir / run.name, Run("", run.seed).name
    # A finished run may have been copied without its checkpoints, to be reported elsewhere.
    is_begun = has_checkpoint(folder) or (folder / FINISHED).exists()
    begun = read_config(folder) if is_begun else None
    if begun is not None and Path(begun.init.weights).name == detector:
        return begun.init.weights
    return str(workdir / detector)


def _check(ablation: Ablation, path: Path) -> None:
    """Raises BadInput, with the file, for what cannot be compared."""
    if not isinstance(ablation, Ablation):
        raise BadInput(f"{path}: get_ablation() gives a {type(ablation).__name__}, no Ablation.")
    faults = _faults_of_kind(ablation) or _faults(ablation)
    if faults:
        raise BadInput(f"{path}: {'; '.join(faults)}.")


def _faults_of_kind(ablation: Ablation) -> list[str]:
    """Fields that hold something else than they should."""
    faults = []
    if not _is_mapping(ablation.arms, Mapping):
        faults.append("arms must be a dict: name of an arm -> a dict of its options")
    if not _is_mapping(ablation.test_sets, HeldOut):
        faults.append("test_sets must be a dict: name of a set -> HeldOut(PATH, SPLIT)")
    if not _is_list(ablation.seeds, lambda seed: isinstance(seed, int) and seed >= 0):
        faults.append(f"seeds must be a tuple of whole numbers from 0, not {ablation.seeds!r}")
    if not _is_list(ablation.detector_phases, lambda name: isinstance(name, str)):
        faults.append(
            f"detector_phases must be a tuple of names of phases, not {ablation.detector_phases!r}"
        )
    return faults


def _is_mapping(found: Any, of: type) -> bool:
    good = isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
    return good and all(isinstance(value, of) for value in found.values())


def _is_list(found: Any, good: Callable[[Any], bool]) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str) and all(map(good, found))


def _faults(ablation: Ablation) -> list[str]:
    """What cannot be compared of fields that hold what they should."""
    faults = []
    if ablation.reference not in ablation.arms:
        faults.append(f"reference {ablation.reference!r} is none of the arms {list(ablation.arms)}")
    if not ablation.test_sets:
        faults.append("test_sets is empty: there is nothing to measure on")
    for name, test_set in ablation.test_sets.items():
        if not name or "/" in name:
            faults.append(f"a test set cannot be called {name!r}: files are named after it")
        if not isinstance(test_set.limit, int) or test_set.limit < 0:
            faults.append(f"limit of {name!r} is {test_set.limit}: it must be a number from 0")
        try:
            re.compile(test_set.group)
        except re.error as error:
            faults.append(
                f"group of {name!r} is {test_set.group!r}, no regular expression: {error}"
            )
    for name, values in (("seeds", ablation.seeds), ("names of arms", _file_names(ablation))):
        if len(set(values)) < len(values) or not values:
            faults.append(f"{name} must differ and be at least one: {list(values)}")
    for arm, options in ablation.arms.items():
        if _as_file_name(arm) in ("", _DETECTOR):
            faults.append(
                f"an arm cannot be called {arm!r}: its work directory needs a name, not that of "
                "detectors"
            )
        if "seed" in options:
            faults.append(f"arm {arm!r} changes seed: every arm is trained with all of seeds")
        if ablation.detector_phases:
            faults += [
                f"arm {arm!r} changes {option}, which a shared detector depends on: leave "
                "detector_phases out, or that option"
                for option in options
                if not _comes_after(option, ablation.detector_phases)
            ]
    return faults


def _comes_after(option: str, detector_phases: Sequence[str]) -> bool:
    """Whether an option leaves the shared detector as it is."""
    kind, _, rest = option.partition(".")
    later_phase = kind == "phases" and rest.partition(".")[0] not in detector_phases
    return later_phase or any(option == o or option.startswith(o) for o in _OF_THE_POSE)


def _file_names(ablation: Ablation) -> list[str]:
    return [_as_file_name(arm) for arm in ablation.arms]


def _as_file_name(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", arm).strip("_")
