"""AFLW2000-3D: image00002.jpg with image00002.mat, 2,000 images; see mat_faces."""

import argparse
from pathlib import Path

from data_prep.engine.conversion import Conversion
from data_prep.sets import mat_faces
from mtnet_jax.data.listing import jpegs_in
from mtnet_jax.errors import MissingFile

ABOUT = {
    "name": "aflw2000",
    "text": "AFLW2000-3D: images of AFLW with the pose of a fitted face model.",
    "homepage": mat_faces.HOMEPAGE,
    "citation": mat_faces.CITATION,
    "licence": "For research purposes only (images of AFLW, Graz University of Technology).",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mtnet data convert aflw2000`."""
    mat_faces.add_arguments(parser)


def from_arguments(args: argparse.Namespace) -> Conversion:
    """The conversion that the options ask for."""
    return conversion(args.raw, mat_faces.options(args))


def conversion(raw: Path, options: mat_faces.Options | None = None) -> Conversion:
    """AFLW2000 as a data set to be written, all of it in the split "test".

    Args:
      raw: folder of the images, or one that holds AFLW2000.
      options: boxes and filter.

    Raises:
      FileNotFoundError: no images.
    """
    folder = raw / "AFLW2000" if (raw / "AFLW2000").is_dir() else raw
    images = jpegs_in(folder)
    if not images:
        raise MissingFile(f"No *.jpg in {folder}: --raw must hold image00002.jpg and so on")
    items = [mat_faces.Item(path, path.stem) for path in images]
    return mat_faces.conversion(ABOUT, {"test": items}, options or mat_faces.Options())
