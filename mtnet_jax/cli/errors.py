"""Which errors are said in one line, without a traceback."""

import opcode
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def raised_on_purpose(error: Exception) -> bool:
    """Whether a raise statement of this project made the error: then its message is for the user.

    What NumPy, JAX or a slip of ours raises keeps its traceback, which says more than its message.
    """
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code
    file = Path(code.co_filename)
    ours = any(file.is_relative_to(REPOSITORY / package) for package in ("mtnet_jax", "data_prep"))
    return ours and opcode.opname[code.co_code[place.tb_lasti]] == "RAISE_VARARGS"
