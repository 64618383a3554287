"""What is wrong with a run, said before its work directory belongs to it.

`mtnet train` asks for its run, `mtnet ablate` for all runs of a grid before it begins with one.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from mtnet_jax.data.augment import AugmentOptions, check_options
from mtnet_jax.data.mixture import Sources, open_sources
from mtnet_jax.data.packing import PackOptions, check_pack_options
from mtnet_jax.run_metrics import check_metric
from mtnet_jax.system import System, build_system
from mtnet_jax.targets import check_assign_options
from mtnet_jax.training.distribution import check_mesh
from mtnet_jax.training.option_checks import check_values
from mtnet_jax.training.phases import Phase, check_devices, read_phases


class Checked(NamedTuple):
    """What a configuration that was checked builds, and the records that it names."""

    system: System
    phases: tuple[Phase, ...]
    train_sources: Sources
    eval_sources: Sources


def check_run(config: ConfigDict) -> Checked:
    """Looks at the options and at the records of a run; needs no device.

    Args:
      config: of the run.

    Raises:
      BadInput: a value, or values beside each other, that no run can have.
      MissingFile: a record set that is not there.
    """
    check_values(config)
    system, phases = build_system(config), read_phases(config)
    train_sources, eval_sources = open_sources(config)
    check_metric(config.best_metric, eval_sources)
    check_options(AugmentOptions(**config.augment))
    check_pack_options(PackOptions(**config.pack))
    check_assign_options(system.assign)
    return Checked(system, phases, train_sources, eval_sources)


def check_share(config: ConfigDict, phases: tuple[Phase, ...], devices: int) -> None:
    """Raises BadInput where so many devices cannot share a run.

    Args:
      config: of the run.
      phases: of the configuration.
      devices: of all processes of the run.
    """
    check_devices(phases, devices)
    check_mesh(config, devices)
