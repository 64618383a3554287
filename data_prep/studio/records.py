"""Frames of the studio as records: the conversion whose items are numbers of frames."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.engine.conversion import Conversion, Description
from data_prep.engine.heads import HeadsOfImage
from data_prep.engine.report import Report
from data_prep.studio.assets import read_assets
from data_prep.studio.effects import random_effects
from data_prep.studio.figure import Figure, make_figure
from data_prep.studio.random_scene import SceneOptions, random_scene
from data_prep.studio.render import render
from data_prep.studio.targets import read_targets
from data_prep.studio.truth import truth
from mtnet_jax.errors import BadInput

LICENCE = "CC0: rendered from MakeHuman's assets, which are CC0; no person is shown."
HOMEPAGE = "http://www.makehumancommunity.org"
# The people of the split "test" have numbers from here, those of "train" numbers below.
TEST_IDENTITIES = 1_000_000


@dataclass(frozen=True)
class FrameReader:
    """Renders frames and makes records of them; the `read` of the conversion.

    Attributes:
      assets: folder of MakeHuman's assets.
      options: of the scenes.
      box_rule: see truth.py.
      seed: of the set.
      identities: how many people each split chooses from.
      targets: folder of MakeHuman's targets, or None for smooth deformations alone.
    """

    assets: Path
    options: SceneOptions
    box_rule: str
    seed: int
    identities: int
    targets: Path | None = None

    def inputs(self) -> list[Path]:
        """The files of assets and targets, see `engine.fingerprint`; their folders may be links."""
        folders = [folder for folder in (self.assets, self.targets) if folder is not None]
        walked = (found for folder in folders for found in os.walk(folder, followlinks=True))
        return sorted(Path(here, name) for here, _, names in walked for name in names)

    def __call__(self, item: tuple[str, int], report: Report) -> Iterator[dict]:
        """The record of the item (split, number of the frame)."""
        split, frame = item
        image_id = f"studio-{self.seed}-{split}-{frame:06d}"
        first = 0 if split == "train" else TEST_IDENTITIES
        people = np.arange(first, first + self.identities)
        scene = random_scene(
            figure_of(self.assets, self.targets), self.options, people, self.seed, first + frame
        )
        camera = scene.cameras[0]
        rendering = render(scene, camera)
        rng = np.random.default_rng([self.seed, 3, first + frame])
        image = random_effects(rendering.image, rng)
        heads, left_out = truth(scene, camera, rendering.ids, box_rule=self.box_rule)
        for reason in left_out:
            report.drop_head(reason, image_id)
        found = HeadsOfImage(image_id, (camera.width, camera.height), report)
        for head in heads:
            hidden = "too little of the head is visible" if head.ignore else ""
            found.add(head.box, head.rotation, ignore=hidden)
        encoded = encode_jpeg(image, int(rng.integers(60, 97)))
        yield found.record(encoded, "studio", camera.intrinsics)


def conversion(
    assets: Path,
    frames: dict[str, int],
    *,
    options: SceneOptions,
    seed: int = 0,
    box_rule: str = "head",
    identities: int = 2000,
    targets: Path | None = None,
) -> Conversion:
    """Frames of the studio as a record set.

    Args:
      assets: folder of MakeHuman's assets.
      frames: "train" and "test" -> how many frames; no person is in both.
      options: of the scenes.
      seed: another seed gives other people and other scenes.
      box_rule: see truth.py.
      identities: how many people each split chooses from.
      targets: folder of MakeHuman's targets (see targets.py), or None to do without.

    Returns:
      The conversion; splits without frames are left out.

    Raises:
      FileNotFoundError, ValueError: see `read_assets`; or too many identities.
    """
    if not 1 <= identities <= TEST_IDENTITIES:
        raise BadInput(f"--identities {identities}: choose a number up to {TEST_IDENTITIES}")
    figure_of(assets, targets)  # what is missing is said before any process starts
    description = Description(
        name="studio",
        version="1.0.0",
        text="People rendered at exactly known head rotation, all the way round.",
        box_rule=box_rule,
        label_names=("head",),
        homepage=HOMEPAGE,
        citation="",
        licence=LICENCE,
    )
    splits = {
        split: [(split, frame) for frame in range(count)]
        for split, count in frames.items()
        if count
    }
    read = FrameReader(assets, options, box_rule, seed, identities, targets)
    return Conversion(description, splits, read)


@functools.lru_cache(maxsize=1)
def figure_of(assets: Path, targets: Path | None = None) -> Figure:
    """The base figure of folders of assets and targets, made once in each process."""
    return make_figure(read_assets(assets), read_targets(targets) if targets else None)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an (H, W, 3) uint8 RGB image; quality 0 to 100."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], settings)
    return encoded.tobytes()
