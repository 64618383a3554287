"""What would end a grid late, or make its numbers no comparison, is said before it is trained."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtnet_jax.ablation.spec import Ablation, config_of, runs_of
from mtnet_jax.config import load_config
from mtnet_jax.data.mixture import class_ids
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.errors import BadInput, MissingFile, MtnetError
from mtnet_jax.evaluation.comparison import group_of
from mtnet_jax.training.config_changes import differences
from mtnet_jax.training.phases import read_phases
from mtnet_jax.training.run_checks import check_run, check_share
from mtnet_jax.training.workdir import records_of


def check_runs(ablation: Ablation, workdir: Path, overrides: Sequence[str]) -> None:
    """Raises BadInput, with the arm or the test set, for what a grid would come to in the end.

    Args:
      ablation: what is compared.
      workdir: of the ablation.
      overrides: `--config.KEY=VALUE` for all runs.
    """
    _check_overrides(ablation, overrides)
    check_records(ablation, workdir, overrides)
    class_names = set()
    for run in runs_of(ablation):
        config = config_of(ablation, run, workdir, overrides)
        try:
            _check_pose_loss(ablation.arms.get(run.arm, {}), config)
            check_run(config)
            if not run.arm:
                _check_detector(ablation, config)
        except MtnetError as error:
            raise BadInput(f"{run.name}: {error}") from error
        class_names.add(tuple(config.class_names))
    for name, test_set in ablation.test_sets.items():
        try:
            for names in class_names:
                class_ids(RecordSet.open(test_set.path), names)
            source = RecordSource(test_set.path, test_set.split, decode=False)
            for index in range(len(source)) if test_set.group else ():
                group_of(source[index]["image_id"], test_set.group)
        except MtnetError as error:
            raise BadInput(f"test set {name!r}: {error}") from error


def check_shares(ablation: Ablation, workdir: Path, overrides: Sequence[str], devices: int) -> None:
    """Raises BadInput, with the run, for one that so many devices cannot share."""
    for run in runs_of(ablation):
        config = config_of(ablation, run, workdir, overrides)
        try:
            check_share(config, read_phases(config), devices)
        except MtnetError as error:
            raise BadInput(f"{run.name}: {error}") from error


def check_records(ablation: Ablation, workdir: Path, overrides: Sequence[str]) -> None:
    """Raises BadInput where a run was begun with other records than those that lie there now.

    A run that goes on looks for itself; one that is finished does not, and would be compared.
    """

    @functools.cache  # runs of a grid train on the same sets
    def identity(path: str, split: str) -> str:
        return RecordSet.open(path).identity(split, whole=False)

    for run in runs_of(ablation):
        known = records_of(workdir / run.name)
        data = config_of(ablation, run, workdir, overrides).data
        for name in set(known) & set(data):
            chosen = data[name]
            with contextlib.suppress(MissingFile):  # a report needs no records
                if identity(chosen.path, chosen.train_split) != known[name]:
                    raise BadInput(
                        f"{workdir / run.name} was trained on other records than {chosen.path} "
                        f"holds now (config.data.{name}): give those, or choose another --workdir "
                        "and train all runs anew."
                    )


def _check_overrides(ablation: Ablation, overrides: Sequence[str]) -> None:
    """Raises BadInput for an option of the command line that would change nothing in some arm."""
    plain, changed = (load_config(ablation.config, each) for each in ((), overrides))
    for option in differences(plain, changed):
        if option == "seed":
            raise BadInput("--config.seed: the seeds are those of the specification.")
        arms = [arm for arm, options in ablation.arms.items() if option in options]
        if arms:
            raise BadInput(
                f"--config.{option} would change nothing in {', '.join(map(repr, arms))}: the "
                "specification says what it is there. Leave it out, or change the specification."
            )


def _check_pose_loss(options: Mapping[str, Any], config: ConfigDict) -> None:
    """Raises BadInput where an arm sets what only the loss of vectors reads: two arms were one."""
    named = [option for option in options if option.startswith("pose_loss.")]
    if named and config.model.representation != "vectors":
        raise BadInput(
            f"{named[0]} means nothing where model.representation is "
            f"{config.model.representation!r}: it is of vectors alone. Leave it out of the arm."
        )


def _check_detector(ablation: Ablation, config: ConfigDict) -> None:
    """Raises BadInput where what all arms begin with learns poses, in the form of one of them."""
    for name in ablation.detector_phases:
        phase = config.phases[name]
        learns = config.model.version != "v1" and "pose" in phase.trainable
        if learns or phase.loss.alpha < 1:
            raise BadInput(
                f"detector_phases names {name!r}, which learns poses: some arms would begin with "
                "these, and others anew. Name phases without the pose branch, of loss.alpha = 1."
            )
