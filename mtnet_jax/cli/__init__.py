"""The command `mtnet`: a subcommand a task, a file a subcommand.

Heavy imports wait for the one that needs them.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

# OpenCV and libpng speak of damaged images on standard error; what matters is said by the commands.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
# A few bytes can ask for gigabytes of pixels; `data.images` has the same limit for JPEG and PNG.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

from mtnet_jax.cli import (
    ablate,
    data,
    evaluate,
    export,
    page,
    predict,
    protocol,
    quickstart,
    studio,
    train,
)
from mtnet_jax.errors import MtnetError, Preempted, Terminated, Unavailable
from mtnet_jax.version import __version__

COMMANDS = (quickstart, train, ablate, protocol, evaluate, predict, export, page, data, studio)
COMPILING = (
    "quickstart",
    "train",
    "ablate",
    "protocol",
    "eval",
    "predict",
    "export",
)  # commands that run the network
# Commands that take --config.KEY=VALUE. They train: what is begun the same command goes on with.
CONFIGURED = ("train", "ablate", "protocol")
INTERRUPTED, TERMINATED = 130, 143  # exit codes of shells for SIGINT and SIGTERM
PREEMPTED = 75  # sysexits.h: a temporary failure, the same command goes on


def main(argv: list[str] | None = None) -> int:
    """Entry point of `mtnet`. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtnet", description="Every head in an image and where it looks, all 360 degrees."
    )
    parser.add_argument("--version", action="version", version=f"mtnet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in CONFIGURED:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _sigterm_like_ctrl_c():
            if args.command in COMPILING:
                from mtnet_jax.cpu.compilation_cache import keep_compiled_programs

                keep_compiled_programs()
                if not _others_compute(args):
                    _check_platform()
            code = args.run(args, rest) if args.command in CONFIGURED else args.run(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever reads the output has read enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MtnetError) as error:
        print(f"mtnet {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as signalled:
        said, code = _ending(signalled, args.command)
        print(f"\nmtnet {args.command}: {said}", file=sys.stderr)
        return code


def _ending(signalled: KeyboardInterrupt, command: str) -> tuple[str, int]:
    """What is said of a command that a signal ended, and its exit code."""
    if not isinstance(signalled, Terminated):
        return "interrupted", INTERRUPTED
    if command not in CONFIGURED:
        return "terminated", TERMINATED
    saved = "saved and ended" if isinstance(signalled, Preempted) else "terminated"
    return f"{saved}; the same command goes on", PREEMPTED


@contextlib.contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, as SIGINT raises KeyboardInterrupt."""

    def end(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _others_compute(args: argparse.Namespace) -> bool:
    """Whether other processes must find the devices first: those of a run on several hosts, and the
    runs of a grid, from which this one would take a TPU."""
    if args.command == "ablate":
        return not args.number
    return args.command == "train" and bool(args.distributed or args.coordinator)


def _check_platform() -> None:
    """Raises Unavailable where $JAX_PLATFORMS asks for a device that JAX does not find."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked in ("", "cpu"):
        return
    import jax

    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise Unavailable(
            f"JAX finds no device for JAX_PLATFORMS={asked} ({reason}): leave JAX_PLATFORMS out, "
            "or install JAX for the device and see whether its driver works."
        ) from error
