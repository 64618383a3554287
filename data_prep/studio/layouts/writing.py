"""Writes raw data to disk: tasks in several processes, then one rename."""

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import tqdm

from data_prep.engine import runners
from data_prep.studio.records import LICENCE, encode_jpeg
from mtnet_jax.errors import FileInTheWay, WorkerDied

ABOUT = "studio.json"  # says what a folder holds, and that the studio wrote it


class Layout(Protocol):
    """Raw data of one kind. Picklable, a frozen dataclass."""

    def tasks(self) -> Sequence[Any]:
        """Pieces of work. Each is done once, in any order, and writes files of its own."""

    def write(self, folder: Path, task: Any) -> int:
        """Writes the files of a task below `folder`; returns the number of images."""


def write_layout(
    layout: Layout, out: Path, *, overwrite: bool = False, processes: int = 1, about: dict
) -> int:
    """Writes raw data.

    The files lie in `.NAME.unfinished` beside `out` until all are there. A run that was stopped
    starts anew. The files do not depend on the number of processes.

    Args:
      layout: what to write.
      out: folder to make.
      overwrite: replace a folder that the studio wrote.
      processes: how many render.
      about: what the folder says of itself in studio.json, beside the licence.

    Returns:
      Number of images.

    Raises:
      FileExistsError: `out` is there, and overwrite is False or the studio did not write it.
      OSError: the disk is full, a folder is read-only, or a process died.
    """
    check_folder(out, overwrite=overwrite)
    staging = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        tasks, images = layout.tasks(), 0
        run = runners.on_processes(min(processes, len(tasks)))
        with tqdm.tqdm(total=len(tasks), desc="render", unit=" tasks", smoothing=0.05) as bar:
            for count in run(functools.partial(layout.write, staging), tasks):
                images += count
                bar.set_postfix_str(f"{images} images", refresh=False)
                bar.update()
        content = {**about, "images": images, "licence": LICENCE}
        (staging / ABOUT).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        staging.rename(out)
    except ChildProcessError as error:
        reason = "a process that renders died (killed, or out of memory?): try --processes 1"
        raise WorkerDied(reason) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return images


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless raw data may be written at `out`."""
    if not out.exists():
        return
    if not overwrite:
        raise FileInTheWay(f"{out} exists already: give --overwrite to replace it")
    if not (out / ABOUT).is_file():
        raise FileInTheWay(
            f"{out} holds no {ABOUT}, so the studio did not write it and --overwrite leaves it "
            "alone: choose another --out"
        )


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rendered image (H, W, 3) uint8 RGB with the noise of a sensor."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(3)
    return np.clip(image + noise + np.float32(0.5), 0, 255).astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    """Writes an (H, W, 3) uint8 RGB image, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(image, quality))


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB image, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def shares(total: int, parts: int) -> list[int]:
    """A whole number in parts that differ by one at most, the larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]
