"""Record sets at addresses: written here, then copied there."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from data_prep.engine.builder import check_target, write_record_set
from data_prep.engine.conversion import Conversion
from data_prep.engine.report import Report
from mtnet_jax.errors import BadInput
from mtnet_jax.places import Address, addresses_below, copy_there, files_below, place

_INFO = "dataset_info.json"  # what makes a folder a record set
_UNFINISHED = "unfinished"  # a file at an address while a record set is copied there


def write_record_set_anywhere(
    conversion: Conversion,
    out: Any,
    *,
    overwrite: bool = False,
    processes: int = 1,
    beam_runner: str = "",
    beam_options: Any = (),
) -> Report:
    """Converts a data set into a record set in a folder or at an address.

    For an address it is written in a folder of the system's temporary ones ($TMPDIR), which is the
    same for the same address: after a stop the next run goes on from the parts there. One that
    stopped while it was copied is converted and copied anew.

    Args:
      conversion, overwrite, processes, beam_runner, beam_options: see `builder.write_record_set`.
      out: the folder or the address of the record set.

    Raises:
      ValueError: Beam at an address: its workers need a folder that all of them see.
      OSError, ValueError: see `builder.write_record_set`.
    """
    target = place(out)
    options = {"processes": processes, "beam_runner": beam_runner, "beam_options": beam_options}
    if isinstance(target, Path):
        return write_record_set(conversion, target, overwrite=overwrite, **options)
    if beam_runner:
        raise BadInput(
            f"--out {target}: workers of Beam share a folder, so give one on a file system that "
            "all of them mount (NFS, Filestore, EFS), and copy the record set to the address after."
        )
    if not (target / _UNFINISHED).exists():
        check_target(target, overwrite=overwrite)
    digest = hashlib.sha256(str(target).encode()).hexdigest()[:16]
    local = Path(tempfile.gettempdir()) / f"mtnet-convert-{digest}" / (target.name or "records")
    report = write_record_set(conversion, local, overwrite=True, **options)
    _move_there(local, target)
    shutil.rmtree(local.parent)
    return report


def _move_there(local: Path, target: Address) -> None:
    """Copies a record set so that no half of it, and no mix with an older one, can be opened."""
    before, names = addresses_below(target), files_below(local)
    (target / _UNFINISHED).parent.mkdir(parents=True, exist_ok=True)
    (target / _UNFINISHED).write_bytes(b"")
    if _INFO in before:
        (target / _INFO).unlink()
    copy_there(local, target, [name for name in names if name != _INFO])
    for name in set(before) - {*names, _INFO, _UNFINISHED}:
        (target / name).unlink()
    copy_there(local, target, [_INFO])
    (target / _UNFINISHED).unlink()
