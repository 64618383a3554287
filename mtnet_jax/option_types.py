"""Options that `mtnet` and the converters share: numbers, and the camera of images."""

import argparse
import math

from mtnet_jax.errors import BadInput


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _between(text, 0, 1)


def degrees(text: str) -> float:
    """A number from 0 to 180."""
    return _between(text, 0, 180)


def amount(text: str) -> float:
    """A number from 0, inf among them."""
    return _between(text, 0, math.inf)


def intrinsics(text: str) -> tuple[float, float, float, float]:
    """fx,fy,cx,cy: four numbers of pixels."""
    from mtnet_jax.camera import check_intrinsics

    try:
        fx, fy, cx, cy = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not fx,fy,cx,cy") from error
    try:
        check_intrinsics((fx, fy, cx, cy))
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return fx, fy, cx, cy


def add_camera(parser: argparse.ArgumentParser, effect: str) -> None:
    """Adds --fov and --intrinsics, of which one may be given; `effect` says what they do."""
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--fov", type=float, metavar="DEGREES", help=f"of the image's longer side: {effect}"
    )
    camera.add_argument(
        "--intrinsics",
        type=intrinsics,
        metavar="FX,FY,CX,CY",
        help="of the camera in pixels, instead of --fov",
    )


def _between(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text} is not a number from {low:g} to {high:g}")
    return number
