"""The devices of a grid's runs: which of them a run sees, and how many these are.

The process that starts the runs must not look at them itself: it would take a TPU from them.
"""

import os
import subprocess
import sys
from typing import NamedTuple

from mtnet_jax.errors import BadInput

# Variables that say which accelerators a process sees.
_GPUS, _CHIPS = "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"
_FIRST_PORT = 8476  # that libtpu listens at where nothing else is said
_LOOK = "import jax; print(jax.device_count(), jax.process_count())"
_LONGEST_LOOK = 120.0  # seconds


class Devices(NamedTuple):
    """What JAX sees in the process of a run.

    Attributes:
      number: of the devices.
      processes: that these devices belong to; 1 but on a slice of several hosts.
    """

    number: int
    processes: int


def devices_here() -> Devices:
    """What this process sees; it has the devices from then on."""
    import jax

    return Devices(jax.device_count(), jax.process_count())


def devices_of_a_run(at_once: int) -> Devices | None:
    """What the first of so many runs side by side will see, as a process of its own finds it.

    Returns:
      None where it finds nothing, or not in time: the run itself will say why.
    """
    try:
        found = subprocess.run(
            [sys.executable, "-c", _LOOK],
            # A look needs no memory of a GPU, of which others may hold most.
            env={**environment(0, at_once), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            capture_output=True,
            text=True,
            timeout=_LONGEST_LOOK,
            check=True,
        )
        number, processes = map(int, found.stdout.split()[-2:])
    except (subprocess.SubprocessError, ValueError):
        return None
    return Devices(number, processes)


def check_alone(devices: Devices) -> None:
    """Raises BadInput where the devices are those of several processes, as on a pod slice."""
    if devices.processes > 1:
        raise BadInput(
            f"the devices are those of {devices.processes} processes (a slice of hosts), and "
            "a run of a grid is one process: train each run over all hosts by `mtnet train "
            "--distributed` in its folder of the grid, or give runs to hosts that see their own "
            "devices alone, each with --run N (docs/ablation.md, On several hosts)."
        )


def environment(place: int, at_once: int) -> dict[str, str]:
    """The environment of a run: where several run side by side, with one accelerator alone.

    Args:
      place: of the run among those that run, from 0.
      at_once: how many run side by side.

    Raises:
      BadInput: a variable that names accelerators names too few.
    """
    if at_once == 1:
        return dict(os.environ)
    chip = _accelerator(_CHIPS, place)
    port = _FIRST_PORT + (int(chip) if chip.isdecimal() else place)
    return {
        **os.environ,
        _GPUS: _accelerator(_GPUS, place),
        _CHIPS: chip,
        # Without these libtpu takes all chips of the host for those of one process, and keeps a
        # second one out; each process listens at a port.
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
        "TPU_PROCESS_PORT": str(port),
        "CLOUD_TPU_TASK_ID": "0",
    }


def _accelerator(variable: str, place: int) -> str:
    """The accelerator of a place: of those that the variable names, where it names some."""
    named = [each for each in os.environ.get(variable, "").split(",") if each.strip()]
    if not named:
        return str(place)
    if place >= len(named):
        raise BadInput(
            f"--at-once {place + 1} or more, but {variable}={','.join(named)} names {len(named)}: "
            "give as many, or fewer at once."
        )
    return named[place].strip()
